"""The groups ``gate`` and ``registry``: what a model must reach before it is published, and where."""

from typing import Literal

from pydantic import ConfigDict, Field

from layerflow.settings.fields import Group


class GateConfig(Group):
    """What a model must reach before it is published."""

    model_config = ConfigDict(title="Gate")

    rule: Literal["not_worse", "better"] = Field(
        "not_worse",
        description="`not_worse`: not significantly worse than the live version and the best one, and no more than "
        "`margin` less accurate; `better`: significantly better than the live version.",
    )
    margin: float = Field(
        0.005,
        ge=0,
        le=1,
        description="How much less accurate than the live and the best version a model may be under `not_worse`.",
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


#: A published name is a folder's, and part of others' names, which file systems limit to 255 bytes.
PUBLISHED, MOST_PUBLISHED = r"^[A-Za-z0-9][A-Za-z0-9._-]*$", 100


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
