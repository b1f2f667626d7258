"""Secrets in the addresses that layerflow is given: none is shown, logged, or kept in the store."""

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli import doctor, main
from cli.deploy import deploy
from cli.prefect_server import ensure_answering
from layerflow.cards import report
from layerflow.cards import sweep as sweep_card
from layerflow.config import RetrainConfig
from layerflow.errors import ConfigError, ServerError
from layerflow.registry.receipt import receipt_for
from layerflow.settings.data import DataConfig
from tasks import logs

SECRETS = ("Zq7secret", "Zq7token")
BUCKET = "s3://AKIA:Zq7secret@bucket/prepared?sig=Zq7token"
CONFIG = RetrainConfig(data=DataConfig(name="mnist", data_dir=BUCKET))


def silent(text: str) -> bool:
    return not any(secret in text for secret in SECRETS)


def test_a_server_that_does_not_answer_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    url = "http://operator:Zq7secret@127.0.0.1:9/api"
    with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}):
        with pytest.raises(ServerError, match=r"at http://\*\*\*@127\.0\.0\.1:9/api") as error:
            ensure_answering(url)
        assert silent(str(error.value))
        monkeypatch.setattr(doctor, "ensure_answering", lambda url: None)
        monkeypatch.setattr(doctor, "configured_url", lambda: url)
        finding = next(each for each in doctor._findings(DataConfig()) if each.name == "prefect")
    assert finding.level == "ok"
    assert silent(finding.detail)


@pytest.mark.parametrize(
    "arguments",
    [
        ("retrain", "--data.name", "folder", "--data.path", BUCKET, "--data.data_dir", BUCKET),
        ("retrain", "--data.nope", BUCKET),
        ("retrain", "--training.epochs", BUCKET),
        ("retrain", "--config", BUCKET),
        ("data", "check", "--data.name", "mnist", "--data.mirror", BUCKET),
        ("deploy", "--webhook", "hooks.example/services/T0/Zq7secret"),
        ("deploy", "--file", BUCKET),
    ],
)
def test_no_error_of_the_command_line_echoes_them(
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    empty_store: Path,
) -> None:
    monkeypatch.setattr(sys, "argv", ["layerflow", *arguments])
    with pytest.raises(SystemExit) as left:
        main.main()
    said = capfd.readouterr()
    assert left.value.code == 2
    assert said.err.startswith("layerflow: ")
    assert silent(said.out + said.err), said.err


def test_a_webhook_is_not_echoed_at_all() -> None:
    """Its path is the secret, so no masking helps."""
    with pytest.raises(ConfigError, match="must be an address that starts with http") as error:
        deploy("hooks.example/services/T0/Zq7secret")
    assert silent(str(error.value))


def test_the_command_in_reports_and_cards_is_masked() -> None:
    assert CONFIG.as_flags == "--data.name mnist --data.data_dir 's3://***@bucket/prepared?***'"
    assert silent(report.render(CONFIG, {}))


def test_receipts_keep_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    record = SimpleNamespace(model_dump=lambda mode: {"history": [], "source": BUCKET})
    parts = {"trained": record, "data": record}
    challenger = SimpleNamespace(_asdict=lambda: parts, model=SimpleNamespace(settings={}))
    receipt = receipt_for(CONFIG, challenger, "run")  # type: ignore[arg-type]
    assert receipt["config"]["data"]["data_dir"] == "s3://***@bucket/prepared?***"
    assert silent(json.dumps(receipt))


def test_the_card_of_a_sweep_keeps_no_secret() -> None:
    assert silent(sweep_card.command(CONFIG, {}, 3))


def test_what_prefect_logs_of_an_error_of_others_is_masked() -> None:
    """A library's error has the address in its message, in its traceback, and Prefect logs both."""
    logs.install()
    try:
        raise FileNotFoundError(f"no such object: {BUCKET}")
    except FileNotFoundError as error:
        failed = error
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        record = logging.LogRecord(
            name,
            logging.ERROR,
            __file__,
            1,
            "Task run failed with %r",
            (failed,),
            (type(failed), failed, failed.__traceback__),
        )
        assert logging.getLogger(name).filter(record)
        said = logging.Formatter().format(record)
        assert "no such object: s3://***@bucket" in said
        assert "Traceback" in said
        assert silent(said)
    heard: list[str] = []
    handler = next(each for each in logging.getLogger("layerflow").handlers if isinstance(each, logs._ToRunLogger))
    prefect = logging.getLogger("prefect")
    prefect.addFilter(lambda record: bool(heard.append(logging.Formatter().format(record))))  # type: ignore[func-returns-value]
    try:
        failure = (type(failed), failed, failed.__traceback__)
        handler.emit(logging.LogRecord("layerflow", logging.WARNING, __file__, 1, "reading %s", (BUCKET,), failure))
    finally:
        prefect.filters.pop()
    (said,) = heard
    assert said.startswith("reading s3://***@bucket/prepared?***\nTraceback")
    assert silent(said)
