"""A Prefect server that asks for a user and a password."""

import pytest

from tests.command import layerflow


@pytest.mark.drill
@pytest.mark.process
def test_without_the_password_it_is_one_sentence_and_with_it_a_run_is_made(guarded_server: dict[str, str]) -> None:
    """In processes of their own: the password is in their environment."""
    wrong = {**guarded_server, "PREFECT_API_AUTH_STRING": "operator:guessed"}
    refused = [layerflow(each, environment=guarded_server) for each in ("deploy", "retrain", "serve")]
    refused.append(layerflow("retrain", environment=wrong))
    for done in refused:
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("layerflow: The Prefect server at http://127.0.0.1:")
        assert "set PREFECT_API_AUTH_STRING to" in done.stderr
        assert done.stderr.count("\n") == 1
        assert "guessed" not in done.stderr
    examined = layerflow("doctor", environment=guarded_server)
    assert examined.returncode == 2
    assert "fail  prefect   The Prefect server at" in examined.stdout
    right = {**guarded_server, "PREFECT_API_AUTH_STRING": "operator:secret"}
    done = layerflow("retrain", "--training.epochs", "2", environment=right)
    assert done.returncode == 0, done.stderr
