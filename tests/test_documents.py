"""The documents say what the code does: every menu entry, verb and exit code is in the README, every file in ARCHITECTURE.md."""

from __future__ import annotations

import re
from pathlib import Path

from mgdm_cli import app, errors
from mgdm_cli.commands.arming import MADE
from mgdm_cli.commands.weighing import CONTROLS, OWN
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


def test_every_verb_and_exit_code_is_in_the_readme() -> None:
    for verb in app.VERBS:
        assert f"`mgdm {verb}" in README, verb
    codes = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    told = re.findall(r"\b(\d+)(?:/(\d+))? [a-z]", README[README.index("exit codes for scripts") :][:600])
    assert codes - {errors.BUG} <= {int(code) for pair in told for code in pair if code}


def test_every_module_is_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for path in (ROOT / "mgdm_cli").rglob("*.py"):
        folder = path.parent.relative_to(ROOT / "mgdm_cli").parts
        stem = "phantom*" if path.stem.startswith("phantom") else path.stem
        if (
            path.stem.startswith("__")
            or folder[:2] == ("data", "codecs")
            or folder[:1] in (("commands",), ("metrics",))
        ):
            continue
        assert f"{stem}.py" in text, path.relative_to(ROOT)


def test_the_documents_speak_of_the_project_alone() -> None:
    for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "/work/" not in text
        assert "/tmp/env" not in text
