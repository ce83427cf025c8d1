"""How long `mgdm inspect` takes beside a bare read of the headers, and whether its memory grows with the folder.

    python -m benchmarks.inspect_speed [--files 10000] [--size 64] [--keep FOLDER]

Small DICOM files are made: a CT image each, with the header elements that scanners write. Compared are processor seconds
of the whole command (start and workers included) with `pydicom.dcmread(stop_before_pixels=True)` over the same files in
a fresh process; the arms take turns, and a ratio is [median, lowest, highest] over the rounds. `bare_pixels` decodes with
pydicom and hashes nothing. Wall time is told as well: it is what two idle cores can halve.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.keeping import keep

BARE = """
import sys
from pathlib import Path
import pydicom
for path in sorted(Path(sys.argv[1]).rglob("*.dcm")):
    pydicom.dcmread(path, stop_before_pixels=True)
"""
READ = BARE.replace(", stop_before_pixels=True", "").replace(
    "pydicom.dcmread(path)", "pydicom.dcmread(path).pixel_array.max()"
)
INSPECT = "import sys; from mgdm_cli.app import main; sys.exit(main(sys.argv[1:]))"
PEAK = """
import resource, sys
code = sys.argv.pop(1)
try:
    exec(code)
finally:
    own, other = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    sys.stderr.write("\\npeak %d %d\\n" % (own, other))
"""


def fill(root: Path, files: int, size: int) -> None:
    """`files` CT images of 5 series, `size` pixels a side, each with some 90 elements."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, generate_uid

    rng = np.random.default_rng(0)
    for k in range(files):
        made = Dataset()
        made.file_meta, made.preamble = FileMetaDataset(), b"\0" * 128
        made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid(entropy_srcs=[str(k)])
        made.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
        series = k % 5
        made.ImageType, made.Modality, made.Manufacturer = ["ORIGINAL", "PRIMARY", "AXIAL"], "CT", "Nobody"
        made.PatientName, made.PatientID, made.PatientSex = "DOE^JANE", f"P{k % 200:04}", "F"
        made.StudyDate = made.SeriesDate = made.ContentDate = "20200101"
        made.StudyTime = made.SeriesTime = made.ContentTime = "101010"
        made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3.4", f"1.2.3.4.{series}"
        made.FrameOfReferenceUID, made.PatientPosition, made.BodyPartExamined = "1.2.3.5", "HFS", "CHEST"
        made.KVP, made.SliceThickness, made.SpacingBetweenSlices = "120", "1.25", "1.25"
        made.InstanceNumber, made.AcquisitionNumber, made.SeriesNumber = k, 1, series
        made.ImagePositionPatient, made.ImageOrientationPatient = [0, 0, 1.25 * k], [1, 0, 0, 0, 1, 0]
        made.PixelSpacing, made.WindowCenter, made.WindowWidth = [0.7, 0.7], "40", "400"
        made.Rows = made.Columns = size
        made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 1
        made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
        made.RescaleIntercept, made.RescaleSlope = "-1024", "1"
        block = made.private_block(0x0029, "NOBODY", create=True)
        for element in range(40):
            block.add_new(element, "LO", f"value {element}")
        made.PixelData = rng.integers(0, 2048, (size, size)).astype("<i2").tobytes()
        path = root / f"class{series}" / f"{k:05}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        made.save_as(path, enforce_file_format=True)


def cost(code: str, words: list[str]) -> dict[str, float]:
    """Processor and wall seconds; peak MB of the process and of its largest child."""
    before, start = os.times(), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEAK, code, *words], capture_output=True, text=True, check=False
    )
    after, wall = os.times(), time.monotonic() - start
    if done.returncode not in (0, 65):
        raise RuntimeError(done.stderr[-2000:])
    own, child = (int(n) / 1024 for n in done.stderr.rpartition("peak ")[2].split())
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return {"processor_seconds": used, "wall_seconds": wall, "peak_mb": own, "peak_mb_of_a_worker": child}


def compared(root: Path, repeat: int) -> dict[str, Any]:
    """All arms in turn, `repeat` times; medians, and each arm's processor time as a multiple of its own round's bare read."""
    inspect = ["inspect", "--data", str(root), "--quiet"]
    arms = {
        "bare_headers": (BARE, [str(root)]),
        "inspect": (INSPECT, inspect),
        "inspect_quick": (INSPECT, [*inspect, "--quick"]),
        "bare_pixels": (READ, [str(root)]),
    }
    rounds = [{name: cost(*arm) for name, arm in arms.items()} for _ in range(repeat)]
    table: dict[str, Any] = {}
    for name in arms:
        own = [one[name] for one in rounds]
        table[name] = {key: round(statistics.median(row[key] for row in own), 2) for key in own[0]}
        for what in ("processor", "wall"):
            ratios = sorted(one[name][f"{what}_seconds"] / one["bare_headers"][f"{what}_seconds"] for one in rounds)
            table[name][f"times_bare_headers_{what}"] = [
                round(v, 2) for v in (statistics.median(ratios), ratios[0], ratios[-1])
            ]
    return table


def main() -> int:
    """Prints one JSON document, and keeps that of a long run in benchmarks/results."""
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--files", type=int, default=10_000)
    words.add_argument("--size", type=int, default=64, help="pixels a side")
    words.add_argument("--repeat", type=int, default=5)
    words.add_argument("--keep", type=Path, help="folder for the files, kept and used again")
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = given.keep or Path(temporary)
        document: dict[str, Any] = {"files": given.files, "pixels_a_side": given.size, "rounds": given.repeat}
        for name, files in (("tenth", given.files // 10), ("whole", given.files)):
            root = base / f"{name}-{files}-{given.size}"
            if not root.exists():
                fill(root, files, given.size)
            document[name] = compared(root, given.repeat)
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    if given.files >= 10_000:
        keep(f"inspect_speed_{given.size}", document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
