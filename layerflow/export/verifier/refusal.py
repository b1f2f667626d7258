"""Refusing a model, with a reason."""


class RefusedError(Exception):
    """The model must not be served, and why."""


def require(condition: bool, reason: str) -> None:
    if not condition:
        raise RefusedError(reason)


def first_line(error: BaseException) -> str:
    """The first line that says something; TensorFlow's begin with a heading."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and line != "Graph execution error:"), type(error).__name__)
