"""The documentation site: its links lead somewhere, it has all settings and commands, and it asks no other host."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from pydantic import BaseModel
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from cli.commands import app
from layerflow.config import RetrainConfig
from layerflow.settings.gc import GcConfig
from tests.servers import chromium

ROOT = Path(__file__).resolve().parent.parent
#: What a browser loads by itself, and by which attribute; a `link` only if it is of one of these kinds.
_LOADED = {"src", "srcset", "poster", "data"}
_LOADING_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch"}


class _Page(HTMLParser):
    """Where a page links to, what it loads, and the places in it that a link can name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag in ("a", "area") and "href" in given:
            self.links.add(given["href"])
        elif tag == "link" and _LOADING_LINKS & set(given.get("rel", "").split()):
            self.loaded.add(given["href"])
        self.loaded |= {given[name].split()[0] for name in _LOADED if given.get(name) and tag != "meta"}
        self.loaded |= set(_in_styles(given.get("style", "")))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style":
            self.loaded |= set(_in_styles(data))


def _in_styles(text: str) -> list[str]:
    return re.findall(r"(?:url\(\s*[\"']?|@import\s+[\"'])([^\"')\s]+)", text)


def _pages(site: Path) -> dict[Path, _Page]:
    return {file: _Page(file.read_text()) for file in sorted(site.rglob("*.html"))}


def dead_links(site: Path) -> list[str]:
    """What the pages link to or load and the site has not, be it a file or a place in a page."""
    pages, dead = _pages(site), []
    for file, page in pages.items():
        for link in sorted(page.links | page.loaded):
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            start = site if address.path.startswith("/") else file.parent
            target = Path(os.path.normpath(start / unquote(address.path).lstrip("/"))) if address.path else file
            target = target / "index.html" if target.is_dir() else target
            place = unquote(address.fragment)
            if not target.is_file() or (place and target in pages and place not in pages[target].places):
                dead.append(f"{file.relative_to(site)}: {link}")
    return dead


def foreign(site: Path) -> list[str]:
    """What the pages and their styles would load from another host."""
    loaded = {(file, each) for file, page in _pages(site).items() for each in page.loaded}
    loaded |= {(file, each) for file in site.rglob("*.css") for each in _in_styles(file.read_text())}
    return sorted(
        f"{file.relative_to(site)}: {each}"
        for file, each in loaded
        if urlsplit(each).netloc or urlsplit(each).scheme not in ("", "data")
    )


def test_a_dead_link_a_lost_place_and_a_foreign_host_are_found(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="below/page.html#here">a</a> <a href="below/page.html#lost">b</a> <a href="lost.html">c</a>'
        '<a href="#lost">d</a> <a href="https://example.org">e</a> <img src="lost.png">'
    )
    (tmp_path / "below" / "page.html").write_text(
        '<h2 id="here">h</h2> <a href="../index.html">f</a> <img src="//example.org/a.png">'
        '<style>@import "b.css";</style>'
        '<link rel="canonical" href="https://example.org"> <link rel="preconnect" href="https://c.example.org">'
        '<p style="background: url(https://example.org/d.png)"> <script src="https://example.org/e.js"></script>'
    )
    (tmp_path / "all.css").write_text(
        "@import url('http://example.org/f.css'); p { background: url(data:image/png,x) }"
    )
    assert dead_links(tmp_path) == [
        "below/page.html: b.css",
        "index.html: #lost",
        "index.html: below/page.html#lost",
        "index.html: lost.html",
        "index.html: lost.png",
    ]
    assert foreign(tmp_path) == [
        "all.css: http://example.org/f.css",
        "below/page.html: //example.org/a.png",
        "below/page.html: https://c.example.org",
        "below/page.html: https://example.org/d.png",
        "below/page.html: https://example.org/e.js",
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    _require_zensical()
    folder = tmp_path_factory.mktemp("built") / "site"
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "site" / "build.py", folder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _require_zensical() -> None:
    pytest.importorskip("zensical", reason="what builds the site is not installed: make docs")


#: The site is built in a process of its own, as `make docs` does.
built = pytest.mark.process


@built
def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    assert dead_links(site) == []


@built
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    assert foreign(site) == []


@built
def test_every_page_is_in_the_navigation_and_has_one_title(site: Path) -> None:
    links = _Page((site / "source" / "LICENSE.html").read_text()).links  # it has no others
    for page in (ROOT / "docs").glob("*.md"):
        assert f"../{page.stem}.html" in links, f"name {page.name} in the navigation of docs/site/site.toml"
    for file in site.rglob("*.html"):
        if file.name != "404.html":
            assert file.read_text().count("<h1") == 1, file


def _fields(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@built
def test_the_reference_has_every_setting_command_and_layer(site: Path) -> None:
    reference = {file.stem: _Page(file.read_text()).places for file in (site / "reference").glob("*.html")}
    assert {*_fields(RetrainConfig, ""), *_fields(GcConfig, "gc.")} <= reference["configuration"]
    assert {f"layerflow-{name}" for name in app if not name.startswith("-")} <= reference["cli"]
    layers = re.findall(r"^from (layers\.\w+) import (.+)", (ROOT / "layers" / "__init__.py").read_text(), re.M)
    assert {f"{module}.{name}" for module, names in layers for name in names.split(", ")} <= reference["layers"]
    assert "layerflow.config.RetrainConfig" in reference["layerflow.config"]
    assert "layerflow.records.DatasetRef" in reference["layerflow.records"]


@built
def test_the_search_works_from_a_file_and_asks_no_host(site: Path) -> None:
    """In a browser: whatever it failed to load would be in its log."""
    with chromium("host-resolver-rules=MAP * ~NOTFOUND", "window-size=1300,900") as browser:
        browser.get((site / "index.html").as_uri())
        browser.find_element(By.CLASS_NAME, "md-search__button").click()
        ActionChains(browser).send_keys("temperature").perform()
        wanted = "calibration.html?h=temperature"
        WebDriverWait(browser, 30).until(lambda _: any(wanted in each for each in _found(browser)))
        assert browser.get_log("browser") == []


def _found(browser: Any) -> list[str]:
    """Where the results of the search lead."""
    script = (
        "return [...document.querySelectorAll('*')].filter((each) => each.shadowRoot)"
        ".flatMap((each) => [...each.shadowRoot.querySelectorAll('a')]).map((each) => each.href)"
    )
    return list(browser.execute_script(script))


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program that builds the site, as a module."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    return importlib.import_module("build")


def test_a_page_of_github_gets_the_links_and_pictures_of_the_site(build: Any) -> None:
    page = (
        "<!-- not run by the tests: `x` -->\n[a](../layers/relu.py) [b](#here) [c](https://example.org) [d](e.md#f)\n"
        '```python\nx[0](../layers/relu.py)\n```\n<picture>\n  <source srcset="y-dark.png">\n'
        '  <img src="y.png" alt="z">\n</picture> `gate.margin` [`gate.rule`](g.md) `gate.rule better` `a.py`'
    )
    assert build.on_the_site(page, str.upper) == (
        "[a](../LAYERS/RELU.PY) [b](#here) [c](https://example.org) [d](E.MD#f)\n"
        "```python\nx[0](../layers/relu.py)\n```\n![z](Y.PNG#only-light)\n![z](Y-DARK.PNG#only-dark) "
        "[`gate.margin`](reference/configuration.md#gate.margin) [`gate.rule`](G.MD) `gate.rule better` `a.py`"
    )


def test_the_navigation_leaves_out_what_there_is_not(build: Any) -> None:
    items = [{"A": "a.md"}, {"B": ["b.md", {"C": "c.md"}]}, {"D": [{"E": "e.md"}, "f.md"]}, {"G": ["g.md"]}]
    kept = list(build.navigation(items, {"a.md", "c.md", "e.md", "f.md"}))
    assert kept == [{"A": "a.md"}, {"B": "c.md"}, {"D": [{"E": "e.md"}, "f.md"]}]


@built
def test_a_link_that_leads_nowhere_ends_the_build(build: Any, tmp_path: Path) -> None:
    _require_zensical()
    with pytest.raises(SystemExit, match=r"docs/a\.md must link to files that exist\. Received: lost\.png"):
        build.on_the_site("![b](lost.png)", partial(build._place, "docs/a.md", {}, set()))
    with pytest.raises(SystemExit) as ended:
        build.build(tmp_path / "site", {"index.md": "# A\n\n[b](lost.md) [c](d.md#lost)\n", "d.md": "# D\n"})
    assert re.findall(r"(page|anchor) does not exist\n.*(index.md:3)", str(ended.value)) == [
        ("page", "index.md:3"),
        ("anchor", "index.md:3"),
    ]
    assert "Traceback" not in str(ended.value)
    assert not (tmp_path / "site").exists()
