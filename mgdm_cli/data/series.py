"""Slices of one series, put in order by their place in the patient (PS3.3 C.7.6.2.1.1): gaps and mixed spacing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mgdm_cli.data.image import Record

TOLERANCE = 0.02  # of the usual distance: what rounding and table movement may differ by


@dataclass(frozen=True)
class Series:
    """The slices of a series along its normal. Distances in mm; `order` is the records' order in the patient."""

    slices: int
    order: tuple[Record, ...]
    distance_mm: float  # the usual one
    missing: int  # slices that lack in gaps of a whole number of distances
    faults: tuple[str, ...]


def series_of(groups: Sequence[tuple[str, Record]]) -> tuple[Series, ...]:
    """One Series for each group of two or more slices that say where they lie; groups in their first order."""
    found: dict[str, list[Record]] = {}
    for group, record in groups:
        if record.form.affine is not None:
            found.setdefault(group, []).append(record)
    return tuple(_series(records) for records in found.values() if len(records) > 1)


def _series(records: list[Record]) -> Series:
    affines = np.array([record.form.affine for record in records], dtype=np.float64)
    normals = np.cross(affines[:, :3, 0], affines[:, :3, 1])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    along = affines[:, :3, 3] @ normals[0]
    ranks = np.argsort(along, kind="stable")
    order = tuple(records[k] for k in ranks)
    steps = np.diff(along[ranks])
    faults: list[str] = []
    if (np.abs(normals @ normals[0]) < 1.0 - 1e-3).any():
        return Series(len(records), order, 0.0, 0, ("its slices are not parallel",))
    apart = steps[steps > 1e-3]
    usual = float(np.median(apart)) if apart.size else 0.0
    if apart.size < steps.size:
        faults.append(f"{steps.size - apart.size} slices lie where another one lies")
    whole = np.rint(apart / usual) if usual else apart
    even = np.abs(apart - whole * usual) <= TOLERANCE * usual
    missing = int((whole[even] - 1).sum()) if usual else 0
    if missing:
        faults.append(f"{missing} slices are missing")
    if not even.all():
        faults.append(f"distances between slices differ, {apart.min():g} to {apart.max():g} mm")
    spacings = {tuple(round(v, 6) for v in record.form.spacing_mm or ()) for record in records}
    if len(spacings) > 1:
        faults.append(f"{len(spacings)} pixel spacings")
    sizes = {(record.form.height, record.form.width) for record in records}
    if len(sizes) > 1:
        faults.append(f"{len(sizes)} sizes")
    return Series(len(records), order, usual, missing, tuple(faults))


def series_notes(found: Sequence[Series]) -> list[str]:
    """A line for each kind of fault, with the name of the first slice of the first series that has it."""
    return [
        f"series of {one.slices} slices from {one.order[0].path}: {'; '.join(one.faults)}"
        for one in found
        if one.faults
    ]
