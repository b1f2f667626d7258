"""GPU set-up, against a stand-in for the GPUs that are not there."""

from types import SimpleNamespace

import pytest
import tensorflow as tf

from layerflow.devices import enable_memory_growth
from layerflow.errors import DeviceError


class FakeGpus:
    """What `tf.config` says of two GPUs, before or after the runtime is up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, running: bool) -> None:
        self.running = running
        self.growing: dict[str, bool] = {"gpu0": False, "gpu1": False}
        gpus = [SimpleNamespace(name=name) for name in self.growing]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else [])
        monkeypatch.setattr(tf.config.experimental, "get_memory_growth", lambda gpu: self.growing[gpu.name])
        monkeypatch.setattr(tf.config.experimental, "set_memory_growth", self.set_growth)

    def set_growth(self, gpu: SimpleNamespace, on: bool) -> None:
        if self.running:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        self.growing[gpu.name] = on


def test_memory_growth_is_set_on_every_gpu_and_again_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = FakeGpus(monkeypatch, running=False)
    assert enable_memory_growth() == 2
    gpus.running = True
    assert enable_memory_growth() == 2
    assert gpus.growing == {"gpu0": True, "gpu1": True}


def test_a_runtime_that_is_up_without_it_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpus(monkeypatch, running=True)
    with pytest.raises(DeviceError, match=r"call layerflow.devices.set_up\(\) first"):
        enable_memory_growth()


def test_a_machine_without_gpu_is_fine() -> None:
    assert enable_memory_growth() == len(tf.config.list_physical_devices("GPU"))
