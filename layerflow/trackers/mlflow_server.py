"""Asking an MLflow server: within seconds, without a word of MLflow's own, and with errors in one sentence."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from layerflow.errors import ConfigError, UnreachableError, printed
from layerflow.trackers.packages import require_variable, variables

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Seconds that each request may take, and how often MLflow repeats it; by default, it takes minutes to give up. What is
#: asked in a training must not hold it. A model can be large, and a server may take a while to pass it on.
QUICK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
LARGE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would tell MLflow's makers of each call
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # it would add the files of whatever project the folder is of
}
#: HTTP: too many requests, and a request that took too long. These heal by themselves, as what is above 500 does.
_HEALS = (408, 429)


def address() -> str:
    """The server, as MLflow's own variable says.

    Raises:
        ConfigError: If it says nothing: MLflow would write a database into whatever folder the run is in.
    """
    return require_variable("mlflow", "MLFLOW_TRACKING_URI", "the address of the server", "http://127.0.0.1:5000")


@contextlib.contextmanager
def asking(limits: dict[str, str]) -> Iterator["MlflowClient"]:
    """A client of the server. Variables of MLflow that are set already count.

    Raises:
        UnreachableError: If the server does not answer in time, or says that it can't now.
        ConfigError: If it refuses something.
    """
    server = address()
    with variables({**limits, **_QUIET}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        logger = logging.getLogger("mlflow")
        level = logger.level
        logger.setLevel(logging.CRITICAL)  # what is wrong is raised too
        try:
            yield mlflow.MlflowClient(server)
        except (MlflowException, RequestException) as error:
            raise _in_one_sentence(error, server) from error
        finally:
            logger.setLevel(level)


def _in_one_sentence(error: Exception, server: str) -> Exception:
    from mlflow.exceptions import RestException
    from requests import RequestException

    chain: list[BaseException] = [error]
    while below := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(below)
    lost = next((each for each in chain if isinstance(each, RequestException)), None)
    status: Any = getattr(getattr(lost, "response", None), "status_code", None)
    if isinstance(error, RestException):
        status = error.get_http_status_code()
    if (lost or isinstance(error, RestException)) and (status is None or status >= 500 or status in _HEALS):
        return UnreachableError(f"MLflow at {server} must answer. It does not{_reason(chain[-1])}.")
    said = printed(" ".join(str(error).split()), 400).rstrip(".")
    return ConfigError(f"MLflow at {server} must accept what layerflow records. It answers: {said}.")


def _reason(error: BaseException) -> str:
    """Why, in the words of the operating system where there are some."""
    said = getattr(error, "strerror", None) or type(error).__name__
    return f" ({printed(str(said))})"
