"""The groups ``gate`` and ``registry``: what a model must reach before it is published, and where."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from layerflow.errors import ConfigError, did_you_mean, printed
from layerflow.settings.fields import Group, name_or_form, own_module

#: What two models may be compared by, besides the recall or the precision of a class and a function of your own.
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "top_5_accuracy", "log_loss", "auc", "expected_cost")


def _metric(name: str) -> str:
    """Check the name of a figure."""
    if name in METRICS or re.fullmatch(r"top_[1-9]\d{0,3}_accuracy|(recall|precision):.+", name):
        return name
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        return own_module(name)
    raise ValueError(
        f"one of {', '.join(METRICS)}, recall:<class>, precision:<class>, or mypackage.mymodule:my_metric"
        f"{did_you_mean(name, METRICS)}"
    )


def _costs(value: Any) -> Any:
    """Check a map of maps of costs, given as text or not."""
    value = name_or_form(value)
    if value is None:
        return None
    rows = value.items() if isinstance(value, dict) else ()
    costs = {str(true): row for true, row in rows if isinstance(row, dict) and row}
    numbers = [cost for row in costs.values() for cost in row.values()]
    if not numbers or len(costs) < len(rows) or not all(map(_is_cost, numbers)):
        raise ValueError(
            'a map from true classes to maps from predicted classes to costs, such as {"sick": {"healthy": 20.0}}, '
            "with no cost below 0"
        )
    return {true: {str(name): float(cost) for name, cost in row.items()} for true, row in costs.items()}


def _is_cost(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


class GateConfig(Group):
    """What a model must reach before it is published."""

    model_config = ConfigDict(title="Gate")

    rule: Literal["not_worse", "better"] = Field(
        "not_worse",
        description="`not_worse`: not significantly worse than the live version and the best one, and by no more than "
        "`margin`; `better`: significantly better than the live version.",
    )
    margin: float = Field(
        0.005,
        ge=0,
        le=1,
        description="How much worse in `metric` than the live and the best version a model may be under `not_worse`.",
    )
    metric: Annotated[str, AfterValidator(_metric)] = Field(
        "accuracy",
        max_length=400,
        description="What the models are compared by: `accuracy`, `balanced_accuracy`, `macro_f1`, `recall:<class>`, "
        "`precision:<class>`, `top_5_accuracy`, `log_loss`, `auc`, `expected_cost`, or your own "
        "`mypackage.mymodule:my_metric` of labels and probabilities.",
    )
    costs: Annotated[dict[str, dict[str, float]], BeforeValidator(_costs)] | None = Field(
        None,
        description="`expected_cost`: what each mistake costs, by true and then by predicted class: "
        '`{"sick": {"healthy": 20.0}}`. A mistake that is missing costs 1, a right answer nothing.',
    )
    worst_metric: float | None = Field(
        None,
        allow_inf_nan=False,
        description="Worst value of `metric` that may be published: the highest of `log_loss`, `expected_cost` and "
        "whatever has loss, error or cost in its name, otherwise the lowest.",
    )
    min_accuracy: float = Field(
        0.0, ge=0, le=1, description="Lowest accuracy on the test images that may be published."
    )
    baseline: Literal["majority", "none"] = Field(
        "majority",
        description="What a model must beat significantly: `majority`, always answering the most frequent test class; "
        "or `none`.",
    )
    min_class_recall: float = Field(
        0.01,  # any above zero: of up to 100 images of a class, one must be recognized
        ge=0,
        le=1,
        description="Lowest recall that may be published, of any class with at least `min_class_examples`.",
    )
    min_class_examples: int = Field(
        10,  # a model with a recall of 0.4 misses all of ten images in 0.6 % of cases
        ge=1,
        description="Fewest test images of a class for judging its recall.",
    )
    min_slice: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Lowest accuracy that may be published, of any slice (`data.slices`) with at least "
        "`min_slice_examples`.",
    )
    min_slice_examples: int = Field(
        30,  # where 24 of 30 are right, the 95 % interval is 0.63 to 0.90: fewer images say next to nothing
        ge=1,
        description="Fewest test images of a slice for judging its accuracy.",
    )
    min_test_examples: int = Field(
        100,
        ge=1,
        description="Fewest test images for publishing a model, and for comparing it with the live version.",
    )
    max_latency_ratio: float | None = Field(
        None, gt=0, description="Highest 99th percentile of the latency, as a multiple of the live version's."
    )
    classes: Literal["same", "new_allowed", "common"] = Field(
        "same",
        description="Which classes the live version must know to be compared: the `same`; `new_allowed`, all of its "
        "classes, and the new model may know more; or `common`, the comparison is on the classes that both know.",
    )
    not_comparable: Literal["keep", "floors_only"] = Field(
        "keep",
        description="What to do if the live version can't be compared (too few common test images, other classes, "
        "damaged): keep it, or let the floors alone decide.",
    )
    force: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="A reason to publish despite the comparison; recorded in the receipt. The floors still apply.",
    )
    approval: Literal["never", "always", "borderline"] = Field(
        "never",
        description="Whether a person must approve a model that the gate would publish: `borderline` asks about a "
        "first version, and one within noise, by force, with a new class, or that can't be compared.",
    )
    approval_days: float = Field(
        7,  # a question on a Friday can be answered after the weekend, and after a few days off
        gt=0,
        le=365,
        description="Days to wait for the answer; without one, the live version stays.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.metric == "expected_cost") != (self.costs is not None):
            raise ValueError(
                'costs together with metric expected_cost, which they are of; set both, costs to {"sick": {"healthy": '
                "20.0}} say, or neither"
            )
        return self

    def require_classes(self, classes: Sequence[str]) -> None:
        """Check that the classes that ``metric`` and ``costs`` name are those of the data.

        Raises:
            ConfigError: With the name that is not.
        """
        kind, _, name = self.metric.partition(":")
        named = {"metric": [name] if kind in ("recall", "precision") else []}
        named["costs"] = [each for true, row in (self.costs or {}).items() for each in (true, *row)]
        for field, names in named.items():
            for each in names:
                if each not in classes:
                    known = printed(", ".join(classes), 400)
                    raise ConfigError(
                        f"gate.{field} must name classes of the data: {known}. Received: "
                        f"{printed(each)}{did_you_mean(each, list(classes))}."
                    )


#: A published name is a folder's, and part of others' names, which file systems limit to 255 bytes.
PUBLISHED, MOST_PUBLISHED = r"^[A-Za-z0-9][A-Za-z0-9._-]*$", 100


#: Holds the password of the key. It is in no setting: settings are kept by the Prefect server.
PASSWORD = "LAYERFLOW_SIGN_PASSWORD"


class SignConfig(Group):
    """How a version is signed when it is published; by default, it is not."""

    model_config = ConfigDict(title="Signature")

    key: Path | None = Field(
        None,
        description="PEM file of the private key that signs every version: an elliptic curve key, P-256, P-384 or "
        f"P-521. If it has a password, set it as `{PASSWORD}` in the environment.",
    )
    certificate: Path | None = Field(
        None, description="PEM file of the certificate of `key`; the signature then carries it."
    )
    chain: Path | None = Field(
        None, description="PEM file of the certificates between `certificate` and the root that verifiers trust."
    )
    keyless: bool = Field(
        False,
        description="Sign with Sigstore and the identity of this workload, as CI systems and clouds provide it; "
        "needs the network.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.keyless and self.key:
            raise ValueError("key or keyless, and not both; leave one out")
        if self.certificate and not self.key:
            raise ValueError("certificate together with the private key that it is of; set key too")
        if self.chain and not self.certificate:
            raise ValueError("chain together with the certificate that it leads to; set certificate too")
        return self

    @property
    def method(self) -> Literal["key", "certificate", "keyless"] | None:
        """What signs a version, or nothing if it is not signed."""
        if self.keyless:
            return "keyless"
        return "certificate" if self.certificate else "key" if self.key else None


class RegistryConfig(Group):
    """Where a model is published."""

    model_config = ConfigDict(title="Registry (advanced)")

    name: str | None = Field(
        None,
        pattern=PUBLISHED,
        max_length=MOST_PUBLISHED,
        description="Name of the published model; default: model and dataset, such as `mlp-digits`.",
    )
    keep: int = Field(
        10,
        ge=1,
        description="Versions to keep, besides the live version and the one that a rollback restores.",
    )
    card: Path | None = Field(
        None,
        description="YAML file with what only a person can say in the model card: intended use, license, contact, … "
        "Default: the `card.yaml` of the working folder, if there is one.",
    )
    sign: SignConfig = Field(SignConfig(), description="How a version is signed when it is published.")
