"""Which files a command line names."""

import os
from pathlib import Path

import pytest

from layerflow.errors import UserError
from layerflow.prediction.paths import classes_below, image_files


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b/2.png", "b/1.JPG", "b/notes.txt", "b/.hidden.png", "a/deep/3.webp", ".cache/4.png", "[x].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "above").symlink_to(tmp_path, target_is_directory=True)
    return tmp_path


def test_a_folder_gives_its_image_files_to_any_depth_in_order(tree: Path) -> None:
    found = [os.path.relpath(path, tree) for path in image_files([str(tree)], ())]
    assert found == ["[x].png", "a/deep/3.webp", "b/1.JPG", "b/2.png"]


def test_files_patterns_and_lists_are_taken_as_they_are_named(tree: Path) -> None:
    assert list(image_files([str(tree / "b/notes.txt")], ())) == [str(tree / "b/notes.txt")]
    assert list(image_files([f"{tree}/**/*.png"], ())) == [str(tree / "[x].png"), str(tree / "b/2.png")]
    assert list(image_files([str(tree / "[x].png")], ())) == [str(tree / "[x].png")]
    assert list(image_files(["-"], ["one.png\n", "\n", "two words.png\r\n"])) == ["one.png", "two words.png"]


def test_what_is_not_there_is_one_sentence(tree: Path) -> None:
    with pytest.raises(UserError, match=r"pattern that matches some.* Received: .*lost/\*\.png, which doesn't exist"):
        list(image_files([f"{tree}/lost/*.png"], ()))


def test_classes_are_the_folders_below(tree: Path) -> None:
    found = [(label, Path(path).name) for label, path in classes_below(str(tree))]
    assert found == [("a", "3.webp"), ("b", "1.JPG"), ("b", "2.png")]
    for wrong in (tree / "b", tree / "b" / "2.png"):
        with pytest.raises(UserError, match="--evaluate takes one folder with a folder for each class"):
            list(classes_below(str(wrong)))
