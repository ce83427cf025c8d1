"""The output folder: opened under a lock, filled block by block, finished last; never wrong after a kill.

A block of candidates is committed as one journal line after its files are whole on the disk. Opening the folder again
re-hashes what the journal names; what cannot be proven is made again, which gives the same bytes, because a block is a
pure function of the plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from mgdm_cli.data import papers
from mgdm_cli.data.files import (
    Journal,
    Lock,
    canonical,
    fsync_dirs,
    io_failed,
    make_dirs,
    missing_dirs,
    sha256_file,
    sha256_hex,
    write_all,
)
from mgdm_cli.data.labels import folder_of
from mgdm_cli.data.manifest import BlockRow, Entry, InputRow, Rejected, to_lines
from mgdm_cli.data.plan import ANOTHER_FOLDER, Lot, Plan, block_name, differences, read_plan
from mgdm_cli.errors import BadInput, OtherPlan

HOUSE = ".mgdm"
PAGE, RECORD = "report.html", "run.json"  # of a run, and not of the data set: written behind the done marker
PAGE_SHA256 = "report_sha256"  # in the record
PLAN, DONE, LOCK, JOURNAL, INPUTS, SHARD = (
    "plan.json",
    f"{HOUSE}/done",
    f"{HOUSE}/lock",
    f"{HOUSE}/journal",
    f"{HOUSE}/inputs.jsonl",
    f"{HOUSE}/shard.json",
)
_BLOCK_FILE = re.compile(r"(images|\.mgdm/pictures)(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")


def picture_path(lot: Lot, attempt: int, name: str) -> str:
    """Where a block keeps a small extra file, such as its pictures before disturbance or those it rejected."""
    return f"{HOUSE}/pictures/{lot.index:05d}-{attempt:03d}/{name}"


def stored_plan(root: Path) -> Plan | None:
    """The plan that `root` holds, or None when the folder is new or empty. Touches nothing.

    Raises OtherPlan when the folder holds something that is not ours."""
    try:
        names = {path.name for path in root.iterdir()}
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise OtherPlan(f"the output {root.name} is not a folder", ANOTHER_FOLDER) from error
    if PLAN in names:
        return read_plan((root / PLAN).read_bytes())
    if any(not name.startswith(".") for name in names):  # a file manager's hidden files do not count
        raise OtherPlan("the output folder is not empty and holds no plan of mgdm", ANOTHER_FOLDER)
    return None


def reserve(root: Path) -> Lock:
    """The lock of the output folder, which is made when it is new; for runs that work long before they have a plan.

    Raises OtherPlan (nothing touched), FolderInUse, IoFailed."""
    stored_plan(root)
    made = missing_dirs(root / HOUSE / "tmp")
    fsync_dirs(make_dirs(root / HOUSE / "tmp"))
    return Lock(root / LOCK, made=made)


def _must_match(root: Path, plan: Plan) -> bool:
    """Whether `root` holds `plan` already. Raises OtherPlan when it holds another."""
    old = stored_plan(root)
    if old is None:
        return False
    if old.to_bytes() != plan.to_bytes():
        names = ", ".join(differences(old, plan)[:6])
        raise OtherPlan(f"the output folder holds another plan (other: {names})", ANOTHER_FOLDER)
    return True


class Dataset:
    """A data set in the making. Open it with `Dataset.open`, close it with `close` or a `with` block."""

    def __init__(
        self, root: Path, plan: Plan, inputs: tuple[InputRow, ...], shard: tuple[int, int], lock: Lock
    ) -> None:
        """Use `Dataset.open`."""
        self.root, self.plan, self.inputs, self.shard = root, plan, inputs, shard
        self.lots = plan.share(shard)
        self.unproven = 0  # blocks of the journal that will be made again
        self._lock = lock
        self._tmp = root / HOUSE / "tmp"
        self._journal = Journal(root / JOURNAL)
        self._blocks: dict[int, list[BlockRow]] = {}

    @classmethod
    def open(
        cls,
        root: Path,
        plan: Plan,
        *,
        inputs: Iterable[InputRow] = (),
        shard: tuple[int, int] = (1, 1),
        lock: Lock | None = None,
    ) -> Dataset:
        """The data set at `root`, new or continued; `inputs` are the real rows of combined.csv.

        `lock` is what `reserve` gave, if it was called. Raises OtherPlan (nothing touched), FolderInUse, IoFailed.
        """
        rows = tuple(sorted(inputs, key=lambda row: (row.path, -1 if row.part is None else row.part)))
        for row in rows:
            if not _writable(row.path):
                raise BadInput(f"{row.path!a}: the name holds characters that a table cannot", "Rename the file.")
        _must_match(root, plan)
        held = lock if lock is not None else reserve(root)
        try:
            found = cls(root, plan, rows, shard, held)
            found._begin(known=_must_match(root, plan))
        except BaseException:
            if lock is None:
                held.release()
            raise
        return found

    def _begin(self, *, known: bool) -> None:
        for path in self._tmp.iterdir() if self._tmp.is_dir() else ():
            try:
                path.unlink()
            except OSError as error:
                raise io_failed(path.name, error) from error
        shard = canonical({"shard": list(self.shard)})
        if known and (self.root / SHARD).exists() and (self.root / SHARD).read_bytes() != shard:
            raise OtherPlan("the output folder holds another shard of this plan", ANOTHER_FOLDER)
        house = {SHARD: shard, INPUTS: to_lines(self.inputs)}
        stale = {name: data for name, data in house.items() if not _holds(self.root / name, data)}
        make_dirs(self._tmp)
        if stale:
            write_all(self.root, stale, tmp=self._tmp)
        if not known:
            write_all(self.root, {PLAN: self.plan.to_bytes()}, tmp=self._tmp)
        self._recover()

    def _recover(self) -> None:
        """Fill `_blocks` with what the journal says and the files prove."""
        rows: dict[tuple[int, int], BlockRow] = {}
        for line in self._journal.read():
            try:
                row = BlockRow.model_validate(line)
            except ValidationError as error:
                raise OtherPlan("the journal was not written by this version", ANOTHER_FOLDER) from error
            rows[row.lot, row.attempt] = row  # a block made again comes later and counts
        for lot in self.lots:
            proven = self._blocks.setdefault(lot.index, [])
            while (key := (lot.index, len(proven))) in rows and self._proves(rows[key]):
                proven.append(rows.pop(key))
        self.unproven += len(rows)
        if (self.unproven or self.pending()) and (self.root / DONE).exists():
            self._undo()

    def _proves(self, row: BlockRow) -> bool:
        try:
            return all(sha256_file(self.root / name) == digest for name, digest in row.files.items())
        except OSError:
            return False  # missing or unreadable: made again

    def _undo(self) -> None:
        """Take the done marker away: something it vouched for is not there."""
        try:
            (self.root / DONE).unlink()
        except OSError as error:
            raise io_failed(DONE, error) from error
        fsync_dirs([self.root / HOUSE])

    @property
    def done(self) -> bool:
        """Whether the data set is finished and every file of it was proven when it was opened."""
        return (self.root / DONE).exists()

    def blocks(self, lot: Lot) -> tuple[BlockRow, ...]:
        """The proven blocks of a lot: attempts 0, 1, ... without a gap. The next one to make is their number."""
        return tuple(self._blocks[lot.index])

    def accepted(self, lot: Lot) -> int:
        """Accepted images of a lot so far: the rank of the next one."""
        return sum(len(row.accepted) for row in self._blocks[lot.index])

    def wants(self, lot: Lot) -> bool:
        """Whether a lot needs another block: below its quota and with attempts left."""
        return self.accepted(lot) < lot.quota and len(self._blocks[lot.index]) < self.plan.max_attempts

    def pending(self) -> tuple[Lot, ...]:
        """The lots of this shard that need another block."""
        return tuple(lot for lot in self.lots if self.wants(lot))

    def short(self) -> dict[str, int]:
        """Class -> images that its exhausted lots could not deliver; empty when every quota was met."""
        missing: dict[str, int] = {}
        for lot in self.lots:
            if self.accepted(lot) < lot.quota:
                missing[lot.label] = missing.get(lot.label, 0) + lot.quota - self.accepted(lot)
        return missing

    def entries(self) -> tuple[Entry, ...]:
        """The accepted images in the order of their running number."""
        return tuple(entry for lot in self.lots for row in self._blocks[lot.index] for entry in row.accepted)

    def rejected(self) -> tuple[Rejected, ...]:
        """The rejected candidates in the order of lot, attempt and row."""
        return tuple(found for lot in self.lots for row in self._blocks[lot.index] for found in row.rejected)

    def commit(
        self,
        lot: Lot,
        attempt: int,
        *,
        files: Mapping[str, bytes],
        accepted: Sequence[Entry],
        rejected: Sequence[Rejected] = (),
        evaluations: int = 0,
        gradients: int = 0,
    ) -> BlockRow:
        """Write the result of block (lot, attempt): its files, durable, then one journal line.

        `files` holds the images of `accepted` under `plan.image_path(lot, rank)`, ranks counting on from
        `accepted(lot)`, and small extra files under `picture_path`. Raises IoFailed; ValueError on a caller's slip.
        """
        self._check(lot, attempt, files, accepted, rejected)
        hashes = {name: sha256_hex(data) for name, data in files.items()}
        for entry in accepted:
            if hashes.get(entry.path) != entry.sha256 or len(files[entry.path]) != entry.bytes:
                raise ValueError(f"{entry.id}: the entry does not describe the bytes of its file")
        row = BlockRow(
            lot=lot.index, attempt=attempt, evaluations=evaluations, gradients=gradients, accepted=tuple(accepted),
            rejected=tuple(rejected), files=hashes,
        )  # fmt: skip
        write_all(self.root, files, tmp=self._tmp)
        self._journal.append(row.model_dump(mode="json"))
        self._blocks[lot.index].append(row)
        return row

    def _check(
        self,
        lot: Lot,
        attempt: int,
        files: Mapping[str, bytes],
        accepted: Sequence[Entry],
        rejected: Sequence[Rejected],
    ) -> None:
        if lot not in self.lots or not self.wants(lot) or attempt != len(self._blocks[lot.index]):
            raise ValueError(f"block {lot.index}.{attempt} is not the one to make next")
        start = self.accepted(lot)
        if start + len(accepted) > lot.quota:
            raise ValueError(f"lot {lot.index} wants {lot.quota - start} more images, not {len(accepted)}")
        for rank, entry in enumerate(accepted, start):
            if entry.path != self.plan.image_path(lot, rank) or entry.id != self.plan.image_id(lot, rank):
                raise ValueError(f"{entry.id}: must be {self.plan.image_path(lot, rank)}")
        if ({e.block for e in accepted} | {r.block for r in rejected}) - {block_name(lot.index, attempt)}:
            raise ValueError(f"a row names another block than {lot.index}.{attempt}")
        images = {name for name in files if name.startswith("images/")}
        if images != {entry.path for entry in accepted} or not all(_BLOCK_FILE.fullmatch(name) for name in files):
            raise ValueError("files must be the accepted images and what lies below .mgdm/pictures")

    def write(self, name: str, data: bytes) -> None:
        """Write one more file (report.html, run.json, config.resolved.toml) atomically. Raises IoFailed."""
        write_all(self.root, {name: data}, tmp=self._tmp)

    def finish(self) -> None:
        """Write the manifest and every paper, then, last, the done marker. Raises IoFailed; ValueError when lots wait.

        Of one shard among several only the manifests are written: the papers come with the merge.
        """
        if self.pending():
            raise ValueError(f"{len(self.pending())} lots still need blocks")
        entries, rejected = self.entries(), self.rejected()
        files = {"manifest.jsonl": to_lines(entries), "rejected.jsonl": to_lines(rejected)}
        if self.shard[1] == 1:
            files |= papers.all_papers(self.plan, entries, rejected, self.inputs, manifest=files["manifest.jsonl"])
        done = canonical(
            {
                "plan": self.plan.run,
                "shard": list(self.shard),
                "images": len(entries),
                "files": {name: sha256_hex(data) for name, data in files.items()},
            }
        )
        if self.done and not _holds(self.root / DONE, done):
            self._undo()
        self._sweep(entries)
        write_all(self.root, {n: data for n, data in files.items() if not _holds(self.root / n, data)}, tmp=self._tmp)
        if not self.done:
            write_all(self.root, {DONE: done}, tmp=self._tmp)

    def _sweep(self, entries: Sequence[Entry]) -> None:
        """Remove images of ours that no journal line vouches for, as a block that was never committed leaves them."""
        listed = {entry.path for entry in entries}
        for own in map(folder_of, self.plan.classes):
            for path in (self.root / "images" / own).glob(f"{own}-*{self.plan.suffix}"):
                if path.relative_to(self.root).as_posix() not in listed:
                    try:
                        path.unlink()
                    except OSError as error:
                        raise io_failed(path.name, error) from error

    def close(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _writable(name: str) -> bool:
    """Whether a name fits a line of UTF-8: no control characters, no bytes that are not text."""
    return not any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) <= 0xDFFF for c in name)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False
