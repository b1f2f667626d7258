"""A Prefect server that asks for a user and a password."""

from tests.flows.conftest import in_one_process


def test_without_the_password_it_is_one_sentence_and_with_it_a_run_is_made(guarded_server: dict[str, str]) -> None:
    wrong = {**guarded_server, "PREFECT_API_AUTH_STRING": "operator:guessed"}
    *refused, (status, examined, _) = in_one_process(
        ("deploy",), ("retrain",), ("serve",), ("doctor",), environment=guarded_server
    )
    refused += in_one_process(("retrain",), environment=wrong)
    for answer in refused:
        assert answer[:2] == (1, "")
        assert answer[2].startswith("layerflow: The Prefect server at http://127.0.0.1:")
        assert "set PREFECT_API_AUTH_STRING to" in answer[2]
        assert answer[2].count("\n") == 1
        assert "guessed" not in answer[2]
    assert status == 2
    assert "fail  prefect   The Prefect server at" in examined
    right = {**guarded_server, "PREFECT_API_AUTH_STRING": "operator:secret"}
    ((status, _, said),) = in_one_process(("retrain", "--training.epochs", "2"), environment=right)
    assert status == 0, said
