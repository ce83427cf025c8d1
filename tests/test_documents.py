"""The documents say what the code does: every menu entry, verb and exit code is in the README, every file in ARCHITECTURE.md."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import get_args

import pytest
from typer.core import TyperOption

from mgdm_cli import app, errors
from mgdm_cli.commands.arming import MADE
from mgdm_cli.commands.distill import Method
from mgdm_cli.commands.weighing import CONTROLS, OWN
from mgdm_cli.data.codecs.chosen import KINDS
from mgdm_cli.diffusion.divergence import DIVERGENCES
from mgdm_cli.diffusion.process import PROCESSES
from mgdm_cli.diffusion.samplers import SAMPLERS
from mgdm_cli.engine.decoding import GUIDANCE
from mgdm_cli.engine.student import METHODS
from mgdm_cli.nets.zoo import GROUPS, NETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_menu_entry_is_in_the_readme() -> None:
    menus = README[README.index("## Menus") :]
    for name in (*SAMPLERS, *PROCESSES, *GUIDANCE, *CONTROLS, OWN, *MADE, *NETS, *GROUPS, *METHODS, *DIVERGENCES):
        assert f"`{name}`" in menus, name


@pytest.mark.parametrize(
    ("verbs", "name", "menu"),
    [
        (("augment", "sample"), "sampler", SAMPLERS),
        (("train",), "process", PROCESSES),
        (("augment",), "guidance", GUIDANCE),
        (("distill",), "divergence", DIVERGENCES),
        (("augment", "sample"), "write_as", KINDS),
        (("evaluate",), "arms", (*CONTROLS, OWN, *MADE)),
        (("evaluate",), "nets", GROUPS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_menu_entry_is_in_the_help_of_its_flag(verbs: tuple[str, ...], name: str, menu: Collection[str]) -> None:
    for verb in verbs:
        (flag,) = (parameter for parameter in app.load(verb).params if parameter.name == name)
        assert isinstance(flag, TyperOption)
        assert set(menu) <= set(re.findall(r"[\w-]+", flag.help or "")), verb


def test_every_method_is_a_choice_of_its_flag() -> None:
    assert set(get_args(Method)) == set(METHODS)


def test_every_verb_and_exit_code_is_in_the_readme() -> None:
    for verb in app.VERBS:
        assert f"`mgdm {verb}" in README, verb
    codes = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    told = re.findall(r"\b(\d+)(?:/(\d+))?\s[a-z]", README[README.index("exit codes for scripts") :][:600])
    assert codes <= {int(code) for pair in told for code in pair if code}


def test_every_module_is_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for path in (ROOT / "mgdm_cli").rglob("*.py"):
        folder = path.parent.relative_to(ROOT / "mgdm_cli").parts
        stem = "phantom*" if path.stem.startswith("phantom") else path.stem
        verb = folder == ("commands",) and path.stem in app.VERBS
        if verb or path.stem.startswith("__") or folder[:2] == ("data", "codecs") or folder[:1] == ("metrics",):
            continue
        assert re.search(rf"(?<![\w*]){re.escape(stem)}\.py", text), path.relative_to(ROOT)


def written() -> Iterator[Path]:
    """The text files of the project."""
    for place in (".ci", "benchmarks", "mgdm_cli", "models", "tests"):
        yield from (path for path in (ROOT / place).rglob("*") if path.suffix not in (".pyc", ".safetensors"))
    yield from (path for path in ROOT.iterdir() if path.suffix in (".md", ".sh", ".toml", ".txt"))


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    """But /tmp/NAME, in examples."""
    homes = "Users|data|home|media|mnt|root|scratch|srv|var|work|workspace"
    place = re.compile(rf"(?<![\w./:}}>-])/(?:(?:{homes})/[\w.]|tmp/[\w.-]+/)")
    assert all(place.search(f"see {path}") for path in ("/home/" + "a", "/tmp/" + "a/b"))
    assert not place.search("see /tmp/a, ../data/b or https://a.org/data/b")
    texts = {path: path.read_text(encoding="utf-8") for path in written() if path.is_file()}
    assert ROOT / "README.md" in texts
    assert {path.relative_to(ROOT).as_posix() for path, text in texts.items() if place.search(text)} == set()
