"""Nothing opens a connection: training and the commands, in processes that are told of every socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# An audit hook (PEP 578) cannot be taken off again, so all runs in a process of its own; the processes that it starts
# inherit the hook as sitecustomize, which Python imports at its start. AF_UNIX (1) pairs stay on this machine.
HOOK = """
import os, sys
HARMLESS = ("socket.gethostname",)
def _refuse(event, arguments):
    local = event == "socket.__new__" and arguments[1] == 1
    network = event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.")) and event not in HARMLESS
    if network and not local:
        with open(os.environ["TOLD"], "a") as told:
            told.write(event + "\\n")
        raise ConnectionRefusedError("no network here: " + event)
with open(os.environ["TOLD"] + ".started", "a") as started:
    started.write(" ".join(sys.orig_argv[1:]) + "\\n")
sys.addaudithook(_refuse)
"""
PIPELINE = """
import json, sys
from pathlib import Path
from mgdm_cli.app import main
from tests.tiny import tiny_run, tiny_set
here = Path(sys.argv[1])
source = tiny_set(here / "data")
tiny_run(here / "run", source)
data = ["--data", str(source.data), "--patient-regex", source.patient_regex, "--quiet"]
making = ["--n", "8", "--guidance", "none", "--steps", "2", "--no-filters", "--batch-size", "4", "--max-per-real", "20"]
codes = [
    main(["inspect", *data]),
    main(["augment", *data, "--model", str(here / "run"), "-o", str(here / "out"), *making]),
    main(["verify", str(here / "out"), "--quiet"]),
]
Path(sys.argv[1], "codes").write_text(json.dumps(codes))
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Python code in a process with the hook; what it opened is told in `folder`/told."""
    (folder / "sitecustomize.py").write_text(HOOK)
    paths = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    settings = {**os.environ, "PYTHONPATH": paths, "TOLD": str(folder / "told")}
    words = [sys.executable, "-c", code, str(folder)]
    return subprocess.run(words, env=settings, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_hook_tells(tmp_path: Path) -> None:
    for code in ("import socket; socket.create_connection(('localhost', 9))", "import socket; socket.socket()"):
        done = run(code, tmp_path)
        assert "ConnectionRefusedError: no network here" in done.stderr
    assert set((tmp_path / "told").read_text().split()) == {"socket.getaddrinfo", "socket.__new__"}


def test_the_whole_pipeline_opens_no_socket(tmp_path: Path) -> None:
    done = run(PIPELINE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "codes").read_text()) == [0, 0, 0], done.stderr
    assert not (tmp_path / "told").exists(), (tmp_path / "told").read_text()
    assert "mgdm_cli.data.worker" in (tmp_path / "told.started").read_text()  # workers were watched as well
    assert len(list((tmp_path / "out/images").rglob("*.png"))) == 8
