"""A second look at a scanned folder: the range of its values, from images spread over the whole set."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mgdm_cli.data.folder import Scan, read_pixels
from mgdm_cli.data.image import Image
from mgdm_cli.data.intensity import Intensity, fit_intensity
from mgdm_cli.errors import BadInput

MOST = 512  # images that are decoded again for this


def intensity_of(scan: Scan, *, tell: Callable[[int, int], None] | None = None) -> Intensity | None:
    """What training would find from `MOST` evenly spread images; None where there is none, or all are blank."""
    if {record.form.dtype for record in scan.records} == {"uint8"}:
        return Intensity(lo=0.0, hi=255.0)
    step = -(-len(scan.records) // MOST) or 1
    chosen = scan.records[::step]

    def images() -> Iterator[Image]:
        for done, record in enumerate(chosen):
            yield read_pixels(scan, record)
            if tell is not None:
                tell(done + 1, len(chosen))

    try:
        return fit_intensity(images())
    except BadInput:
        return None
