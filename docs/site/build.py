"""Build the documentation site: ``python docs/site/build.py [FOLDER]``, which is ``site/`` unless it is named.

The pages are written for GitHub and stay as they are. This program copies them, turns each link that leaves ``docs/``
to a page of the site, adds the reference, and lets Zensical build all that. A link that leads nowhere is an error.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Container, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import reference

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
#: Pages outside `docs/`, by the names that they have in the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
_SETTINGS = frozenset(reference.settings())
_FENCED = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^<!-- .*? -->\n", re.MULTILINE)
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
_SETTING = re.compile(r"(?<![\[`])`([a-z_.]+)`(?![\]`])")
_PICTURE = re.compile(r'<picture>\s*<source [^>]*srcset="(.*?)">\s*<img src="(.*?)" alt="(.*?)">\s*</picture>')


def pages() -> dict[str, str]:
    """The text of each page of the site, by its name: those of `docs/`, those beside it, and the reference."""
    found = {f"docs/{file.name}": file.name for file in sorted((ROOT / "docs").glob("*.md"))} | PAGES
    texts = reference.pages(ROOT)
    shown: set[str] = set()
    for source, name in found.items():
        texts[name] = on_the_site((ROOT / source).read_text(), partial(_place, source, found, shown))
    return texts | {_page_of(path): _as_page(path) for path in sorted(shown)}


def on_the_site(text: str, place: Callable[[str], str]) -> str:
    """A page of GitHub as the site needs it: ``place`` says where the file that a link names is there.

    Code blocks stay as they are. What is for the tests goes. A picture with a dark version follows the site's palette.
    The name of a setting leads to its reference.

    Example:
        >>> on_the_site("[a](../layers/relu.py) [b](https://example.org)", lambda path: "reference/layers.md")
        '[a](reference/layers.md) [b](https://example.org)'
    """
    parts, end = [], 0
    for block in _FENCED.finditer(text):
        parts += [_prose(text[end : block.start()], place), block[0]]
        end = block.end()
    return "".join([*parts, _prose(text[end:], place)])


def _prose(text: str, place: Callable[[str], str]) -> str:
    text = _PICTURE.sub(r"![\3](\2#only-light)\n![\3](\1#only-dark)", _COMMENT.sub("", text))
    text = _LINK.sub(lambda link: f"]({place(link[1])}{link[2] or ''})", text)
    return _SETTING.sub(_linked, text)


def _linked(code: re.Match[str]) -> str:
    return f"[{code[0]}](reference/configuration.md#{code[1]})" if code[1] in _SETTINGS else code[0]


def _place(source: str, found: dict[str, str], shown: set[str], path: str) -> str:
    """Where the site has the file that a link of a page names. ``shown`` gets what needs a page of its own."""
    target = os.path.normpath(Path(source).parent / path)
    if not (ROOT / target).exists():
        sys.exit(f"{source} must link to files that exist. Received: {path}; correct the link.")
    if target in found:
        return found[target]
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    if target.startswith("layers/"):
        return f"reference/layers.md#{'.'.join(Path(target).with_suffix('').parts)}.{_first_class(ROOT / target)}"
    shown.add(target)
    return _page_of(target)


def _first_class(file: Path) -> str:
    return next(node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef))


def _page_of(path: str) -> str:
    return f"source/{path}.md"


def _as_page(path: str) -> str:
    language = Path(path).suffix.removeprefix(".") or "text"
    return f"# {path}\n\n```{language}\n{(ROOT / path).read_text()}```\n"


def navigation(items: list[Any], known: Container[str]) -> Iterator[Any]:
    """The entries whose pages exist; a section with one page is that page."""
    for item in items:
        if isinstance(item, str):
            if item in known:
                yield item
            continue
        ((title, below),) = item.items()
        if isinstance(below, str):
            if below in known:
                yield item
        elif kept := list(navigation(below, known)):
            page = next(iter(kept[0].values())) if isinstance(kept[0], dict) else kept[0]
            yield {title: page if len(kept) == 1 else kept}


def build(folder: Path, texts: dict[str, str]) -> None:
    """Build the site of these pages into ``folder``, whose old content goes.

    Raises:
        SystemExit: With the places of links and anchors that lead nowhere, if there are any.
    """
    settings = tomllib.loads((HERE / "site.toml").read_text())["project"]
    settings["nav"] = list(navigation(settings["nav"], texts))
    python = settings["plugins"]["mkdocstrings"]["handlers"]["python"]
    python["paths"], python["options"]["extensions"] = [str(ROOT)], [str(HERE / "docstrings.py")]
    with tempfile.TemporaryDirectory() as work:
        docs, config = Path(work) / "docs", Path(work) / "mkdocs.yml"
        for name, text in texts.items():
            (docs / name).parent.mkdir(parents=True, exist_ok=True)
            (docs / name).write_text(text)
        for picture in (ROOT / "docs").glob("*.png"):
            shutil.copy(picture, docs)
        shutil.copytree(HERE / "assets", docs / "assets")
        config.write_text(json.dumps(settings))  # which is YAML too
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(config)]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            found, _, _ = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr).partition("Traceback")
            sys.exit(found if " found\n" in found else done.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(Path(work) / "site", folder)


def main() -> None:
    """Build the site of the project."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site").resolve()
    texts = pages()
    build(folder, texts)
    print(f"{len(texts)} pages: {folder / 'index.html'}")


if __name__ == "__main__":
    main()
