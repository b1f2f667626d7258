"""A step that fails, in a file whose imports are those of a step's file: its code is part of the step's key."""

from pathlib import Path
from typing import Any

from layerflow.records import ModelRef
from tasks import caching


def failing_step(errors: list[Exception]) -> Any:
    """A step with the policy of all steps, whose work raises these errors one after another and then succeeds."""

    @caching.step("test_step", run_name="test-step")
    def work(number: int, folder: Path) -> ModelRef:
        """Fail, then succeed."""
        if errors:
            raise errors.pop(0)
        return ModelRef(name="m", digest="d", parameters=number)

    return work
