"""A new version takes the place of the old one only once it can answer."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from layerflow.prediction import following
from layerflow.prediction.following import Follower


class Registry:
    """Versions that are there, and those that can't be loaded."""

    def __init__(self) -> None:
        self.newest, self.damaged, self.loads = 1, set[int](), list[int]()

    def load(self, number: int) -> Any:
        self.loads.append(number)
        if number in self.damaged:
            raise ValueError(f"{number} is damaged")
        return SimpleNamespace(version=number)

    def follower(self) -> Follower:
        return Follower(lambda: self.newest, self.load)


def test_the_live_version_is_loaded_once_and_the_next_one_follows() -> None:
    registry = Registry()
    follower = registry.follower()
    follower.check()
    assert (follower.model.version, registry.loads) == (1, [1])
    registry.newest = 4
    follower.check()
    follower.check()
    assert (follower.model.version, registry.loads) == (4, [1, 4])


def test_a_version_that_is_gone_gives_way_to_the_one_that_is_live() -> None:
    registry = Registry()
    registry.newest = 4
    follower = registry.follower()
    registry.newest = 3
    follower.check()
    assert follower.model.version == 3


def test_a_damaged_version_is_refused_and_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    follower = registry.follower()
    registry.newest, registry.damaged = 2, {2}
    follower.check()
    follower.check()
    assert follower.model.version == 1
    assert follower.refused == {2: "2 is damaged"}
    assert registry.loads == [1, 2]
    monkeypatch.setattr(following, "_RETRY", 0)
    registry.damaged.clear()
    follower.check()
    assert (follower.model.version, follower.refused) == (2, {})


def test_a_newer_version_does_not_wait_for_a_damaged_one() -> None:
    registry = Registry()
    follower = registry.follower()
    registry.newest, registry.damaged = 2, {2}
    follower.check()
    registry.newest = 3
    follower.check()
    assert (follower.model.version, follower.refused) == (3, {})


def test_the_first_version_must_load() -> None:
    registry = Registry()
    registry.damaged = {1}
    with pytest.raises(ValueError, match="1 is damaged"):
        registry.follower()


def test_it_goes_on_when_the_registry_can_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    registry, stop = Registry(), threading.Event()
    seen = list[int]()

    def newest() -> int:
        seen.append(registry.newest)
        if len(seen) == 2:
            raise OSError("the disk is away")
        if len(seen) == 4:
            stop.set()
        return 1 if len(seen) == 1 else 2

    follower = Follower(newest, registry.load)
    monkeypatch.setattr(following, "_PAUSE", 0)
    follower.follow(stop)
    assert (follower.model.version, len(seen)) == (2, 4)
