"""A run that waits for a person: suspended, and continued by the form in the Prefect UI, on a real server."""

import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelled, Running, Suspended
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from flows.retrain import retrain
from layerflow.config import RetrainConfig
from layerflow.outcomes import Promotion, Retrained
from layerflow.registry import candidates, versions
from layerflow.registry.promotion import promote
from layerflow.registry.receipt import Challenger
from tasks.approval import end_closed_questions, end_suspended
from tests.command import layerflow
from tests.servers import PREFECT, chromium, free_port, opened, running, signed_in, ui_started
from tests.shared import copy_artifact

NAME = "mlp-digits"
ENDS = ("Suspended", "Completed", "Failed", "Cancelled", "Crashed")


def ended(server: dict[str, str], run: str, *but: str) -> dict[str, Any]:
    """The run, once it is suspended or over."""
    deadline = time.monotonic() + 240
    while (found := opened(server, f"flow_runs/{run}"))["state_name"] not in {*ENDS} - {*but}:
        assert time.monotonic() < deadline, found["state_name"]
        time.sleep(0.5)
    return found


def asked_in(browser: Any, page: str) -> Any:
    """The form of a suspended run's page, whole: on a busy machine the page may give up on one of its requests."""
    for _ in range(5):
        browser.get(page)
        browser.find_element(By.XPATH, "//button[contains(., 'Resume')]").click()
        form = browser.find_element(By.CSS_SELECTOR, ".p-modal")
        choices = form.find_elements(By.CSS_SELECTOR, "select")
        with contextlib.suppress(TimeoutException):
            WebDriverWait(browser, 30).until(lambda _, form=form: "Publish candidate" in form.text)
            if choices:
                return form
    pytest.fail("the page shows no whole form")


def approve_in_the_ui(server: dict[str, str], run: str) -> None:
    flags = ("host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "window-size=1400,1100")  # a form needs room
    with chromium(*flags) as browser:
        browser.implicitly_wait(30)
        link = signed_in(server)
        browser.get(link)
        form = asked_in(browser, f"{link.partition('/sign-in')[0]}/runs/flow-run/{run}")
        assert "Publish candidate 1 of mlp-digits? Accuracy 0." in form.text
        Select(form.find_element(By.CSS_SELECTOR, "select")).select_by_value("approve")
        by, reason = form.find_elements(By.CSS_SELECTOR, "textarea")
        by.send_keys("anna")
        reason.send_keys("looks good")
        form.find_element(By.XPATH, ".//button[contains(., 'Submit')]").click()
        ended(server, run, "Suspended")


@pytest.mark.drill
@pytest.mark.process
def test_a_suspended_run_outlives_a_restart_and_the_form_publishes_its_candidate(tmp_path: Path) -> None:
    """In processes of their own: the server's and the worker's end while the run waits, and others continue."""
    port, worker = free_port(), [str(PREFECT), "worker", "start", "--pool", "layerflow"]
    with ui_started(tmp_path, port) as server:
        assert layerflow("deploy", environment=server).returncode == 0
        found = opened(server, "deployments/filter", {})
        deployment = next(each["id"] for each in found if each["name"] == "retrain-digits")
        config = {"data": {"name": "digits"}, "training": {"epochs": 5}, "gate": {"approval": "always"}}
        asked = {"parameters": {"config": config}, "state": {"type": "SCHEDULED"}}
        run = opened(server, f"deployments/{deployment}/create_flow_run", asked)["id"]
        with running(server, worker, tmp_path / "log", tmp_path):
            assert ended(server, run)["state_name"] == "Suspended", (tmp_path / "log").read_text()
        assert not (tmp_path / "store" / "models" / NAME / "1").exists()
    with ui_started(tmp_path, port) as server, running(server, worker, tmp_path / "log", tmp_path):
        approve_in_the_ui(server, run)
        assert ended(server, run)["state_name"] == "Completed", (tmp_path / "log").read_text()
        tasks = opened(server, "task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        chosen = {"filter": {"event": {"name": ["layerflow.run.suspended"]}}}
        (suspended,) = opened(server, "events/filter", chosen)["events"]
        assert suspended["resource"]["prefect.resource.id"] == f"prefect.flow-run.{run}"
        assert "retrain" in [each.get("prefect.resource.name") for each in suspended["related"]]
    receipt = json.loads((tmp_path / "store" / "models" / NAME / "1" / "assets.extra" / "receipt.json").read_text())
    given = receipt["decision"]["approval"]
    assert (given["approved"], given["by"], given["reason"]) == (True, "anna", "looks good")
    assert len(tasks) == 9, "nothing is made twice: eight steps, then the answer"
    assert {each["run_count"] for each in tasks} == {1}


@pytest.fixture
def shelf(first_run: Retrained, session_store: Path, empty_store: Path) -> Challenger:
    """The first run's model, and a store of the test's own with what is needed to publish it."""
    for record in (first_run.data, first_run.export):
        copy_artifact(record.folder, session_store, empty_store)
    return Challenger(*(getattr(first_run, part) for part in Challenger._fields))


def test_a_run_without_a_deployment_ends_and_its_candidate_waits(
    first_run: Retrained, server: None, session_store: Path
) -> None:
    config = RetrainConfig.model_validate({"gate": {"approval": "always"}, "registry": {"name": "waits"}})
    state = retrain(config, return_state=True)
    assert state.is_completed()
    made = state.result().promotion
    assert (made.code, versions.numbers("waits")) == ("waiting_for_approval", [])
    assert candidates.waiting("waits").asked_by == str(state.state_details.flow_run_id)  # type: ignore[union-attr]
    shutil.rmtree(session_store / "models" / "waits")


def obsolete(first_run: Retrained, asked_by: str) -> Promotion:
    ended = {"code": "kept_obsolete", "reason": "a newer run asks", "candidate": 1, "asked_by": asked_by}
    return first_run.promotion.model_copy(update=ended)


def test_a_suspended_run_whose_question_is_obsolete_ends_and_says_so(first_run: Retrained, server: None) -> None:
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(retrain), "of-the-test")
        run = client.create_flow_run_from_deployment(deployment)
        for state in (Running(), Suspended(timeout_seconds=60)):
            client.set_flow_run_state(run.id, state, force=True)
        end_suspended(obsolete(first_run, str(run.id)))
        state = client.read_flow_run(run.id).state
        assert state
        assert (state.name, state.message) == ("Kept: obsolete", "kept_obsolete: a newer run asks")
        client.set_flow_run_state(run.id, Running(), force=True)
        end_suspended(obsolete(first_run, str(run.id)))
        assert client.read_flow_run(run.id).state.name == "Running", "a run that was resumed ends by itself"  # type: ignore[union-attr]


def test_the_answer_to_a_run_that_could_not_carry_it_out_is_carried_out_by_the_next_decision(
    shelf: Challenger, server: None
) -> None:
    config = RetrainConfig.model_validate({"gate": {"approval": "always"}})
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(retrain), "of-the-test")
        run = client.create_flow_run_from_deployment(deployment)
        promote(config, shelf, "run", flow_run_id=str(run.id))
        client.set_flow_run_state(run.id, Cancelled(), force=True)
        end_closed_questions(NAME)
        assert versions.numbers(NAME) == [], "it was not answered"
        given = {"decision": "approve", "by": "anna", "reason": "looks good"}
        client.create_flow_run_input(run.id, "suspended-candidate-1-response", json.dumps(given))
    end_closed_questions(NAME)
    receipt = versions.receipt_of(NAME, 1)
    assert receipt
    assert receipt["decision"]["approval"].items() >= {"approved": True, "by": "anna", "reason": "looks good"}.items()


@pytest.mark.parametrize("asked_by", ["", str(UUID(int=7)), "no ID"])
def test_a_run_that_is_unknown_disturbs_nobody(first_run: Retrained, server: None, asked_by: str) -> None:
    end_suspended(obsolete(first_run, asked_by))
