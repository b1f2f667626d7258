"""A Prefect server for one run, where none is configured: it starts while this process imports TensorFlow."""

import atexit
import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli import server
from layerflow.errors import ServerError

#: Seconds for the first start on a slow disk, which makes the database (seen: 3 to 10).
_STARTUP_SECONDS = 120
#: What a server of one run has no use for: schedules and their late runs are the business of a lasting one.
_OFF = ("SCHEDULER", "LATE_RUNS", "PAUSE_EXPIRATIONS", "FOREMAN", "CANCELLATION_CLEANUP")

#: `PREFECT_API_URL = …` of a profile or .env file, `[api]`, `[tool.prefect.api]`, `api.url = …` of a TOML file.
_SPEAKS_OF_AN_API = re.compile(r"prefect_api_url|^\s*\[?[\w.]*\bapi\b", re.IGNORECASE | re.MULTILINE)

#: What a progress bar hides while it moves.
_SHOW_CURSOR = "\x1b[?25h\r"


class Server:
    """The embedded server, being started; ``password`` is for this process alone, and no other user can read it."""

    def __init__(self) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        settings = {f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false" for service in _OFF}
        settings |= {"PREFECT_SERVER_UI_ENABLED": "false", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        self.password = server.new_password()
        settings |= server.settings(self.port, self.password)
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(Path(server.__file__)), "--port", str(self.port), "--with-parent"],
            env={**os.environ, **settings},
            stdin=subprocess.PIPE,  # closed by the system when this process ends, however it ends
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the run, which then still has to report its state
        )

    def wait(self) -> None:
        """Return when the server answers.

        Raises:
            ServerError: If it ended or did not answer in time.
        """
        deadline = time.monotonic() + _STARTUP_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            time.sleep(0.05)
        raise ServerError(
            "The embedded Prefect server did not start; `make ui` shows why. With PREFECT_PROFILE=layerflow, the "
            "run uses the server that `make ui` started."
        )

    def stop(self) -> None:
        """End the server and wait until it has written what it knows."""
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_unless_configured() -> Server | None:
    """Start an embedded server, or nothing where Prefect's settings name a server already.

    It ends with this process: after Prefect's own threads, which still have logs and events to send.

    Raises:
        ServerError: If the configured server does not answer.
    """
    if url := configured_url():
        ensure_answering(url)
        return None
    embedded = Server()
    atexit.register(embedded.stop)
    return embedded


def configured_url() -> str | None:
    """The API that Prefect's settings name, or nothing: then each run starts a server of its own."""
    if not _may_be_configured():
        return None
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


def _may_be_configured() -> bool:
    """Whether any place that Prefect's settings come from speaks of an API.

    Asking Prefect costs its import, a second in which the server could be starting already.
    """
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    files = [Path(".env"), Path("prefect.toml"), Path("pyproject.toml")]
    texts = [file.read_text(errors="replace") for file in files if file.is_file()]
    if profiles.is_file():
        texts.append(_active_profile(profiles.read_text(errors="replace")))
    return "PREFECT_API_URL" in os.environ or any(_SPEAKS_OF_AN_API.search(text) for text in texts)


def _active_profile(text: str) -> str:
    """What the profile in force says: `layerflow ui` keeps one beside it that names an API too."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # for Prefect to say
        return text
    active = os.environ.get("PREFECT_PROFILE") or content.get("active")
    return str(content.get("profiles", {}).get(active, ""))


def ensure_answering(url: str) -> None:
    """Ask the server that Prefect's settings name for its health, and for something that it tells friends only.

    Raises:
        ServerError: If it does not answer, or asks for another user and password.
    """
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ServerError(
                f"A Prefect server must answer at {url}, which Prefect's settings name. It does not ({reason}); start "
                "it (`make ui`), or unset PREFECT_API_URL to let the run start its own."
            )
        if _is_refused(client):
            raise ServerError(
                f"The Prefect server at {url} needs its user and password. It refused those of this process; "
                "set PREFECT_PROFILE=layerflow for the server of `make ui`, without PREFECT_API_URL, or set "
                "PREFECT_API_AUTH_STRING to the user:password of the server's PREFECT_SERVER_API_AUTH_STRING."
            )


def _is_refused(client: Any) -> bool:
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        client.api_version()
    except PrefectHTTPStatusError as error:
        return error.response.status_code in (401, 403)
    return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def ends_with(embedded: Server) -> Iterator[None]:
    """End this process as soon as its server is gone, before Prefect asks it for minutes what it can't answer.

    At once, as a kill would: that loses nothing but the training since the last checkpoint.
    """
    over = threading.Event()

    def watch() -> None:
        status = embedded.process.wait()
        if not over.is_set():
            how = f"signal {-status}" if status < 0 else f"status {status}"
            shown = _SHOW_CURSOR if sys.stderr.isatty() else ""
            sys.stderr.write(
                f"{shown}layerflow: The embedded Prefect server must run as long as the run. It ended with {how}, as "
                "if memory or the disk were full; free some, and re-run the command, which resumes.\n"
            )
            sys.stderr.flush()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
