"""What the command line does around a flow."""

import time

from prefect import flow

from cli.run import _read_steps
from tasks.policy import as_task

first = as_task(lambda: 1, "first", "first", ())
second = as_task(lambda: 2, "second", "second", ())


@flow
def two_steps() -> str:
    first()
    second()
    return "done"


def test_the_states_of_a_flow_with_any_number_of_steps_are_read_without_a_wait(server: None) -> None:
    state = two_steps(return_state=True)
    began = time.monotonic()
    name, steps = _read_steps(two_steps, state.state_details.flow_run_id)
    assert time.monotonic() - began < 5, "it did not wait until the deadline for a run that never comes"
    assert [(step, told["state"]) for step, told in steps.items()] == [("first", "Completed"), ("second", "Completed")]
    assert name, "the run has one, whatever Prefect calls it"
