"""Pages of other origins, and other users of the machine, against the servers that layerflow starts.

Real servers and a real browser: what a page may do is decided by both together.
"""

import functools
import http.client
import io
import stat
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from selenium import webdriver

from cli.prefect_server import Server, _may_be_configured
from tests.command import layerflow
from tests.servers import chromium, give_database, opened, signed_in, ui_started

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    home = tmp_path_factory.mktemp("prefect")
    give_database(home / "prefect.db")
    (home / "prefect.db").chmod(0o644)  # as `prefect server start` leaves it
    with ui_started(home) as environment:
        yield environment


@pytest.fixture(scope="module")
def deployment(ui: dict[str, str]) -> str:
    """A deployment that a worker would run."""
    pool = opened(ui, "work_pools/", {"name": "pool", "type": "process", "base_job_template": {}})
    flow = opened(ui, "flows/", {"name": "flow"})
    wanted = {"name": "d", "flow_id": flow["id"], "work_pool_name": pool["name"], "entrypoint": "f.py:f", "path": "."}
    return str(opened(ui, "deployments/", wanted)["id"])


@pytest.fixture(scope="module")
def foreign_site() -> Iterator[str]:
    """A web site of another origin."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=PROGRAMS))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://foreign.example:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium, for which the names of the attackers mean this machine: so it is after a DNS rebinding."""
    names = "MAP foreign.example 127.0.0.1, MAP rebound.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    # Chromium's own wall between sites and this machine is not everywhere: other browsers and older ones have none.
    walls = "LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,PrivateNetworkAccessSendPreflights"
    with chromium(f"host-resolver-rules={names}", f"disable-features={walls}") as chrome:
        yield chrome


def wait_for(browser: webdriver.Chrome, script: str) -> Any:
    deadline = time.monotonic() + 60
    while not (value := browser.execute_script(script)):
        assert time.monotonic() < deadline, browser.page_source[:2000]
        time.sleep(0.1)
    return value


def tried(browser: webdriver.Chrome, site: str, api: str, deployment: str) -> dict[str, Any]:
    browser.get(f"{site}/foreign_page.html?api={quote(api)}&deployment={deployment}")
    return wait_for(browser, "return window.answers")


def test_a_page_of_another_origin_starts_no_run_and_reads_nothing(
    ui: dict[str, str], deployment: str, foreign_site: str, browser: webdriver.Chrome
) -> None:
    browser.get(signed_in(ui))  # whoever is attacked uses the UI
    wait_for(browser, "return localStorage.getItem('prefect-password')")
    api = signed_in(ui).partition("sign-in")[0] + "api"
    for target in (api, api.replace("127.0.0.1", "localhost")):
        answers = tried(browser, foreign_site, target, deployment)
        assert set(answers) == {"asks_first", "typeless", "as_text", "with_credentials", "reads", "subscribes"}
        for name in ("asks_first", "reads", "subscribes"):
            assert str(answers[name]).startswith("failed"), answers
    assert [each["name"] for each in opened(ui, "flow_runs/filter", {})] == []


def test_a_page_that_was_rebound_to_this_machine_gets_nothing(ui: dict[str, str], browser: webdriver.Chrome) -> None:
    port = urlsplit(signed_in(ui)).port
    browser.get(f"http://rebound.example:{port}/")
    assert browser.find_element("tag name", "body").text == "Invalid host header"
    script = "const done = arguments[0]; fetch('/ui-settings').then(answer => done(answer.status), done)"
    assert browser.execute_async_script(script) == 400


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("localhost", 200), ("rebound.example", 400)])
def test_the_password_opens_no_foreign_name(ui: dict[str, str], host: str, status: int) -> None:
    address = urlsplit(signed_in(ui))
    connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=30)
    headers = {"host": f"{host}:{address.port}", "authorization": f"Basic {address.fragment}"}
    connection.request("GET", "/api/admin/version", headers=headers)
    assert connection.getresponse().status == status


def test_the_link_signs_the_ui_in_and_the_ui_works(
    ui: dict[str, str], deployment: str, browser: webdriver.Chrome
) -> None:
    site = signed_in(ui).partition("/sign-in")[0]
    browser.get(f"{site}/sign-in")  # without its password
    browser.execute_script("localStorage.clear()")
    for version in ("", "/v2"):
        browser.get(signed_in(ui))
        wait_for(browser, "return !location.pathname.startsWith('/sign-in')")
        assert "#" not in browser.current_url
        browser.get(f"{site}{version}/deployments")
        wait_for(browser, "return document.body.innerText.includes('1 Deployment')")


def test_the_password_is_kept_for_its_owner_alone_and_stays(ui: dict[str, str], tmp_path: Path) -> None:
    file = Path(ui["PREFECT_HOME"]) / "profiles.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    databases = list(file.parent.glob("prefect.db*"))
    assert databases
    assert [stat.S_IMODE(each.stat().st_mode) for each in databases] == [0o600] * len(databases)
    (password,) = [line for line in file.read_text().splitlines() if "AUTH_STRING" in line]
    assert len(password.partition("layerflow:")[2]) > 40
    log = (file.parent / "server.log").read_text()
    assert password.partition("layerflow:")[2].strip('"') not in log
    assert urlsplit(signed_in(ui)).fragment not in log, "the password as the link has it"


def test_the_link_on_a_terminal_is_the_one_that_the_tests_sign_in_with(
    ui: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cli.ui import _link

    file = Path(ui["PREFECT_HOME"]) / "profiles.toml"
    profile = tomllib.loads(file.read_text())["profiles"]["layerflow"]
    link, password = signed_in(ui), profile["PREFECT_API_AUTH_STRING"]
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert _link(urlsplit(link).port or 0, password, file).split()[0] == link
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert urlsplit(link).fragment not in _link(urlsplit(link).port or 0, password, file)


def test_profiles_that_others_may_read_are_closed_and_what_is_in_them_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_PROFILES_PATH, temporary_settings

    from cli.ui import _save_profile

    file = tmp_path / "profiles.toml"
    file.write_text('active = "work"\n[profiles.work]\nPREFECT_API_URL = "https://prefect.example/api"\n')
    file.chmod(0o644)
    with temporary_settings({PREFECT_PROFILES_PATH: file}):
        first, _ = _save_profile(4200)
        second, _ = _save_profile(4311)
        monkeypatch.setenv("PREFECT_PROFILES_PATH", str(file))
        monkeypatch.chdir(tmp_path)
        for chosen, named in (("work", True), ("layerflow", True), ("other", False)):
            monkeypatch.setenv("PREFECT_PROFILE", chosen)
            assert _may_be_configured() == named, chosen
    assert first == second
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert text.startswith('active = "work"')
    assert 'PREFECT_API_URL = "https://prefect.example/api"' in text
    assert 'PREFECT_API_URL = "http://127.0.0.1:4311/api"' in text


@pytest.mark.process
def test_another_user_of_the_machine_is_refused_by_the_server_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the server that a run starts."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    give_database(tmp_path / "prefect.db")
    server = Server()
    try:
        server.wait()
        for headers, status in (({}, 401), ({"host": "rebound.example"}, 400)):
            request = urllib.request.Request(f"{server.url}/flow_runs/filter", b"{}", headers)
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=30)
            assert refused.value.code == status
        command = " ".join(Path(f"/proc/{server.process.pid}/cmdline").read_text().split("\0"))
        assert server.password not in command
    finally:
        server.stop()


def test_a_port_that_is_taken_is_one_sentence(ui: dict[str, str]) -> None:
    port = urlsplit(signed_in(ui)).port
    done = layerflow("ui", "--port", str(port), PREFECT_HOME=ui["PREFECT_HOME"])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"layerflow: --port must be a free port. Received: {port} (")
    assert done.stderr.count("\n") == 1
