"""How many synthetic images each class gets: as many of each, the smallest filled up, the real set's shares, or said outright."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from mgdm_cli.data.labels import counts_in
from mgdm_cli.errors import BadInput, UsageError

SMALLEST_CLASS = 10  # real images; below it a class is left out unless forced


@dataclass(frozen=True)
class Allotment:
    """How many synthetic images each class is to get."""

    quotas: dict[str, int]  # every class in class order; 0 for the ones left out
    asked: int
    capped: tuple[str, ...]  # classes held at `max_per_real` synthetic images for each real one
    left_out: tuple[str, ...]  # classes with too few real images
    notes: tuple[str, ...]

    @property
    def total(self) -> int:
        """Images that will be made; less than `asked` when the caps do not allow more."""
        return sum(self.quotas.values())


def allot(
    real: Mapping[str, int],
    n: int | None,
    balance: str,
    *,
    max_per_real: float = 20.0,
    force_small: bool = False,
    flag: str = "--balance",
) -> Allotment:
    """The allotment of `n` synthetic images over the classes of `real` (class -> real training images, class order).

    "equal" gives each class the same number; "fill" raises the smallest classes first until `n` is spent (water-filling: real +
    synthetic reaches one level); "proportional" keeps the shares of the real set; "a=500,b=20" says it outright (`n` may then
    be None). `flag` is what errors call it. Raises UsageError on a bad balance, BadInput when no class is large enough.
    """
    if not 0 < max_per_real < math.inf:
        raise UsageError(
            f"--max-per-real must be a number above 0, not {max_per_real:g}", "Give synthetic images per real one."
        )
    small = tuple(c for c, count in real.items() if count < (1 if force_small else SMALLEST_CLASS))
    kept = {c: count for c, count in real.items() if c not in small}
    if not kept:
        raise BadInput(f"no class has {SMALLEST_CLASS} training images", "Add images, or say --force-small.")
    caps = {c: math.floor(max_per_real * count) for c, count in kept.items()}
    if "=" in balance:
        wanted = _explicit(balance, real, small, flag)
        asked = sum(wanted.values())
        if n is not None and n != asked:
            raise UsageError(f"--balance adds up to {asked}, --n says {n}", "Leave --n out, or make them agree.")
        quotas = {c: min(wanted.get(c, 0), caps[c]) for c in kept}
        capped = tuple(c for c in kept if wanted.get(c, 0) > caps[c])
    else:
        if n is None or n < 1:
            raise UsageError("--n must be 1 or more", "Give the number of accepted images wanted.")
        asked = n
        quotas = _shares(balance, kept, caps, n)
        capped = tuple(c for c in kept if quotas[c] == caps[c])
    if not any(quotas.values()):
        raise UsageError(
            f"--max-per-real {max_per_real:g} allows no image of a class that was asked for",
            "Give more synthetic images per real one.",
        )
    told = {c: quotas.get(c, 0) for c in real}
    notes = _notes(real, small, capped, caps, asked=asked, quotas=told, balance=balance, max_per_real=max_per_real)
    without = [c for c in kept if not quotas.get(c)]
    if without and any(quotas.values()):
        notes = (*notes, one_sided("made of", without))
    return Allotment(told, asked, capped, small, notes)


def one_sided(what: str, without: Sequence[str]) -> str:
    """The warning that no image is "made of" or "added to" the classes `without`, but to others.

    Measured by benchmarks.utility, with classical augmentation too: whatever marks the added images then marks their classes.
    """
    return (
        f"no image is {what} {', '.join(without)}: a classifier can take the look of added images for the other classes, and err "
        "on real ones; augment --balance equal makes some of every class"
    )


def _shares(balance: str, real: Mapping[str, int], caps: Mapping[str, int], n: int) -> dict[str, int]:
    if balance == "equal":
        return _fill(dict.fromkeys(real, 0), caps, n)
    if balance == "fill":
        return _fill(real, caps, n)
    if balance == "proportional":
        return _proportional(real, caps, n)
    near = get_close_matches(balance, ["equal", "fill", "proportional"], 1)
    meant = f"Did you mean {near[0]}?" if near else "Use equal, fill, proportional or class=count,class=count."
    raise UsageError(f"unknown --balance {balance!r}", meant)


def _fill(base: Mapping[str, int], caps: Mapping[str, int], n: int) -> dict[str, int]:
    """Water-filling in whole images: the highest level that `n` pays for, then one by one in class order."""

    def at(level: int) -> dict[str, int]:
        return {c: min(caps[c], max(0, level - base[c])) for c in base}

    low, high = 0, max(base.values()) + n + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sum(at(middle).values()) <= n else (low, middle)
    quotas, above = at(low), at(low + 1)
    rest = n - sum(quotas.values())
    for c in base:
        if rest and above[c] > quotas[c]:
            quotas[c] += 1
            rest -= 1
    return quotas


def _proportional(real: Mapping[str, int], caps: Mapping[str, int], n: int) -> dict[str, int]:
    """Largest remainder (Hamilton): floors of n * share, the rest to the largest fractions, ties in class order."""
    total = sum(real.values())
    quotas = {c: n * count // total for c, count in real.items()}
    order = sorted(real, key=lambda c: -(n * real[c] % total))
    for c in order[: n - sum(quotas.values())]:
        quotas[c] += 1
    return {c: min(quotas[c], caps[c]) for c in real}


def _explicit(balance: str, real: Mapping[str, int], small: Sequence[str], flag: str) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for name, count in counts_in(balance):
        if name not in real:
            near = get_close_matches(name, list(real), 1)
            meant = f"Did you mean {near[0]}?" if near else "The classes are " + ", ".join(real) + "."
            raise UsageError(f"{flag} names no class of this set: {name!r}", meant)
        if name in wanted:
            raise UsageError(f"{flag} names {name!r} twice", "Name each class once.")
        if name in small and int(count):
            raise UsageError(f"class {name!r} has only {real[name]} training images", "Say --force-small to use it.")
        wanted[name] = int(count)
    if not sum(wanted.values()):
        raise UsageError(f"{flag} asks for no image at all", "Write it as class=500,other=20.")
    return wanted


def _notes(
    real: Mapping[str, int],
    small: Sequence[str],
    capped: Sequence[str],
    caps: Mapping[str, int],
    *,
    asked: int,
    quotas: Mapping[str, int],
    balance: str,
    max_per_real: float,
) -> tuple[str, ...]:
    total = sum(quotas.values())
    few = f"training images, {SMALLEST_CLASS} are needed (--force-small)"
    notes = [f"class {c} is left out: {real[c]} {few}" for c in small]
    most = f"{max_per_real:g} for each real one (--max-per-real)"
    notes += [f"class {c} is held at {caps[c]} images, {most}" for c in capped]
    together = {c: real[c] + quotas[c] for c in real if c not in small}
    lacking = sum(max(real[c] for c in together) - real[c] for c in together)
    if balance == "equal" and len(set(together.values())) > 1:
        sizes = ", ".join(f"{c} {count}" for c, count in together.items())
        notes.append(
            f"real and synthetic images together stay unequal ({sizes}): train with a class-balanced sampler, or level the classes "
            f"with --balance fill --n {lacking}"
        )
    if total < asked:
        notes.append(f"{asked} images were asked for; {total} can be made under the caps")
    return tuple(notes)
