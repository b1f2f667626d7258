"""Draws the pictures of pages in docs/: Prefect's UI, the cards of a run and of a sweep, and `layerflow try`.

Usage: ``python -m benchmarks.pictures [FOLDER]``, docs/ unless FOLDER is given. Needs Chromium and its driver, and
MNIST from the network or the mirror. It trains for a few minutes.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.servers import LAYERFLOW, ROOT, chromium, opened, signed_in, ui_started

DIGIT = ["--data.name", "mnist", "--model.name", "cnn", "--training.epochs", "2", "--training.batch_size", "128"]
WORSE = ["--model.hidden", "16", "--training.epochs", "10"]
SWEEP = ["--trials", "8", "--over", "training.learning_rate: {log_uniform: [1e-4, 1e-2]}"]
SWEEP += ["--over", "training.batch_size: {choice: [32, 64, 128]}", "--over", "model.dropout: {uniform: [0, 0.5]}"]
#: By the end of a file's name, what the browser prefers.
THEMES = {"": "light", "-dark": "dark"}
_OFFLINE = "host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
#: Pixels of the page around what a picture shows.
_MARGIN = 12
#: Where Prefect's UI shows what is in an artifact.
_CARD = ".artifact-data-markdown"


def layerflow(environment: dict[str, str], *arguments: str) -> str:
    """What a command prints."""
    command = [LAYERFLOW, *arguments]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def browser(width: int, height: int, theme: str = "light", scale: float = 1) -> Iterator[Chrome]:
    window = f"window-size={width},{height}"
    with chromium(_OFFLINE, window, f"force-device-scale-factor={scale}", "hide-scrollbars") as page:
        page.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        )
        yield page


def shoot(page: Chrome, file: Path, first: str, last: str | None = None) -> None:
    """Save what is from one element to another, by their CSS selectors, or a whole element."""
    rectangle = "const box = document.querySelector(arguments[0]).getBoundingClientRect(); return box.toJSON()"
    top, bottom = (page.execute_script(rectangle, each) for each in (first, last or first))
    area = {"x": top["x"] - _MARGIN, "width": top["width"] + 2 * _MARGIN, "y": top["y"] - _MARGIN}
    area |= {"height": bottom["bottom"] - top["y"] + 2 * _MARGIN, "scale": 1}
    picture = page.execute_cdp_cmd("Page.captureScreenshot", {"clip": area, "captureBeyondViewport": True})
    file.write_bytes(base64.b64decode(picture["data"]))


def prefect_ui(folder: Path, work: Path) -> None:
    """A run, and the cards of it, of a worse one, and of a sweep."""
    with ui_started(work / "ui") as server:
        layerflow(server, "retrain", "--quiet")
        (run,) = opened(server, "flow_runs/filter", {})
        cards = _cards(server)
        layerflow(server, "retrain", "--quiet", *WORSE)
        cards["decision"] = _cards(server)["decision"]
        layerflow(server, "sweep", "--quiet", *SWEEP)
        cards["sweep"] = _cards(server)["sweep"]
        for end, theme in THEMES.items():
            with browser(1400, 1200, theme, 1.25) as page:
                _open(page, server, f"runs/flow-run/{run['id']}", ".run-graph canvas", theme)
                shoot(page, folder / f"run{end}.png", ".page-heading-flow-run", ".flow-run-graph")
        top = f"{_CARD} > :first-child"
        with browser(760, 4000) as page:
            _open_card(page, server, cards["decision"], "Version 1 and the new model")
            shoot(page, folder / "card-decision.png", top, ".before-it")
            _open_card(page, server, cards["training"], "Speed and set-up")
            shoot(page, folder / "card-training.png", top, ".before-it")
            _open_card(page, server, cards["evaluation"], "Most confident mistakes")
            shoot(page, folder / "card-evaluation.png", top, f"{_CARD} img")
            shoot(page, folder / "card-mistakes.png", ".at-it", ".at-it ~ :has(img)")
        with browser(1400, 4000) as page:
            _open_card(page, server, cards["sweep"], "Trials")
            shoot(page, folder / "sweep-card.png", top, ".before-it")


def _cards(server: dict[str, str]) -> dict[str, str]:
    """The id of the newest artifact of each kind, such as ``training``."""
    found = opened(server, "artifacts/filter", {"sort": "CREATED_DESC"})
    return {each["key"].partition("-")[0]: each["id"] for each in reversed(found) if each["type"] == "markdown"}


def _open(page: Chrome, server: dict[str, str], path: str, shown: str, theme: str = "light") -> None:
    if not page.current_url.startswith("http"):
        page.get(signed_in(server))
        WebDriverWait(page, 60).until(lambda _: "sign-in" not in page.current_url)
        page.execute_script("localStorage.setItem('color-scheme', JSON.stringify(arguments[0]))", theme)
    page.get(signed_in(server).partition("sign-in")[0] + path)
    WebDriverWait(page, 60).until(lambda _: page.find_elements(By.CSS_SELECTOR, shown))
    time.sleep(5)  # until pictures are in their places; the graph moves for seconds, and says nothing when it rests


def _open_card(page: Chrome, server: dict[str, str], card: str, heading: str) -> None:
    """Show a card, and mark one of its headings, and what is before it."""
    _open(page, server, f"artifacts/artifact/{card}", _CARD)
    page.execute_script(
        """
        const parts = [...document.querySelector(arguments[0]).children]
        const at = parts.findIndex(part => part.textContent.trim() === arguments[1])
        parts[at].classList.add("at-it")
        parts.slice(0, at).findLast(part => part.offsetHeight > 8).classList.add("before-it")  // some are empty
        """,
        _CARD,
        heading,
    )


def try_page(folder: Path, work: Path) -> None:
    """The page of `layerflow try` with a test image of MNIST, as a whole."""
    environment = {**os.environ, "LAYERFLOW_STORE": f"{work}/store", "PREFECT_HOME": f"{work}/prefect"}
    layerflow(environment, "retrain", "--quiet", *DIGIT)
    (version,) = json.loads(layerflow(environment, "data", "list", "--json"))
    layerflow(environment, "data", "export", version["digest"], f"{work}/mnist")
    picture = work / "two.png"
    min((work / "mnist" / "test" / "2").iterdir()).rename(picture)
    server = subprocess.Popen([LAYERFLOW, "try", "--port", "0"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        address = server.stdout.readline().split(": ")[1].split(" ")[0]
        for end, theme in THEMES.items():
            with browser(1000, 700, theme) as page:
                page.get(address)
                page.find_element(By.ID, "file").send_keys(str(picture))
                WebDriverWait(page, 60).until(_has_answered)
                shoot(page, folder / f"try{end}.png", "html")
    finally:
        server.terminate()
        server.wait()


def _has_answered(page: Chrome) -> bool:
    result, answer = (page.find_element(By.ID, each) for each in ("result", "answer"))
    return answer.is_displayed() and result.get_attribute("aria-busy") == "false"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"
    with tempfile.TemporaryDirectory() as work:
        os.environ["LAYERFLOW_TESTS_SHARED"] = f"{work}/shared"  # where the server's empty database is kept
        Path(work, "shared").mkdir()
        prefect_ui(folder, Path(work))
        try_page(folder, Path(work))


if __name__ == "__main__":
    main()
