"""Draws docs/try.png and docs/try-dark.png: the page of `layerflow try`, with a test image of MNIST, in both themes.

Usage: ``python -m benchmarks.pictures [FOLDER]``, docs/ unless FOLDER is given. Needs Chromium and its driver, and
MNIST from the network or the mirror. A network is trained for two epochs, which takes a minute or two.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.servers import LAYERFLOW, ROOT, chromium

TRAINING = ["--data.name", "mnist", "--model.name", "cnn", "--training.epochs", "2", "--training.batch_size", "128"]
#: File by file, what the browser prefers.
THEMES = {"try.png": "light", "try-dark.png": "dark"}
_OFFLINE = "host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"


def shoot(address: str, picture: Path, file: Path, theme: str) -> None:
    """Show the picture to the page, and save what the page then looks like, as a whole."""
    with chromium(_OFFLINE, "window-size=1000,800", "hide-scrollbars") as browser:
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        )
        browser.get(address)
        browser.find_element(By.ID, "file").send_keys(str(picture))
        result = browser.find_element(By.ID, "result")
        answer = browser.find_element(By.ID, "answer")
        shown = WebDriverWait(browser, 60)
        shown.until(lambda _: answer.is_displayed() and result.get_attribute("aria-busy") == "false")
        height = browser.execute_script("return document.body.scrollHeight")
        size = {"width": 1000, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.save_screenshot(str(file))


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"
    with tempfile.TemporaryDirectory() as work:
        environment = {**os.environ, "LAYERFLOW_STORE": f"{work}/store", "PREFECT_HOME": f"{work}/prefect"}

        def layerflow(*arguments: str) -> str:
            command = [LAYERFLOW, *arguments]
            return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout

        layerflow("retrain", "--quiet", *TRAINING)
        (version,) = json.loads(layerflow("data", "list", "--json"))
        layerflow("data", "export", version["digest"], f"{work}/mnist")
        picture = Path(work) / "two.png"
        min((Path(work) / "mnist" / "test" / "2").iterdir()).rename(picture)
        server = subprocess.Popen([LAYERFLOW, "try", "--port", "0"], env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout
            address = server.stdout.readline().split(": ")[1].split(" ")[0]
            for name, theme in THEMES.items():
                shoot(address, picture, folder / name, theme)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
