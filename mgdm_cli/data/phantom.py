"""Eye-fundus-like colour pictures with a known truth, drawn from a seed: what `mgdm demo` and many tests work on.

One unit of length here is the radius of the illuminated field (22.5 degrees of a 45 degree photograph); x runs to the
right, y down. The anatomy is that of a right eye as a fundus camera shows it: the optic disc on the right, the fovea
about 15 degrees to its left and a little lower, the arcades of vessels around it. A left eye is its mirror image. The
grades are a coarse form of the international scale of diabetic retinopathy (Wilkinson et al. 2003): none, red spots,
red spots with hard exudates, and these with large haemorrhages and cotton-wool spots. The lesions are larger than life,
so that they survive 64 pixels and a small generator: the picture is no medical reference.

Several streams come from the seed: the pigment and the light (shared by both eyes of a patient), the anatomy, and the
lesions. The same seed at another grade is therefore the same eye with other lesions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Eye = Literal["left", "right"]
Array = NDArray[np.float64]
Place = tuple[float, float, float]  # x, y, radius
Places = dict[str, list[Place]]

GRADES = ("grade0", "grade1", "grade2", "grade3")
LESIONS = ("red_spots", "exudates", "haemorrhages", "cotton_wool")

# How many lesions of each kind a grade has: the least and the most, both included.
COUNTS: dict[int, dict[str, tuple[int, int]]] = {
    0: {},
    1: {"red_spots": (6, 9)},
    2: {"red_spots": (4, 6), "exudates": (9, 12)},
    3: {"red_spots": (4, 7), "exudates": (2, 4), "haemorrhages": (4, 5), "cotton_wool": (2, 3)},
}
RADIUS = {
    "red_spots": (0.058, 0.078),
    "exudates": (0.052, 0.070),
    "haemorrhages": (0.145, 0.185),
    "cotton_wool": (0.11, 0.14),
}

_FIELD = 0.965  # radius of the field as a share of half the picture
_ARCADES = (  # cubic Bezier curves; the first two points count from the disc's centre, all four in the nasal ones
    ((0.0, -0.03), (-0.03, -0.40), (-0.26, -0.74), (-0.80, -0.42)),  # superior temporal
    ((0.0, 0.03), (-0.03, 0.40), (-0.26, 0.76), (-0.80, 0.46)),  # inferior temporal
    ((0.02, -0.02), (0.05, -0.20), (0.16, -0.34), (0.34, -0.50)),  # superior nasal
    ((0.02, 0.02), (0.05, 0.20), (0.16, 0.34), (0.34, 0.50)),  # inferior nasal
)


@dataclass(frozen=True)
class Phantom:
    """`pixels` (3, size, size) float32 RGB in 0..1; `truth` maps each structure to its (x, y, radius) in pixels."""

    pixels: NDArray[np.float32]
    grade: int
    eye: Eye
    truth: dict[str, tuple[Place, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Anatomy:
    """Where things are, in units of the field's radius, in a right eye."""

    disc: Place
    macula: Place
    cup: float
    vessels: Array  # (P, 4): x, y, half width, depth of colour 0..1


def draw(seed: int, grade: int, *, eye: Eye = "right", size: int = 64, style: int | None = None) -> Phantom:
    """A phantom eye. `style` sets pigment and light: the patient, where two eyes belong to one; otherwise the seed.

    Raises ValueError for a grade outside 0..3 or a size below 32.
    """
    if grade not in COUNTS or size < 32:
        raise ValueError(f"grade {grade} is not in 0..3, or size {size} is below 32")
    light = np.random.default_rng([11, seed if style is None else style])
    anatomy = _anatomy(np.random.default_rng([12, seed]))
    rng = np.random.default_rng([13, seed, grade])
    lesions = _place(anatomy, grade, rng)
    canvas = _Canvas.of(size)
    rgb = _retina(canvas, anatomy, light)
    rgb = _lesions(canvas, rgb, lesions, rng, ("cotton_wool", "exudates"))  # below the vessels
    rgb = _vessels(canvas, rgb, anatomy)
    rgb = _lesions(canvas, rgb, lesions, rng, ("haemorrhages", "red_spots"))  # above them
    pixels = _photograph(canvas, rgb, np.random.default_rng([14, seed, grade]))
    places = {"disc": [anatomy.disc], "macula": [anatomy.macula], **lesions}
    if eye == "left":
        pixels = np.ascontiguousarray(pixels[:, :, ::-1])
    truth = {name: tuple(_pixel(p, size, eye) for p in found) for name, found in places.items()}
    return Phantom(pixels, grade, eye, truth)


def _pixel(place: Place, size: int, eye: Eye) -> Place:
    """(x, y, radius) in pixels of the finished picture; the centre of the first pixel is 0."""
    half = size / 2
    x = -place[0] if eye == "left" else place[0]
    return x * half * _FIELD + half - 0.5, place[1] * half * _FIELD + half - 0.5, place[2] * half * _FIELD


# --- the canvas: twice as fine as the picture -----------------------------------------------------


@dataclass(frozen=True)
class _Canvas:
    """`x`, `y` (n, n) in field radii, `r` the distance from the centre, `step` the width of one canvas pixel."""

    x: Array
    y: Array
    r: Array
    step: float

    @classmethod
    def of(cls, size: int) -> _Canvas:
        n = 2 * size
        axis = (np.arange(n) + 0.5 - n / 2) / (n / 2 * _FIELD)
        x, y = np.meshgrid(axis, axis)
        return cls(x, y, np.hypot(x, y), float(axis[1] - axis[0]))

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """(rows, columns) of the square of half side `reach` about (x, y), cut at the border."""
        n = len(self.x)
        low = [max(0, int((v - reach - self.x[0, 0]) / self.step)) for v in (y, x)]
        high = [min(n, int((v + reach - self.x[0, 0]) / self.step) + 2) for v in (y, x)]
        return slice(low[0], high[0]), slice(low[1], high[1])

    def cut(self, window: tuple[slice, slice]) -> _Canvas:
        return _Canvas(self.x[window], self.y[window], self.r[window], self.step)

    def away(self, x: float, y: float) -> Array:
        """Distance (n, n) of every point from (x, y)."""
        return np.hypot(self.x - x, self.y - y)


def _edge(distance: Array, radius: float | Array, width: float) -> Array:
    """1 inside `radius`, 0 outside, with a smooth step of about `width`."""
    return 1.0 / (1.0 + np.exp(np.clip(4.0 * (distance - radius) / width, -40.0, 40.0)))


def _mix(rgb: Array, colour: Array, alpha: Array) -> Array:
    """`rgb` (3, n, n) covered by `colour` (3,) or (3, n, n) with opacity `alpha` (n, n)."""
    return rgb * (1.0 - alpha) + np.broadcast_to(colour.reshape(3, *(colour.shape[1:] or (1, 1))), rgb.shape) * alpha


# --- anatomy --------------------------------------------------------------------------------------


def _anatomy(rng: np.random.Generator) -> _Anatomy:
    def near(value: float, spread: float) -> float:
        return float(value + rng.uniform(-spread, spread))

    disc = (near(0.50, 0.05), near(-0.02, 0.06), near(0.165, 0.012))
    macula = (disc[0] - near(0.66, 0.03), disc[1] + near(0.08, 0.03), 0.15)
    return _Anatomy(disc, macula, near(0.45, 0.08), _tree(rng, disc))


def _tree(rng: np.random.Generator, disc: Place) -> Array:
    """Points (P, 4) of the vessels: a vein and an artery along each arcade, and branches that leave the veins."""
    parts: list[Array] = []
    for arcade, curve in enumerate(_ARCADES):
        bend = rng.uniform(-0.055, 0.055, size=(4, 2))
        bend[0] *= 0.3
        for side, (width, depth) in enumerate(((0.032, 1.0), (0.022, 0.68))):
            points = np.asarray(curve) + bend
            points[: 2 if arcade < 2 else 4] += disc[:2]
            points[2:] *= 1.0 - (0.16 if arcade < 2 else -0.16) * side  # the artery runs inside the vein
            width *= 1.0 if arcade < 2 else 0.75
            path = _bezier(points, 90) + _wobble(rng, 90, 0.012)
            taper = np.linspace(1.0, 0.5, 90)[:, None]
            parts.append(np.hstack([path, width * taper, np.full((90, 1), depth)]))
            if side == 0:
                parts += _branches(rng, path, arcade)
    return np.concatenate(parts)


def _branches(rng: np.random.Generator, path: Array, arcade: int) -> list[Array]:
    """Thin vessels that leave `path` (P, 2) on alternating sides and bend outwards."""
    made = []
    starts = (0.34, 0.55, 0.74) if arcade < 2 else (0.55,)
    for number, share in enumerate(starts):
        at = int((share + rng.uniform(-0.05, 0.05)) * (len(path) - 2))
        heading = path[at + 1] - path[at]
        angle = np.arctan2(heading[1], heading[0])
        outward = 1.0 if (arcade % 2 == 0) == (arcade < 2) else -1.0
        inner = number % 2 == 1
        turn = -outward if inner else outward
        angles = angle + turn * (rng.uniform(0.55, 0.8) + 0.25 * inner - np.linspace(0.0, 0.15 if inner else 0.5, 45))
        length = rng.uniform(0.32, 0.48) * (0.8 if inner else 1.0)
        steps = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (length / 45)
        track = path[at] + np.cumsum(steps, axis=0)
        made.append(np.hstack([track, np.linspace(0.017, 0.009, 45)[:, None], np.full((45, 1), 0.7)]))
    return made


def _bezier(points: Array, count: int) -> Array:
    """A cubic Bezier curve (count, 2) through the first and the last of four points."""
    t = np.linspace(0.0, 1.0, count)[:, None]
    a, b, c, d = points
    curve: Array = (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d
    return curve


def _wobble(rng: np.random.Generator, count: int, amplitude: float) -> Array:
    """A slow swing (count, 2) that is nought at the start: how tortuous a vessel is."""
    t = np.linspace(0.0, 1.0, count)[:, None]
    turns = t * rng.uniform(1.5, 3.0, 2) + rng.uniform(0, 1, 2)
    return np.asarray(amplitude * np.minimum(1.0, 3 * t) * np.sin(2 * np.pi * turns))


# --- lesions --------------------------------------------------------------------------------------


def _place(anatomy: _Anatomy, grade: int, rng: np.random.Generator) -> Places:
    """Lesions of the grade: in the field, off the disc and the fovea, apart; the red spots beside the vessels."""
    found: Places = {name: [] for name in LESIONS}
    for name in ("haemorrhages", "cotton_wool", "red_spots", "exudates"):
        low, high = COUNTS[grade].get(name, (0, 0))
        for _ in range(int(rng.integers(low, high + 1))):
            radius = float(rng.uniform(*RADIUS[name]))
            taken = [place for places in found.values() for place in places]
            found[name].append(_free_place(anatomy, name, radius, taken, rng))
    return found


def _free_place(anatomy: _Anatomy, name: str, radius: float, taken: list[Place], rng: np.random.Generator) -> Place:
    """The candidate out of forty that keeps the largest free margin: always an answer, nearly always a good one."""
    reach = 0.86 - radius
    r, angle = reach * np.sqrt(rng.uniform(0, 1, 40)), rng.uniform(0, 2 * np.pi, 40)
    at = np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)
    if name == "exudates":  # they gather round the macula
        ring = rng.uniform(0.26, 0.50, 40)
        at = np.asarray(anatomy.macula[:2]) + np.stack([ring * np.cos(angle), ring * np.sin(angle)], axis=1)
    blocked = [(anatomy.disc[0], anatomy.disc[1], anatomy.disc[2] + 0.05), (*anatomy.macula[:2], 0.10), *taken]
    margins = [np.hypot(*(at - (x, y)).T) - other - radius for x, y, other in blocked]
    if name == "red_spots":
        tree = anatomy.vessels
        gap = np.hypot(at[:, None, 0] - tree[None, :, 0], at[:, None, 1] - tree[None, :, 1]) - tree[None, :, 2]
        margins.append(gap.min(axis=1) - radius)
    margin = np.minimum(np.min(margins, axis=0), 0.05) - np.where(np.hypot(*at.T) > reach, 1.0, 0.0)
    best = int(np.argmax(margin))
    return float(at[best, 0]), float(at[best, 1]), radius


def _lesions(canvas: _Canvas, rgb: Array, lesions: Places, rng: np.random.Generator, kinds: tuple[str, ...]) -> Array:
    """`rgb` with the lesions of `kinds`, in that order."""
    rgb = rgb.copy()
    for name in kinds:
        for x, y, radius in lesions[name]:
            window = canvas.window(x, y, 1.8 * radius + 0.15)
            part = canvas.cut(window)
            outline = _ragged(part, x, y, radius, name, rng)
            rgb[:, *window] = _PAINT[name](part, rgb[:, *window], part.away(x, y), outline)
    return rgb


def _ragged(canvas: _Canvas, x: float, y: float, radius: float, name: str, rng: np.random.Generator) -> Array:
    """The radius (n, n) of a lesion's outline by direction: nearly round for the small ones, lobed for the large."""
    depth = {"red_spots": 0.09, "exudates": 0.14, "haemorrhages": 0.16, "cotton_wool": 0.18}[name]
    angle = np.arctan2(canvas.y - y, canvas.x - x)
    lobes = [rng.uniform(0.5, 1.0) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) / k**0.5 for k in (2, 3, 5)]
    return np.asarray(radius * (1.0 + depth * np.sum(lobes, axis=0)))


def _red_spot(canvas: _Canvas, rgb: Array, distance: Array, radius: Array) -> Array:
    return _mix(rgb, rgb * np.asarray([0.62, 0.25, 0.32])[:, None, None], _edge(distance, radius, 0.040))


def _haemorrhage(canvas: _Canvas, rgb: Array, distance: Array, radius: Array) -> Array:
    clot = 0.84 + 0.08 * np.cos(17 * canvas.x + 9 * canvas.y) * np.cos(13 * canvas.y - 7 * canvas.x)
    return _mix(rgb, np.asarray([0.45, 0.085, 0.055]), clot * _edge(distance, radius, 0.075))


def _exudate(canvas: _Canvas, rgb: Array, distance: Array, radius: Array) -> Array:
    return _mix(rgb, np.asarray([1.0, 0.86, 0.36]), 0.92 * _edge(distance, radius, 0.035))


def _cotton_wool(canvas: _Canvas, rgb: Array, distance: Array, radius: Array) -> Array:
    return _mix(rgb, np.asarray([0.96, 0.82, 0.68]), 0.78 * _edge(distance, 0.9 * radius, 0.10))


_PAINT = {"red_spots": _red_spot, "haemorrhages": _haemorrhage, "exudates": _exudate, "cotton_wool": _cotton_wool}


# --- light and colour -----------------------------------------------------------------------------


def _retina(canvas: _Canvas, anatomy: _Anatomy, light: np.random.Generator) -> Array:
    """Pigment, shading, choroid, macula and disc: (3, n, n)."""
    pigment = np.asarray([0.86, 0.47, 0.22]) * light.uniform(0.94, 1.06)
    pigment = pigment * light.uniform([0.95, 0.93, 0.85], [1.03, 1.11, 1.15])
    towards = light.uniform(0, 2 * np.pi)
    side = canvas.x * np.cos(towards) + canvas.y * np.sin(towards)
    shade = 1.04 - 0.30 * canvas.r**2 + 0.06 * side
    tint = np.stack([shade**0.8, shade**1.15, shade**1.3])
    choroid = np.zeros_like(canvas.x)
    for _ in range(5):
        k, phase = light.normal(0, 5.0, 2), light.uniform(0, 2 * np.pi)
        choroid += np.cos(k[0] * canvas.x + k[1] * canvas.y + phase)
    rgb = pigment[:, None, None] * tint * (1.0 + 0.012 * choroid)
    far = canvas.away(*anatomy.macula[:2])
    dark = np.asarray([0.20, 0.30, 0.30])[:, None, None]
    rgb *= 1.0 - dark * np.exp(-((far / 0.20) ** 2)) - 0.8 * dark * np.exp(-((far / 0.075) ** 2))
    return _disc(canvas, rgb, anatomy)


def _disc(canvas: _Canvas, rgb: Array, anatomy: _Anatomy) -> Array:
    """The optic disc with its paler cup and a faint glow of nerve fibres around it."""
    x, y, radius = anatomy.disc
    distance = np.hypot((canvas.x - x) * 1.06, canvas.y - y)
    rgb = _mix(rgb, np.asarray([1.0, 0.66, 0.34]), 0.20 * np.exp(-((distance / (1.9 * radius)) ** 2)))
    rgb = _mix(rgb, np.asarray([0.99, 0.74, 0.42]), 0.92 * _edge(distance, radius, 0.05))
    return _mix(
        rgb,
        np.asarray([1.0, 0.91, 0.68]),
        _edge(np.hypot(canvas.x - x + 0.015, canvas.y - y), anatomy.cup * radius, 0.06),
    )


def _vessels(canvas: _Canvas, rgb: Array, anatomy: _Anatomy) -> Array:
    """`rgb` darkened along the tree: stamps of a soft disc at every point, the darkest wins."""
    n = canvas.x.shape[0]
    x, y, width, depth = anatomy.vessels.T
    reach = int(np.ceil(0.045 / canvas.step)) + 1
    column, row = (np.round((v - canvas.x[0, 0]) / canvas.step).astype(int) for v in (x, y))
    off = np.arange(-reach, reach + 1)
    rows = np.clip(row[:, None, None] + off[None, :, None], 0, n - 1)
    columns = np.clip(column[:, None, None] + off[None, None, :], 0, n - 1)
    distance = np.hypot(canvas.x[rows, columns] - x[:, None, None], canvas.y[rows, columns] - y[:, None, None])
    stamp = depth[:, None, None] * _edge(distance, width[:, None, None], 0.03)
    ink = np.zeros((n, n))
    np.maximum.at(ink, (np.broadcast_to(rows, stamp.shape), np.broadcast_to(columns, stamp.shape)), stamp)
    return _mix(rgb, rgb * 0.35 + np.asarray([0.30, 0.05, 0.03])[:, None, None], 0.80 * ink)


def _photograph(canvas: _Canvas, rgb: Array, rng: np.random.Generator) -> NDArray[np.float32]:
    """The field on its dark surround, averaged to the picture's size, with a trace of noise: (3, size, size) 0..1."""
    rgb = _mix(np.full_like(rgb, 0.012), rgb, _edge(canvas.r, 0.985, 0.03))
    n = rgb.shape[1] // 2
    small = rgb.reshape(3, n, 2, n, 2).mean(axis=(2, 4))
    noisy: NDArray[np.float32] = np.clip(small + rng.normal(0.0, 0.004, small.shape), 0.0, 1.0).astype(np.float32)
    return noisy
