"""A table over real DICOM files: read with which pixels, or refused for which reason; how long, and how much memory.

    python -m benchmarks.dicom_table FOLDER...            # and pydicom's own examples, which come with the package
    python -m benchmarks.dicom_table ../shared/data/dicom --names    # the table with a line for each file

`mgdm inspect --frames all --json` looks at each file in a process of its own, with 60 seconds. What it can read is then
decoded frame by frame and compared with pydicom's decode; where pydicom has no decoder, with that of `dcmdjpeg` or `dcmdrle`
(DCMTK), if installed. Exit code 3 for a difference, a traceback, a hang, or an exit code that is not 0 or 65.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.keeping import keep

GATE = 3
PATIENCE = 60.0  # seconds for a file
FRAMES = 16  # of a file that are compared: evenly spread


def found(folders: list[Path]) -> list[tuple[str, Path]]:
    """(name, file) of every DICOM file: by its mark, or by its name."""
    import pydicom

    roots = [*folders, Path(pydicom.__file__).parent / "data"]
    files = [(root, path) for root in roots for path in sorted(root.rglob("*")) if path.is_file()]
    return [
        (f"{root.name}/{path.relative_to(root).as_posix()}", path)
        for root, path in files
        if path.suffix == ".dcm" or marked(path)
    ]


def marked(path: Path) -> bool:
    """Whether a file has the mark of DICOM."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def apart(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` finds in a fork of this process, with the peak memory of it and of the processes that it starts."""
    with tempfile.TemporaryFile("w+") as told:
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            try:
                answer = work()
                mine, theirs = (
                    resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
                )
                json.dump({**answer, "peak_mb": round(max(mine, theirs) / 1024)}, told)
                told.flush()
                os._exit(0)
            finally:
                os._exit(1)
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() - started > PATIENCE:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return {"fault": f"hangs for {PATIENCE:g} s"}
            time.sleep(0.005)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        told.seek(0)
        text = told.read()
    answer = json.loads(text) if text else {"fault": f"ended with {code}"}
    return {**answer, "seconds": round(time.monotonic() - started, 2)}


def looked(path: Path) -> dict[str, Any]:
    """What the command says of a file."""
    from mgdm_cli.app import main as mgdm

    out, errors = io.StringIO(), io.StringIO()
    sys.stdout, sys.stderr = out, errors
    code = mgdm(
        ["inspect", "--data", str(path), "--frames", "all", "--json", "--allow-burned-in", "--allow-synthetic-input"]
    )
    if code not in (0, 65) or "Traceback" in errors.getvalue():
        return {"fault": f"exit code {code}: {errors.getvalue()[-300:]}"}
    document = json.loads(out.getvalue())
    refused = document.get("refused") or []
    return {"why": refused[0]["why"]} if refused else {"frames": document["images"]}


def compared(path: Path) -> dict[str, Any]:
    """How mgdm's pixels stand to those of another decoder."""
    from mgdm_cli.data.codecs import Ask, dicom

    parts = dicom.parts(path, Ask(frames="all"))
    chosen = [parts[k] for k in np.unique(np.linspace(0, len(parts) - 1, FRAMES).astype(int))]
    own = [dicom.read(path, part.index).pixels for part in chosen]
    for name, source in references(path):
        try:
            with warnings.catch_warnings(action="ignore"):
                others = [plain(source, part.index or 0) for part in chosen]
        except (RuntimeError, NotImplementedError, ValueError, AttributeError, TypeError):
            continue
        most = max(difference(a, b) for a, b in zip(own, others, strict=True))
        return {"as": name, "difference": most}
    return {"as": None}


def references(path: Path) -> Iterator[tuple[str, Path]]:
    """The file itself for pydicom, then the same unpacked by DCMTK."""
    yield "pydicom", path
    for program in ("dcmdjpeg", "dcmdrle"):
        if shutil.which(program):
            with tempfile.TemporaryDirectory() as folder:
                plain_file = Path(folder) / "plain.dcm"
                done = subprocess.run([program, path, plain_file], capture_output=True, check=False)
                if done.returncode == 0:
                    yield program, plain_file


def plain(path: Path, frame: int) -> tuple[Any, Any]:
    """(values, which of them are measured) of a frame: RGB where there is colour, physical units where it is grey."""
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

    made = pydicom.dcmread(path)
    array = pixel_array(made, index=frame)
    everything = np.ones(array.shape[:2], bool)
    if made.PhotometricInterpretation == "PALETTE COLOR":
        table = apply_color_lut(array, made)
        return (table >> 8 if table.max() > 255 else table), everything
    if array.ndim == 3:
        return array, everything
    low = made.get("PixelPaddingValue")
    high = made.get("PixelPaddingRangeLimit", low)
    measured = everything if low is None else (array < min(low, high)) | (array > max(low, high))
    if made.PhotometricInterpretation == "MONOCHROME1" and array.dtype.kind in "iu":
        array = (-1 if made.PixelRepresentation else (1 << made.BitsStored) - 1) - array.astype(int)
    if "PixelValueTransformationSequence" in made.get("SharedFunctionalGroupsSequence", [{}])[0]:
        made = made.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
    elif "PerFrameFunctionalGroupsSequence" in made:
        own = made.PerFrameFunctionalGroupsSequence[frame]
        made = own.PixelValueTransformationSequence[0] if "PixelValueTransformationSequence" in own else made
    return apply_modality_lut(array, made), measured


def difference(own: Any, other: tuple[Any, Any]) -> float:
    """The largest difference of two pictures, as a share of the largest value; infinite where their shapes differ."""
    values, measured = other
    values = np.moveaxis(values, -1, 0) if values.ndim == 3 else values[None]
    if values.shape != own.shape:
        return float("inf")
    apart_by = np.abs(own.astype(np.float64) - values)[:, measured]
    return float(apart_by.max() / max(1.0, float(np.abs(values).max()))) if apart_by.size else 0.0


def row(path: Path) -> dict[str, Any]:
    """All that is said of one file."""
    own = apart(lambda: looked(path))
    if "fault" in own or "why" in own:
        return own
    other = apart(lambda: compared(path))
    return {**own, **{key: other[key] for key in ("fault", "as", "difference") if key in other}}


def verdict(one: dict[str, Any]) -> str:
    """The line of the summary that a file counts in."""
    if "fault" in one:
        return f"FAULT: {one['fault']}"
    if "why" in one:
        return f"refused: {one['why']}"
    if one["as"] is None:
        return "read; no other decoder is at hand"
    if one["difference"] > 1e-6:
        return f"READ OTHERWISE than by {one['as']}: {one['difference']:.3g}"
    return f"read, equal to {one['as']}"


def main() -> int:
    """Prints the table; exit code 3 when a file is not treated as promised."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    words.add_argument("--names", action="store_true", help="a line for each file")
    given = words.parse_args()
    import mgdm_cli.commands.inspect
    import mgdm_cli.data.folder  # noqa: F401  (before the forks)

    rows = [(name, row(path)) for name, path in found(given.folders)]
    for name, one in rows if given.names else ():
        measures = f"{one.get('seconds', 0):6.2f} s {one.get('peak_mb', 0):5} MB"
        sys.stdout.write(f"{name:<70} {measures}  {verdict(one)}\n")
    counts = Counter(verdict(one) for _, one in rows)
    document = {
        "files": len(rows),
        "verdicts": dict(counts.most_common()),
        "peak_mb": max(one.get("peak_mb", 0) for _, one in rows),
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    if given.folders:
        keep("dicom_table", document)
    return GATE if any(line.startswith(("FAULT", "READ OTHERWISE")) for line in counts) else 0


if __name__ == "__main__":
    raise SystemExit(main())
