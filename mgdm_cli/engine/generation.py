"""A plan carried out: block after block is made, gated, written and committed. Yields after each; whoever drains it shows progress."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mgdm_cli.data.codecs import codec_of, encode, settled
from mgdm_cli.data.dataset import Dataset, picture_path
from mgdm_cli.data.image import Image
from mgdm_cli.data.manifest import Entry, Measures, Rejected
from mgdm_cli.data.plan import Lot, Plan, Recipe, block_name

from .decoding import Candidates, Parts, make_block, measures
from .gates import Gates, Verdict, detail
from .preparing import Frame

PICTURES = 12  # of a lot whose first stage is kept for the report, and as many rejected ones


@dataclass(frozen=True)
class Works:
    """All that a plan needs to be carried out."""

    plan: Plan
    parts: Parts
    frame: Frame
    gates: Gates


@dataclass(frozen=True)
class Made:
    """One committed block."""

    lot: Lot
    attempt: int
    accepted: int
    rejected: int
    evaluations: int
    gradients: int


def carry_out(works: Works, dataset: Dataset) -> Iterator[Made]:
    """Make every block that is not proven yet. What is yielded is on the disk; it got there while the next block was made."""
    with ThreadPoolExecutor(1) as disk:  # left in any way, it waits for the write that has begun
        writing: Future[Made] | None = None
        for lot in dataset.lots:
            attempt, have, last = len(dataset.blocks(lot)), dataset.accepted(lot), works.plan.max_attempts
            if have >= lot.quota or attempt >= last:
                continue  # before its images are read back, which in a large set takes long
            earlier = _accepted_before(works, dataset, lot)
            while have < lot.quota and attempt < last:
                block = _judged(works, lot, attempt, earlier)
                files: dict[str, bytes] = {}
                accepted, rejected = _rows(works, block, files, first=have, room=lot.quota - have)
                del earlier[block.earlier + len(accepted) :]
                if writing is not None:
                    yield writing.result()
                writing = disk.submit(_commit, dataset, block, files, accepted, rejected)
                attempt, have = attempt + 1, have + len(accepted)
        if writing is not None:
            yield writing.result()


def remake(works: Works, entries: list[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """The bytes of accepted images, made again from the plan alone: for `verify --regenerate`."""
    plan = works.plan
    for entry in entries:
        lot_index, attempt = (int(part) for part in entry.block.split("."))
        lot = plan.lots[lot_index]
        made = _candidates(works, lot, attempt)
        image = _stored(works.frame, made.after[entry.row])
        yield entry, encode(image, plan.mark(lot, entry.index - lot.first))


def _candidates(works: Works, lot: Lot, attempt: int) -> Candidates:
    plan = works.plan
    siblings = [other.index for other in plan.lots if other.class_index == lot.class_index]
    return make_block(
        works.parts,
        plan.recipe,
        run_seed=plan.seed,
        lot=lot.index,
        attempt=attempt,
        block=plan.block,
        class_index=lot.class_index,
        turn=(siblings.index(lot.index), len(siblings)),
    )


def _judged(works: Works, lot: Lot, attempt: int, earlier: list[Tensor]) -> _Block:
    """A block with its verdicts; details of what passed are added to `earlier`."""
    made, before = _candidates(works, lot, attempt), len(earlier)
    images = [_stored(works.frame, x0) for x0 in made.after]
    # Judged as written: rounding to the stored type is part of the picture, and a resumed run can read it back.
    seen = torch.stack([works.frame.to_tensor(image) for image in images]).to(works.parts.device)
    verdicts = works.gates.check(seen, lot.class_index, earlier, made.hopeless)
    return _Block(
        lot, attempt, made, images, verdicts,
        before=_sized(works, made.before, len(images), lot.class_index),
        after=_sized(works, made.after, len(images), lot.class_index),
        earlier=before,
    )  # fmt: skip


def _commit(
    dataset: Dataset, block: _Block, files: dict[str, bytes], accepted: list[Entry], rejected: list[Rejected]
) -> Made:
    count = block.made.count
    dataset.commit(
        block.lot, block.attempt, files=files, accepted=accepted, rejected=rejected,
        evaluations=count.evaluations, gradients=count.gradients,
    )  # fmt: skip
    return Made(block.lot, block.attempt, len(accepted), len(rejected), count.evaluations, count.gradients)


@dataclass(frozen=True)
class _Block:
    """One block on its way to the folder. `before` and `after` are the guide's measures, row by row.

    `earlier`: how many images of the lot had been accepted, or would have been, before it.
    """

    lot: Lot
    attempt: int
    made: Candidates
    images: list[Image]
    verdicts: list[Verdict]
    before: list[Measures | None]
    after: list[Measures | None]
    earlier: int


def _sized(works: Works, x0: Tensor | None, rows: int, class_index: int) -> list[Measures | None]:
    if works.parts.guide is None or x0 is None:
        return [None] * rows
    return [Measures(**row) for row in measures(works.parts, x0, class_index, works.plan.recipe.guidance)]


def _rows(
    works: Works, block: _Block, files: dict[str, bytes], *, first: int, room: int
) -> tuple[list[Entry], list[Rejected]]:
    """Entries and rejects of a block; their files are added to `files`."""
    accepted: list[Entry] = []
    rejected: list[Rejected] = []
    lot = block.lot
    for row, verdict in enumerate(block.verdicts):
        if verdict.reason is not None or len(accepted) == room:
            rejected.append(_reject(works, block, row, files))
            continue
        rank = first + len(accepted)
        entry, data = _entry(works, block, row, rank)
        files[entry.path] = data
        if block.made.before is not None and not block.made.derived and rank < PICTURES:
            name = picture_path(lot, block.attempt, f"{entry.id}-before.png")
            files[name] = picture(works, _stored(works.frame, block.made.before[row]), lot, rank)
        accepted.append(entry)
    return accepted, rejected


def _reject(works: Works, block: _Block, row: int, files: dict[str, bytes]) -> Rejected:
    lot, verdict = block.lot, block.verdicts[row]
    name: str | None = None
    # What came from a real image and was refused may be that image: no picture of it is kept.
    shown = not block.made.derived and block.attempt * works.plan.block + row < PICTURES
    if verdict.reason is not None and shown:
        name = picture_path(lot, block.attempt, f"rejected-{row:03d}.png")
        files[name] = picture(works, block.images[row], lot, 0)
    return Rejected(
        block=block_name(lot.index, block.attempt),
        row=row,
        label=lot.label,
        class_index=lot.class_index,
        seed=block.made.seeds[row],
        reason=verdict.reason or "surplus",
        detail=verdict.detail if verdict.reason else "the class has all its images",
        before=block.before[row],
        after=block.after[row],
        copy_score=verdict.copy_score,
        copy_percentile=verdict.copy_percentile,
        picture=name,
    )


def _entry(works: Works, block: _Block, row: int, rank: int) -> tuple[Entry, bytes]:
    plan, recipe, lot = works.plan, works.plan.recipe, block.lot
    image, verdict = block.images[row], block.verdicts[row]
    form = image.form
    data = encode(image, plan.mark(lot, rank))
    entry = Entry(
        id=plan.image_id(lot, rank),
        path=plan.image_path(lot, rank),
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        label=lot.label,
        class_index=lot.class_index,
        index=lot.first + rank,
        seed=block.made.seeds[row],
        block=block_name(lot.index, block.attempt),
        row=row,
        model_sha256=plan.models.denoiser,
        classifier_sha256=plan.models.classifier,
        process=recipe.process,
        sampler=recipe.sampler,
        steps=recipe.steps,
        guidance=recipe.guidance,
        strength=recipe.strength,
        stage=_stage(block.made, recipe),
        before=block.before[row],
        after=block.after[row],
        label_kept=verdict.kept,
        copy_score=verdict.copy_score,
        copy_percentile=verdict.copy_percentile,
        width=form.width,
        height=form.height,
        channels=form.channels,
        dtype=form.dtype,
        spacing_mm=form.spacing_mm,
        affine=form.affine,
        sop_instance_uid=_uid(works, lot, rank),
    )
    return entry, data


def _stage(made: Candidates, recipe: Recipe) -> str:
    if made.derived:
        return "derived"
    if made.before is None:
        return "generated"
    return "selected" if recipe.mode == "select" else "disturbed"


def _uid(works: Works, lot: Lot, rank: int) -> str | None:
    if works.frame.form.codec != "dicom":
        return None
    from mgdm_cli.data.codecs.dicom_out import uid

    mark = works.plan.mark(lot, rank)
    return uid(mark.run, "instance", mark.index)


def _stored(frame: Frame, x0: Tensor) -> Image:
    """The picture as it will be stored: physical units, rounded to the stored type."""
    return settled(frame.to_image(x0))


def picture(works: Works, image: Image, lot: Lot, rank: int) -> bytes:
    """A small marked 8-bit PNG of an image, for the report."""
    unit = works.frame.intensity.to_unit(image.pixels)
    form = replace(image.form, codec="png", dtype="uint8", affine=None, spacing_mm=None)
    pixels = ((unit + 1) * 127.5).clip(0, 255).astype("float32")
    return codec_of("png").encode(Image(pixels, form), works.plan.mark(lot, rank))


def _accepted_before(works: Works, dataset: Dataset, lot: Lot) -> list[Tensor]:
    """Details of the lot's images that an earlier run accepted, read back from their files; none where twins may be."""
    found: list[Tensor] = []
    if not works.gates.blank:
        return found
    for block in dataset.blocks(lot):
        for entry in block.accepted:
            image = codec_of(works.frame.form.codec).read(dataset.root / entry.path)
            found.append(detail(works.frame.to_tensor(image)[None])[0])
    return found
