"""GPU set-up, against a stand-in for the GPUs that are not there."""

import sys
from types import SimpleNamespace

import pytest
import tensorflow as tf

from layerflow.devices import enable_memory_growth, set_up
from layerflow.errors import DeviceError
from layerflow.settings.devices import DevicesConfig
from tests import forked


class FakeGpus:
    """What `tf.config` says of two GPUs, before or after the runtime is up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, running: bool) -> None:
        self.running = running
        self.growing: dict[str, bool] = {"gpu0": False, "gpu1": False}
        self.limits: dict[str, list[tf.config.LogicalDeviceConfiguration]] = {}
        gpus = [SimpleNamespace(name=name) for name in self.growing]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else [])
        monkeypatch.setattr(tf.config.experimental, "get_memory_growth", lambda gpu: self.growing[gpu.name])
        monkeypatch.setattr(tf.config.experimental, "set_memory_growth", self.set_growth)
        monkeypatch.setattr(tf.config, "get_logical_device_configuration", lambda gpu: self.limits.get(gpu.name))
        monkeypatch.setattr(tf.config, "set_logical_device_configuration", self.set_limit)

    def set_limit(self, gpu: SimpleNamespace, limits: list[tf.config.LogicalDeviceConfiguration]) -> None:
        if self.running:
            raise RuntimeError("Virtual devices cannot be modified after being initialized")
        self.limits[gpu.name] = limits

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


def test_a_memory_limit_is_set_on_every_gpu_instead_of_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = FakeGpus(monkeypatch, running=False)
    set_up(DevicesConfig(memory_limit_mb=2048))
    gpus.running = True
    set_up(DevicesConfig(memory_limit_mb=2048))
    assert {name: [each.memory_limit for each in limits] for name, limits in gpus.limits.items()} == {
        "gpu0": [2048],
        "gpu1": [2048],
    }
    assert not any(gpus.growing.values())
    with pytest.raises(DeviceError, match="gpu0 must be set up before TensorFlow uses it"):
        set_up(DevicesConfig(memory_limit_mb=1024))


@pytest.mark.process
def test_determinism_is_switched_on_when_asked_for() -> None:
    """In a process of its own: determinism can't be switched off again."""
    done = forked.run(
        [sys.executable, forked.PROGRAMS / "turns_determinism_on.py"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
