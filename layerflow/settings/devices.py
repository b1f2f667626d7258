"""The group ``devices``: how the machine's devices are used."""

from typing import Any

from pydantic import ConfigDict, Field

from layerflow.settings.fields import Group


class DevicesConfig(Group):
    """How the machine's devices are used; `threads` and `deterministic` change the last bits of a model."""

    model_config = ConfigDict(title="Devices (advanced)")

    memory_limit_mb: int | None = Field(
        None, ge=64, description="Hard limit of each GPU's memory in MiB. Without it, memory grows as needed."
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="CPU threads of one operation, on which the last bits of a model depend; default: 1 for `mlp` in "
        "batches below 64 and with several workers, otherwise as many as this process may use.",
    )
    deterministic: bool = Field(
        False,
        description="Same bits in every run on a GPU too, at a cost in speed. Runs on a CPU with the same number of "
        "threads have the same bits either way, but setting it changes which.",
    )

    @property
    def arithmetic(self) -> dict[str, Any]:
        """What decides the order in which sums are rounded, and so the last bits of what is computed.

        Threads that are not set stay so: the same store on a machine with other cores is to be found and continued.
        """
        return self.model_dump(include={"threads", "deterministic"})
