"""`layerflow try` as a person meets it: the address that it prints, and the page in a browser."""

import base64
import io
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from layerflow import store
from layerflow.data.arrays import images_and_labels
from layerflow.outcomes import Retrained
from tests import forked
from tests.command import ROOT
from tests.servers import LAYERFLOW, chromium

#: Drops a file on the page, as a person does with the mouse.
DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
const dropped = new DataTransfer();
dropped.items.add(new File([bytes], arguments[1], { type: "image/png" }));
window.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
"""


class Shown(NamedTuple):
    address: str
    folder: Path


@pytest.fixture(scope="module")
def shown(first_run: Retrained, session_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """The command, in a process of its own: that it prints its address and ends on Ctrl-C is what is claimed."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copytree(session_store / "models" / "mlp-digits", folder / "models" / "mlp-digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERFLOW_STORE", str(folder))
        command = [LAYERFLOW, "try", "--port", "0"]
        process = forked.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"mlp-digits, version 1: (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", line)
        assert found, line + process.stderr.read()
        yield Shown(found[1], folder)
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.fixture(scope="module")
def page(shown: Shown) -> Iterator[Any]:
    with chromium("host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "window-size=1100,900") as browser:
        browser.implicitly_wait(10)
        browser.get(shown.address)
        yield browser


def digit(first_run: Retrained, label: int) -> bytes:
    """A test image that the model recognizes, enlarged, as PNG."""
    images, labels = images_and_labels(first_run.data, "test")
    predicted = np.load(store.path(first_run.evaluation.predictions), allow_pickle=False).argmax(-1)
    row = np.flatnonzero((np.asarray(labels) == label) & (predicted == label))[0]
    content = io.BytesIO()
    Image.fromarray(np.asarray(images[row])[..., 0]).save(content, "PNG")
    return content.getvalue()


def answered(browser: Any) -> dict[str, str]:
    """The classes and probabilities that the page shows, once it is no longer busy."""
    result = browser.find_element(By.ID, "result")
    WebDriverWait(browser, 30).until(lambda _: result.get_attribute("aria-busy") == "false")
    rows = browser.find_elements(By.CSS_SELECTOR, "#top tr")
    return {row.find_element(By.TAG_NAME, "th").text: row.find_element(By.TAG_NAME, "td").text for row in rows}


def press(browser: Any, key: str) -> None:
    ActionChains(browser).send_keys(key).perform()


@pytest.mark.process
def test_a_dropped_picture_gets_its_class_and_the_places_that_speak_for_it(page: Any, first_run: Retrained) -> None:
    page.execute_script(DROP, base64.b64encode(digit(first_run, 3)).decode(), "three.png")
    WebDriverWait(page, 30).until(lambda _: page.find_element(By.ID, "answer").is_displayed())
    told = answered(page)
    assert next(iter(told)) == "3"
    assert len(told) == 5
    assert all(re.fullmatch(r"\d+\.\d %", share) for share in told.values())
    assert page.find_element(By.ID, "title").text == "mlp-digits, version 1"
    assert f"Accuracy {first_run.evaluation.accuracy:.3f} (95 % interval " in page.find_element(
        By.ID, "facts"
    ).text.replace("\n", " ")
    assert page.find_element(By.ID, "name").text == "three.png"
    loaded = "return [...document.images].every((each) => each.complete && each.naturalWidth > 0)"
    WebDriverWait(page, 10).until(lambda _: page.execute_script(loaded))
    assert not page.get_log("browser")


@pytest.mark.process
def test_a_chosen_file_is_answered_and_what_is_no_image_is_named(
    page: Any, first_run: Retrained, tmp_path: Path
) -> None:
    good, bad = tmp_path / "eight.png", tmp_path / "text.png"
    good.write_bytes(digit(first_run, 8))
    bad.write_bytes(b"no image")
    page.find_element(By.ID, "file").send_keys(str(bad))
    message = page.find_element(By.ID, "message")
    WebDriverWait(page, 30).until(lambda _: message.text.startswith("The model can't decode the image: no image."))
    assert not page.find_element(By.ID, "answer").is_displayed()
    page.find_element(By.ID, "file").send_keys(str(good))
    WebDriverWait(page, 30).until(lambda _: page.find_element(By.ID, "name").text == "eight.png")
    assert next(iter(answered(page))) == "8"


@pytest.mark.process
def test_the_page_is_used_by_keyboard_and_fits_a_phone_in_both_themes(page: Any, first_run: Retrained) -> None:
    page.execute_script(DROP, base64.b64encode(digit(first_run, 3)).decode(), "three.png")
    WebDriverWait(page, 30).until(lambda _: page.find_element(By.ID, "places").is_displayed())
    page.execute_script("document.body.tabIndex = -1; document.body.focus()")
    reached = list[str]()
    while "overlay" not in reached:
        assert len(reached) < 6
        press(page, Keys.TAB)
        reached.append(page.switch_to.active_element.get_attribute("id"))
    assert reached[0] == "file"
    press(page, Keys.SPACE)
    assert not page.find_element(By.ID, "places").is_displayed()
    press(page, Keys.SPACE)
    assert page.find_element(By.ID, "places").is_displayed()
    for element in page.find_elements(By.CSS_SELECTOR, "img, input, button, video, section"):
        assert element.accessible_name or element.get_attribute("id") == "places" or not element.is_displayed()
    grounds = set[str]()
    for theme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": theme}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        grounds.add(page.find_element(By.TAG_NAME, "body").value_of_css_property("background-color"))
    assert len(grounds) == 2
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360


def tried(folder: Path, *arguments: str) -> forked.CompletedProcess[str]:
    environment = {**os.environ, "LAYERFLOW_STORE": str(folder)}
    return forked.run([LAYERFLOW, "try", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.process
def test_an_address_that_is_taken_is_one_sentence(shown: Shown) -> None:
    """In a process of its own: the exit status is what is claimed."""
    port = shown.address.rstrip("/").rpartition(":")[2]
    done = tried(shown.folder, "--port", port)
    assert done.returncode == 1
    assert done.stderr == (
        f"layerflow: --host and --port must be a free address of this machine. Received: 127.0.0.1, {port} (Address "
        "already in use); choose another port, as in layerflow try --port 8502.\n"
    )


@pytest.mark.process
def test_there_must_be_a_model(tmp_path: Path) -> None:
    """In a process of its own: the exit status is what is claimed."""
    done = tried(tmp_path / "store")
    assert done.returncode == 2
    assert "A model must be published in " in done.stderr
