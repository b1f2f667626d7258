"""The steps of the flows, one a file: each is a Prefect task, policy plus one call."""

from tasks.build_model import build_model
from tasks.collect_garbage import collect_garbage
from tasks.convert_model import convert_model
from tasks.evaluate_model import evaluate_model
from tasks.export_model import export_model
from tasks.hand_over import hand_over
from tasks.load_data import load_data
from tasks.own_checks import own_checks
from tasks.own_metrics import own_metrics
from tasks.promote_model import promote_model
from tasks.rollback_model import rollback_model
from tasks.tracking import track_run
from tasks.train_model import train_model
from tasks.trials.choose_winner import choose_winner
from tasks.trials.run_trial import run_trial
from tasks.validate_data import validate_data
from tasks.verify_export import verify_export
from tasks.verify_formats import verify_formats

__all__ = [
    "build_model",
    "choose_winner",
    "collect_garbage",
    "convert_model",
    "evaluate_model",
    "export_model",
    "hand_over",
    "load_data",
    "own_checks",
    "own_metrics",
    "promote_model",
    "rollback_model",
    "run_trial",
    "track_run",
    "train_model",
    "validate_data",
    "verify_export",
    "verify_formats",
]
