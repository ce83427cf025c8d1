"""Imports run one way (ARCHITECTURE.md): who may import whom, and what may be loaded at module top."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mgdm_cli"
MAX_LINES = 400


@dataclass(frozen=True)
class Layer:
    """`ours`: what a part may import of mgdm_cli, itself aside; `heavy`: third-party modules it may load at top."""

    ours: frozenset[str] = frozenset()
    heavy: frozenset[str] = frozenset()


def layer(ours: str = "", heavy: str = "") -> Layer:
    return Layer(frozenset(ours.split()), frozenset(heavy.split()))


BELOW = "errors data metrics report engine nets diffusion"
LAYERS = {
    "errors": layer(),
    "__init__": layer(),
    "diffusion": layer(heavy="torch"),
    "nets": layer(heavy="torch"),
    "data": layer("errors __init__", "numpy pydantic"),
    "metrics": layer("errors data nets", "torch numpy scipy sklearn"),
    "report": layer("errors data/manifest __init__"),
    "engine": layer("errors data nets diffusion metrics __init__", "torch numpy safetensors pydantic"),
    "console": layer("errors"),
    "config": layer("errors"),
    "commands": layer(f"{BELOW} console config __init__", "typer"),
    "app": layer("errors console commands __init__", "typer"),
    "__main__": layer("app"),
}


def part_of(dotted: str) -> str:
    """The key of LAYERS for a dotted module path below mgdm_cli: a file with its own line, else its package."""
    names = dotted.split(".")
    own = "/".join(names[:2])
    return own if own in LAYERS else names[0]


def allowed(part: str, wanted: str) -> bool:
    """Whether `part` may import the module `wanted` (dotted, below mgdm_cli)."""
    home = part.split("/")[0]
    names = wanted.split(".")
    return names[0] == home or any("/".join(names[:depth]) in LAYERS[part].ours for depth in (1, 2))


@dataclass(frozen=True)
class Import:
    """One imported module: dotted name, line, at module top, and only for type checkers."""

    name: str
    line: int
    top: bool
    typing_only: bool


def imports(tree: ast.Module, dotted: str) -> Iterator[Import]:
    """Every import in a module; relative ones are made absolute."""
    stack: list[tuple[ast.AST, bool, bool]] = [(node, True, False) for node in tree.body]
    while stack:
        node, top, typing_only = stack.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, top, typing_only)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = ["mgdm_cli", *dotted.split(".")][: -node.level]
                base = ".".join([*parent, base]).rstrip(".")
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, top, typing_only)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            stack.extend((child, top, True) for child in node.body)
            stack.extend((child, top, typing_only) for child in node.orelse)
        else:
            inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            stack.extend((child, top and not inside, typing_only) for child in ast.iter_child_nodes(node))


def faults(path: Path) -> Iterator[str]:
    """What is wrong with one file's imports."""
    dotted = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    part = part_of(dotted)
    for found in imports(ast.parse(path.read_text(encoding="utf-8")), dotted):
        root, _, rest = found.name.partition(".")
        where = f"{path.relative_to(PACKAGE.parent)}:{found.line}"
        if root == "mgdm_cli":
            wanted = (
                rest
                if (PACKAGE / rest.split(".")[0]).exists() or (PACKAGE / f"{rest.split('.')[0]}.py").exists()
                else ""
            )
            if not allowed(part, wanted or "__init__"):
                yield f"{where}: {part} must not import {found.name}"
        elif (
            found.top
            and not found.typing_only
            and root not in sys.stdlib_module_names
            and root not in LAYERS[part].heavy
        ):
            yield f"{where}: {part} must import {root} inside the function that needs it"


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_run_one_way(path: Path) -> None:
    assert list(faults(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_file_is_longer_than_its_ceiling(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_the_check_itself_finds_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong imports of every kind are seen, and the allowed forms are not."""
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "mgdm_cli")
    for name in ("errors.py", "app.py", "data/image.py", "engine/run.py", "metrics/copies.py"):
        target = tmp_path / "mgdm_cli" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("")
    bad = tmp_path / "mgdm_cli" / "data" / "bad.py"
    bad.write_text(
        "import numpy, torch\n"
        "from mgdm_cli import engine\n"
        "from ..metrics.copies import x\n"
        "if TYPE_CHECKING:\n    import scipy\n    import mgdm_cli.app\n"
        "try:\n    import nibabel\nexcept ImportError:\n    pass\n"
        "def f():\n    import pydicom\n    from mgdm_cli.engine.run import y\n"
        "from mgdm_cli.errors import BadInput\n"
        "from . import image\n"
        "from mgdm_cli import __version__\n"
    )
    assert sorted(int(fault.split(":")[1]) for fault in faults(bad)) == [1, 2, 3, 6, 8, 13]
