"""Arrays of pixels as PNG data URIs."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as Raster

    Bytes = NDArray[np.uint8]

LARGEST = 160  # pixels of the longer side of a picture on a page; larger ones are averaged down
GAP = 2  # pixels between pictures
COLUMNS = 6


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, spread over all."""
    step = max(count / most, 1.0)
    return [int(i * step) for i in range(min(most, count))]


def grid(images: Bytes, *, columns: int = COLUMNS, synthetic: bool = False) -> str:
    """A PNG data URI that shows images (N,H,W) or (N,H,W,3) row by row, with transparent gaps.

    It is `columns` wide also where there are fewer, so that the pictures of two grids have one size. With `synthetic` the
    PNG says so inside itself.
    """
    from PIL import Image

    tiles = [_tile(image) for image in images]
    if not tiles:
        raise ValueError("a grid needs at least one picture")
    rows = -(-len(tiles) // columns)
    width, height = tiles[0].size
    mode = "LA" if tiles[0].mode == "L" else "RGBA"
    sheet = Image.new(mode, (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP))
    for place, tile in enumerate(tiles):
        sheet.paste(tile.convert(mode), (place % columns * (width + GAP), place // columns * (height + GAP)))
    return _uri(sheet, synthetic)


def single(image: Bytes, *, synthetic: bool = False) -> str:
    """A PNG data URI of one image (H,W) or (H,W,3)."""
    return _uri(_tile(image), synthetic)


def to_bytes(images: NDArray[np.float32]) -> Bytes:
    """Images (N,C,H,W) in [-1,1] as uint8 (N,H,W) or (N,H,W,3)."""
    import numpy as np

    scaled = np.clip((images + 1.0) * 127.5, 0, 255).round().astype(np.uint8)
    return np.ascontiguousarray(scaled[:, 0] if images.shape[1] == 1 else scaled.transpose(0, 2, 3, 1))


def _tile(image: Bytes) -> Raster:
    """One picture, at most `LARGEST` pixels a side."""
    import numpy as np
    from PIL import Image

    raster = Image.fromarray(np.ascontiguousarray(image))
    longer = max(raster.size)
    if longer <= LARGEST:
        return raster
    width, height = (max(1, round(side * LARGEST / longer)) for side in raster.size)
    return raster.resize((width, height), Image.Resampling.BOX)


def _uri(raster: Raster, synthetic: bool) -> str:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    if synthetic:
        text.add_text("Synthetic", "YES")
    data = io.BytesIO()
    raster.save(data, "PNG", optimize=True, pnginfo=text)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")
