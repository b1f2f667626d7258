"""What commands import, for that is most of the time of a short one."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.terminal import import_tensorflow_alone


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In place of the real libraries, a `tensorflow` that imports Keras where it finds it, and a `keras`."""
    (tmp_path / "keras.py").write_text("")
    (tmp_path / "tensorflow.py").write_text("try:\n    import keras\nexcept ImportError:\n    keras = None\n")
    for name in ("tensorflow", "keras"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("tensorflow", "keras"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("libraries")
def test_tensorflow_is_imported_without_keras_which_can_be_imported_later() -> None:
    import_tensorflow_alone()
    assert sys.modules["tensorflow"].keras is None
    import keras

    assert keras


@pytest.mark.usefixtures("libraries")
def test_keras_stays_where_it_was_imported_first() -> None:
    import keras

    import_tensorflow_alone()
    assert sys.modules["keras"] is keras
