"""Which code a step runs, as digests: a step whose code changed runs again, the others stay cached."""

import ast
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
#: Where the code that does the work lives; flows, tasks and the command line only arrange it.
_ROOMS = ("layerflow", "layers")
#: The libraries whose version can change what a step makes, by the module that is imported.
_LIBRARIES = {
    "tensorflow": "tensorflow",
    "keras": "keras",
    "keras_hub": "keras-hub",
    "tensorflow_datasets": "tensorflow-datasets",
    "sklearn": "scikit-learn",
    "scipy": "scipy",  # resizes
    "PIL": "pillow",  # decodes
    "simplejpeg": "simplejpeg",
    "numpy": "numpy",  # draws the order of an epoch
}
_LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def code_digest(module: str) -> str:
    """SHA-256 of the code that a module runs, as ``code_of`` lists it."""
    return hashlib.sha256(json.dumps(code_of(module)).encode()).hexdigest()


def code_of(module: str) -> dict[str, str]:
    """What a module runs: a digest for each file of ``layerflow`` and ``layers``, and a version for each library.

    Imports are followed wherever they stand, in a function too. ``from layers import Dense`` reaches the file that
    defines ``Dense``, and not all that ``layers`` collects. A program that a module names as
    ``Path(__file__).with_name("program")``, file or folder, is reached like a module. The files of ``tasks`` do not
    count: they arrange the work, and name what does it.

    Comments, docstrings, annotations of functions, and the text of errors, log lines and ``Field`` descriptions do not
    count either, for no artifact depends on them.

    Args:
        module: Its name, such as ``tasks.train_model``.

    Example:
        >>> sorted(code_of("layerflow.models.mlp"))[:2]
        ['keras', 'layerflow/models/classifier.py']
    """
    start = _ROOT.joinpath(*module.split(".")).with_suffix(".py")
    waiting, seen, libraries = [start], {start}, set[str]()
    while waiting:
        files, outside = _reached(waiting.pop())
        libraries |= outside
        new = [file for file in files if file not in seen]
        seen.update(new)
        waiting += new
    names = {file.relative_to(_ROOT).as_posix(): file for file in seen if file.is_relative_to(_ROOT)}
    ours = {name: _digest(file) for name, file in sorted(names.items()) if name.partition("/")[0] in _ROOMS}
    theirs = {_LIBRARIES[name]: importlib.metadata.version(_LIBRARIES[name]) for name in sorted(libraries)}
    return ours | theirs


@functools.cache
def _parsed(file: Path) -> ast.Module:
    tree = _Executed().visit(ast.parse(file.read_bytes()))
    assert isinstance(tree, ast.Module)
    return tree


@functools.cache
def _digest(file: Path) -> str:
    return hashlib.sha256(ast.dump(_parsed(file)).encode()).hexdigest()


@functools.cache
def _reached(file: Path) -> tuple[list[Path], set[str]]:
    """The files of the project, and the libraries, that a file imports or starts as programs."""
    files, libraries = list[Path](), set[str]()
    for node in ast.walk(_parsed(file)):
        wanted = list[tuple[str, str]]()
        if isinstance(node, ast.Import):
            wanted = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:  # of a program, which finds the files beside it
            files.append(file.with_name(f"{node.module}.py"))
        elif isinstance(node, ast.ImportFrom):
            wanted = [(node.module or "", alias.name) for alias in node.names]
        else:
            files += _programs(node, file)
        for module, name in wanted:
            top = module.partition(".")[0]
            files += _files(module, name) if top in _ROOMS else ()
            libraries |= {top} & _LIBRARIES.keys()
    return files, libraries


def _files(module: str, name: str) -> Iterator[Path]:
    """The file that ``from module import name`` takes the name from, or that ``import module`` runs."""
    place = _ROOT.joinpath(*module.split("."))
    if name and (place / f"{name}.py").exists():
        yield place / f"{name}.py"
    elif place.with_suffix(".py").exists():
        yield place.with_suffix(".py")
    elif (place / "__init__.py").exists():
        collected = [node for node in _parsed(place / "__init__.py").body if isinstance(node, ast.ImportFrom)]
        for node in collected:
            if any(name == (alias.asname or alias.name) for alias in node.names):
                yield from _files(node.module or "", name)
                return
        yield place / "__init__.py"


def _programs(node: ast.AST, file: Path) -> list[Path]:
    """What ``Path(__file__).with_name("program")`` names."""
    match node:
        case ast.Call(
            func=ast.Attribute(attr="with_name", value=ast.Call(args=[ast.Name(id="__file__")])),
            args=[ast.Constant(value=str(name))],
        ):
            program = file.with_name(name)
            return sorted(program.glob("*.py")) if program.is_dir() else [program] if program.exists() else []
    return []


class _Executed(ast.NodeTransformer):
    """Takes out of a module whatever can't change what a step makes."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without_docstring(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if _is_told(node.func):
            node.args = [_without_text(each) for each in node.args]
        if isinstance(node.func, ast.Name) and node.func.id == "Field":
            node.keywords = [each for each in node.keywords if each.arg != "description"]
        return self.generic_visit(node)

    def _without_docstring(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        return self.generic_visit(node)


def _is_told(function: ast.expr) -> bool:
    """Whether a call makes an error, or logs a line: its text is for people."""
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name) if name.endswith("Error"):
            return True
        case ast.Attribute(attr=name, value=ast.Name(id="log")):
            return name in _LOG_METHODS
    return False


def _without_text(argument: ast.expr) -> ast.expr:
    match argument:
        case ast.Constant(value=str()) | ast.JoinedStr():
            return ast.Constant(value="")
    return argument
