"""The promises of SECURITY.md that the source itself can show."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "mgdm_cli").rglob("*.py"))

NETWORK = {
    "socket",
    "ssl",
    "http",
    "urllib",
    "ftplib",
    "smtplib",
    "requests",
    "httpx",
    "aiohttp",
    "pynetdicom",
    "huggingface_hub",
}
CODE_FROM_DATA = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "zipimport", "yaml"}
UNPACKERS = {"tarfile"}  # zipfile reads .npz headers only
CALLS = {
    "torch.load",
    "torch.save",
    "pickle.load",
    "eval",
    "exec",
    "os.system",
    "shutil.unpack_archive",
    "torch.hub.load",
}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def faults(source: str) -> set[str]:
    """What `source` does that SECURITY.md rules out."""
    tree = ast.parse(source)
    found = {name for name in imported(tree) if name.partition(".")[0] in NETWORK | CODE_FROM_DATA | UNPACKERS}
    found |= {name for name in imported(tree) if name.startswith("pydicom.fileset")}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        words = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in CALLS:
            found.add(name)
        if name.endswith("dcmread") and words.get("force", "False") != "False":
            found.add("dcmread(force)")
        if name in {"np.load", "numpy.load"} and words.get("allow_pickle") != "False":
            found.add("load with pickle")
        if name in {"Image.open", "PIL.Image.open", "PilImage.open"} and "formats" not in words:
            found.add("Pillow with every format")
        if words.get("shell", "False") != "False":
            found.add("shell")
        if name.endswith(("extractall", ".extract")):
            found.add("unpacking")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_network_no_code_from_data_no_unpacking(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "from urllib.request import urlopen",
        "def f():\n    import pickle",
        "from pydicom.fileset import FileSet",
        "torch.load(p, weights_only=True)",
        "pydicom.dcmread(p, force=True)",
        "np.load(p)",
        "np.load(p, allow_pickle=True)",
        "Image.open(p)",
        "subprocess.run(x, shell=True)",
        "archive.extractall(d)",
        "eval(x)",
    ],
)
def test_the_check_itself_finds_faults(source: str) -> None:
    assert faults(source)


def test_the_versions_in_the_document_are_those_that_are_required() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| (torch|pydicom|pillow) \| ([\d.]+) \|", text, flags=re.MULTILINE))
    required = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    bounds = dict(entry.split(">=") for entry in required)
    assert stated == {name: bounds[name] for name in ("torch", "pydicom", "pillow")}


def test_no_dependency_under_a_copyleft_licence_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = " ".join(
        [*project["dependencies"], *(entry for extra in project["optional-dependencies"].values() for entry in extra)]
    )
    assert "pylibjpeg-libjpeg" not in named
    assert project["license"] == "Apache-2.0"
