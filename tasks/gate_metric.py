"""What the models are compared by."""

from layerflow.records import DatasetRef
from layerflow.settings.gate import GateConfig


def require_metric(gate: GateConfig, data: DatasetRef) -> None:
    """Refuse a ``gate.metric`` that the decision could not compute, before hours of training.

    Raises:
        ConfigError: If it is of a class that the data don't have, or your own function can't be imported.
    """
    if gate.metric != "accuracy":
        from layerflow.evaluation.metrics import make_metric

        make_metric(gate, data.classes)
