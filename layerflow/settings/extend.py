"""The group ``extend``: what you add to layerflow's steps."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from layerflow.settings.fields import Group, name_or_forms, own_module

#: Something in your own module, or the name of an entry point.
_OWN, _ENTRY_POINT = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", r"[A-Za-z_][\w.-]*"
#: Extensions of one kind: each is called in every run.
_MOST = 50


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if re.fullmatch(_OWN, name):
            own_module(name)
        elif not re.fullmatch(_ENTRY_POINT, name) or len(name) > 200:
            raise ValueError("mypackage.mymodule:mything, or the name of an entry point")
    if len(set(names)) < len(names) or len(names) > _MOST:
        raise ValueError(f"at most {_MOST} extensions of a kind, each once")
    return names


#: Extensions by name, as a list, or one alone.
_Names = Annotated[tuple[str, ...], BeforeValidator(name_or_forms), AfterValidator(_names)]


class ExtendConfig(Group):
    """What you add to layerflow's steps: `mypackage.mymodule:mything`, or the name of an installed entry point."""

    model_config = ConfigDict(title="Extensions (advanced)")

    checks: _Names = Field((), description="Your checks of the data.")
    metrics: _Names = Field((), description="Figures of labels and probabilities that are recorded of each model.")
    exporters: _Names = Field((), description="Formats that are published beside the SavedModel, once proved.")
    trackers: _Names = Field(
        (), description="Where runs are recorded: `mlflow`, `wandb`, or your own. One that fails never fails a run."
    )
    publishers: _Names = Field((), description="Where each new version is taken.")
