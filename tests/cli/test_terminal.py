"""What the terminal shows, and the sentence with which a command fails."""

import errno
import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import filelock
import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError
from pydantic import ValidationError

from cli import main, run
from cli.terminal import Output, explain, interrupted, set_up_console
from layerflow.errors import ConfigError
from layerflow.records import ModelRef
from tests import forked


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


FULL = OSError(errno.ENOSPC, "No space left on device", "/store/x")
LOST = httpx.ConnectError("All connection attempts failed")


def while_handling(error: BaseException, handled: BaseException) -> BaseException:
    error.__context__ = handled
    return error


_REQUEST = httpx.Request("POST", "http://127.0.0.1:4200/api/flow_runs/")
REFUSED = PrefectHTTPStatusError(
    f"Client error '422 Unprocessable Entity' for url '{_REQUEST.url}'\nResponse: {{}}",
    request=_REQUEST,
    response=httpx.Response(422, request=_REQUEST),
)


@pytest.mark.parametrize(
    ("error", "begins"),
    [
        (FULL, "The disk is full: [Errno 28] No space left on device: '/store/x'."),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "The disk is full: [Errno 122] Disk quota exceeded."),
        (caused(RuntimeError("can't write"), FULL), "The disk is full: [Errno 28]"),
        (ExceptionGroup("several", [ValueError("x"), FULL]), "The disk is full: [Errno 28]"),
        (RuntimeError("; No space left on device\n[Op:SaveV2]"), "The disk is full: RuntimeError: ; No space left"),
        (ConnectionRefusedError(111, "Connection refused"), "The connection to a server failed: [Errno 111]"),
        (caused(RuntimeError("crashed"), LOST), "The connection to a server failed: ConnectError: All connection"),
        (httpx.ReadTimeout("timed out"), "The connection to a server failed: ReadTimeout: timed out."),
        (ExceptionGroup("several", [ValueError("x"), LOST]), "The connection to a server failed: ConnectError"),
        (REFUSED, "The Prefect server refused the request: PrefectHTTPStatusError: Client error '422 "),
        (caused(RuntimeError("crashed"), REFUSED), "The Prefect server refused the request: PrefectHTTPStatusError"),
        (filelock.Timeout("/store/.locks/x"), "I/O error: The file lock '/store/.locks/x' could not be acquired."),
        (while_handling(KeyError("a bug"), LOST), "Unexpected error: KeyError: 'a bug'."),
        (OSError(errno.EIO, "Input/output error", "/a"), "I/O error: [Errno 5] Input/output error: '/a'."),
        (ValueError("x" * 5000), "Unexpected error: ValueError: " + "x" * 200 + "…. Re-run with --debug"),
    ],
)
def test_any_error_is_one_sentence_that_says_what_to_do(error: BaseException, begins: str) -> None:
    status, sentence = explain(error)
    assert status == 1
    assert sentence.startswith(begins)
    assert "\n" not in sentence
    assert "re-run" in sentence.lower()


def test_the_users_own_error_keeps_its_status_and_words() -> None:
    assert explain(ConfigError("A width must be even.")) == (2, "A width must be even.")


def leaving(monkeypatch: pytest.MonkeyPatch, error: BaseException, *arguments: str) -> int:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(main, "app", fail)
    monkeypatch.setattr(sys, "argv", ["layerflow", *arguments])
    with pytest.raises(SystemExit) as left:
        main.main()
    return int(str(left.value.code))


def test_the_traceback_is_printed_with_debug_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leaving(monkeypatch, FULL, "retrain") == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert leaving(monkeypatch, FULL, "retrain", "--debug") == 1
    assert capsys.readouterr().err.startswith("Traceback")


def test_debug_prints_the_traceback_of_wrong_words_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["layerflow", "retrain", "--training.epochs", "0", "--debug"])
    with pytest.raises(SystemExit) as left:
        main.main()
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.splitlines()[-1].startswith("layerflow: training.epochs: input should be greater than or equal to 1")


def test_a_record_of_ours_that_does_not_validate_is_no_error_of_the_users(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValidationError) as invalid:
        ModelRef.model_validate({"parameters": "many"})
    assert leaving(monkeypatch, invalid.value, "retrain") == 1
    assert "Unexpected error" in (said := capsys.readouterr().err)
    assert said.count("\n") == 1


def test_a_connection_that_breaks_in_a_run_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leaving(monkeypatch, BrokenPipeError(errno.EPIPE, "Broken pipe"), "retrain") == 1
    assert "[Errno 32] Broken pipe" in capsys.readouterr().err


#: A command that prints so many characters. In a process of its own: what is closed is its output.
_PRINTS = "import sys; from cli import main; main.app = lambda *a, **b: print('x' * int(sys.argv[1])); main.main()"


@pytest.mark.process
@pytest.mark.parametrize("characters", [1, 100_000], ids=["what a buffer holds", "more than a buffer holds"])
def test_a_reader_that_has_gone_is_no_error(characters: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", _PRINTS, str(characters)],
        cwd=run.__file__[: -len("/cli/run.py")],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_promises_only_what_the_command_can_keep(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leaving(monkeypatch, KeyboardInterrupt(), "models") == 130
    assert capsys.readouterr().err == "layerflow: interrupted.\n"
    assert "continues where this run stopped" in interrupted(["retrain", "--training.epochs", "3"])
    assert "schedules stay active" in interrupted(["serve"])
    assert "shows which version is live" in interrupted(["rollback", "--to", "3"])


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What Prefect's handler writes to the terminal."""
    from prefect.logging.handlers import PrefectConsoleHandler

    set_up_console(Output(), embedded=False)
    (handler,) = (each for each in logging.getLogger().handlers if isinstance(each, PrefectConsoleHandler))
    written = io.StringIO()
    monkeypatch.setattr(handler.console, "file", written)
    monkeypatch.setattr(handler.console, "width", 1000)
    yield written
    set_up_console(Output(), embedded=False)


def said(console: io.StringIO, output: Output, message: str, embedded: bool = True, **record: Any) -> str:
    """What the terminal shows of something that Prefect logs."""
    set_up_console(output, embedded)
    console.seek(0)
    console.truncate()
    logging.getLogger("prefect").log(record.pop("level", logging.INFO), message, stacklevel=2, **record)
    return console.getvalue()


def test_a_link_is_shown_where_it_lives_on_and_quiet_shows_warnings_only(console: io.StringIO) -> None:
    link = "View at http://127.0.0.1:1/runs"
    assert not said(console, Output(), link)
    assert link in said(console, Output(), link, embedded=False)
    assert link in said(console, Output(verbose=True), link)
    assert "epoch 1" in said(console, Output(), "epoch 1")
    assert not said(console, Output(quiet=True), "epoch 1")
    assert "a class is gone" in said(console, Output(quiet=True), "a class is gone", level=logging.WARNING)


@pytest.mark.parametrize(
    ("error", "is_bug"), [(FULL, False), (ConfigError("A width must be even."), False), (KeyError("a bug"), True)]
)
def test_the_console_shows_the_traceback_of_a_bug_and_verbose_that_of_any_error(
    console: io.StringIO, error: Exception, is_bug: bool
) -> None:
    def failed(output: Output) -> str:
        try:
            raise error
        except Exception:
            return said(console, output, "it failed", level=logging.ERROR, exc_info=True)

    assert ("Traceback" in failed(Output())) == is_bug
    assert "Traceback" in failed(Output(verbose=True))


def test_verbose_shows_every_line_of_prefect(console: io.StringIO) -> None:
    def call_hooks(output: Output) -> str:  # the name of the function of Prefect's that logs such lines
        return said(console, output, "Running hook")

    assert not call_hooks(Output())
    assert "Running hook" in call_hooks(Output(verbose=True))


@pytest.mark.parametrize(("case", "status"), [("killed", 1), ("ended after the run", 0)])
@pytest.mark.process
def test_a_run_whose_server_is_killed_ends_at_once_in_one_sentence(case: str, status: int) -> None:
    """In a process of its own, which is ended hard."""
    done = forked.run(
        [sys.executable, forked.PROGRAMS / "loses_its_server.py", case],
        cwd=run.__file__[: -len("/cli/run.py")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    if status:
        assert done.stderr.startswith("layerflow: The embedded Prefect server must run as long as the run. It ended")
        assert f"signal {signal.SIGKILL.value}," in done.stderr
        assert done.stderr.count("\n") == 1
    else:
        assert (done.stdout, done.stderr) == ("over\n", "")


def test_a_full_disk_in_a_step_shows_no_traceback_on_the_console_and_says_nothing_of_hooks(
    server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow
    from prefect.logging.handlers import PrefectConsoleHandler

    from tasks.policy import as_task

    def fill() -> None:
        raise FULL

    step = as_task(fill, "fill", "fill", ())

    @flow
    def filling() -> None:
        step()

    (handler,) = (each for each in logging.getLogger().handlers if isinstance(each, PrefectConsoleHandler))
    console = io.StringIO()
    monkeypatch.setattr(handler.console, "file", console)
    filling(return_state=True)
    said = console.getvalue()
    assert "No space left on device" in said
    assert "Traceback" not in said
    assert "hook" not in said.lower()
