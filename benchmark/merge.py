"""Merging: the stores of several machines become one."""

import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from ..plugins import InputError
from .grid import Cell, folder_name
from .report.sheets import counted
from .rows import Row
from .runner import write_tables
from .store import FOLDERS, Store, Unwritable, columns_of, read_json, training_of

HASH = re.compile(r"[0-9a-f]{64}")
FILES = ("cell.json", "metrics.json", "history.json", "checkpoint.pt")
"""The files of a cell; the last may be missing."""
INNER = {"pictures": ".png", "kept": ".npz"}
"""Its folders, and what their files end with."""

Pair = tuple[float | None, float | None]


class Refused(ValueError):
    """Why a cell is not taken."""


@dataclass(frozen=True)
class Conflict:
    """A cell that two stores have with other numbers.

    Attributes:
        cell: its name.
        kept: the store whose numbers stay.
        other: the store whose numbers are left out.
        metric: the first that differs, with its sampler in words.
        values: of both; NaN where it does not apply, None where there is no such row.
        differing: how many differ.
    """

    cell: str
    kept: Path
    other: Path
    metric: str
    values: Pair
    differing: int

    def __str__(self) -> str:
        first, second = map(number, self.values)
        more = f", as {self.differing - 1} more differ" if self.differing > 1 else ""
        return (
            f"conflict: {self.cell}: {self.metric} is {first} in {self.kept}, which stays, and "
            f"{second} in {self.other}{more}"
        )


@dataclass(frozen=True)
class Merged:
    """What became of a merge.

    Attributes:
        path: the folder that has everything.
        copied: cells that it did not have before.
        present: cells of the sources that it had, or that an earlier source had, with the same
            numbers.
        failed: failures that were copied.
        conflicts: cells with other numbers, which were left out.
        left_out: what else of the sources was left out, and why.
        several: trainings of which there are several cells.
    """

    path: Path
    copied: int
    present: int
    failed: int
    conflicts: tuple[Conflict, ...]
    left_out: tuple[tuple[Path, str], ...]
    several: int

    @property
    def whole(self) -> bool:
        """Whether everything that the sources have is there."""
        return not self.conflicts and not self.left_out

    def summary(self) -> str:
        """What became of it, in lines for a person; each conflict has one."""
        lines = [
            f"{counted(self.copied, 'cell')} copied to {self.path}, {self.present} there already"
        ]
        if self.failed:
            lines.append(f"{counted(self.failed, 'failed cell')} copied")
        if self.several:
            lines.append(
                f"{counted(self.several, 'training')} with several cells, scored otherwise or made "
                "by other code or versions: the one finished last counts"
            )
        lines += map(str, self.conflicts)
        lines += [f"left out: {path}: {why}" for path, why in self.left_out]
        return "\n".join(printable(line) for line in lines)


def merge(sources: Iterable[str | Path], out: str | Path) -> Merged:
    """Copy the cells of stores to one store, and write its tables anew.

    Of a cell that several have, the first copy stays: that of ``out``, then that of the earlier
    source. Its costs may differ, which machines do; where other numbers do it is a conflict. An
    interrupted merge goes on when it is repeated.

    Args:
        sources: folders of stores. They are read only, and nothing in them is trusted.
        out: the folder of the store that gets the cells, which may be one of ``sources``.

    Raises:
        InputError: a source is no store or is named twice, or a folder lies within another.
    """
    stores = distinct(sources)
    refuse_nested(stores, Path(out).expanduser())
    into = Store(out, create=True)
    into.clean()
    others = [store for store in stores if not store.path.samefile(into.path)]
    owner: dict[str, Path] = {}
    conflicts: list[Conflict] = []
    left_out: list[tuple[Path, str]] = []
    copied = present = failed = 0
    for store in others:
        for folder in sorted(store.cells.iterdir()):
            try:
                cell, training_key, rows = read_cell(folder)
            except Refused as why:
                left_out.append((folder, str(why)))
                continue
            if not into.has(cell) and copy(folder, cell, into):
                owner[folder.name] = store.path
                copied += 1
            elif differing := differences(held_rows(into, cell), rows):
                whose = owner.get(folder.name, into.path)
                first = differing[0]
                conflicts.append(Conflict(folder.name, whose, store.path, *first, len(differing)))
                continue
            else:
                present += 1
                into.failure(cell).unlink(missing_ok=True)
            if not (into.path / "trained" / training_key).exists():
                into.name_trained(training_key, folder.name)
    for store in others:  # after every cell, as one of a later source may have finished
        for path in sorted(store.failed.glob("*.json")):
            try:
                cell, error = read_failure(path)
            except Refused as why:
                left_out.append((path, str(why)))
                continue
            if not into.has(cell) and not into.failure(cell).exists():
                into.fail(cell, error)
                failed += 1
    write_tables(into)
    cells = Counter(training_of(cell) for cell, _ in into.finished())
    several = sum(n > 1 for n in cells.values())
    return Merged(into.path, copied, present, failed, tuple(conflicts), tuple(left_out), several)


def distinct(sources: Iterable[str | Path]) -> list[Store]:
    """The stores of ``sources``.

    Raises:
        InputError: there are none, one is no store, or one is named twice.
    """
    stores: dict[Path, Store] = {}
    for source in sources:
        store = Store(source)
        for folder in (store.cells, store.failed):
            if not folder.is_dir():
                raise InputError(f"{store.path} cannot be merged: it has no folder {folder.name!r}")
        if store.path.resolve() in stores:
            raise InputError(f"{store.path} is named twice")
        stores[store.path.resolve()] = store
    if not stores:
        raise InputError("there is nothing to merge: name one folder of results or more")
    return list(stores.values())


def refuse_nested(stores: list[Store], out: Path) -> None:
    """Refuse a target within a source, and a source within the folders of the target's store.

    Raises:
        InputError: naming both.
    """
    target = out.resolve()
    for store in stores:
        source = store.path.resolve()
        if target != source and target.is_relative_to(source):
            raise InputError(f"{out} lies within {store.path}, which is merged into it")
        if any(source.is_relative_to(target / folder) for folder in FOLDERS):
            raise InputError(f"{store.path} lies within {out}, which it is merged into")


def read_cell(folder: Path) -> tuple[Cell, str, list[Row]]:
    """A finished cell of a store that is not trusted, with its training's key and its rows.

    Raises:
        Refused: it is none, or anything in it is not what this version writes.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise Refused("it is not a folder")
    for file in FILES[:3]:
        if not is_plain(folder / file):
            raise Refused(f"it has no {file}")
    about, history = (read_plain(folder / file) for file in ("cell.json", "history.json"))
    cell = cell_of(about, folder.name)
    try:
        training_key = about["provenance"]["training_key"]
        if not HASH.fullmatch(training_key) or not isinstance(about["trained"], dict):
            raise Refused("cell.json is not that of a cell")
        values = [value for epoch in history for value in epoch.values()]
        metrics = {metric["name"] for metric in cell.spec["evaluation"]["metrics"]}
    except (AttributeError, KeyError, TypeError):
        raise Refused("cell.json or history.json is not that of a cell") from None
    if not all(value is None or type(value) in (int, float) for value in values):
        raise Refused("history.json has what is not a number")
    for part in files_of(folder):
        if part.suffix == INNER["kept"] and not (part.stem in metrics and loads(folder / part)):
            raise Refused(f"{part} has no arrays of a metric of its specification")
    return cell, training_key, read_rows(folder / "metrics.json")


def read_failure(path: Path) -> tuple[Cell, str]:
    """A failed cell of a store that is not trusted, with what went wrong.

    Raises:
        Refused: it is none.
    """
    if not is_plain(path):
        raise Refused("it is not a file")
    about = read_plain(path)
    cell = cell_of(about, path.stem)
    if not isinstance(about.get("error"), str):
        raise Refused("it does not say what went wrong")
    return cell, about["error"]


def cell_of(about: Any, name: str) -> Cell:
    """The cell that ``cell.json`` or a failure is of.

    Raises:
        Refused: it is of none, or of one with another name than ``name``.
    """
    try:
        cell = Cell(about["spec"], about["key"])
        if not HASH.fullmatch(cell.key):
            raise Refused("its key is not a hash")
        *texts, seed, _ = columns_of(cell)
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise Refused("its seed is not a whole number")
        if not all(isinstance(text, str) for text in texts) or "evaluation" not in cell.spec:
            raise Refused("its specification is not that of a cell")
    except (AttributeError, KeyError, TypeError):
        raise Refused("its specification is not that of a cell") from None
    if folder_name(cell.spec, cell.key) != name:
        raise Refused("its name is not that of its specification and key")
    return cell


def read_rows(path: Path) -> list[Row]:
    """The rows of a cell.

    Raises:
        Refused: they are not what this version writes.
    """
    held = read_plain(path)
    types = {field.name: field.type for field in fields(Row)}
    try:
        rows = [Row(**{**row, "value": as_float(row["value"])}) for row in held]
    except (KeyError, TypeError, OverflowError):
        raise Refused(f"{path.name} is not that of a cell") from None
    for row in rows:
        if any(type(value) is not types[name] for name, value in vars(row).items()):
            raise Refused(f"{path.name} is not that of a cell")
    return rows


def as_float(value: Any) -> float:
    if value is not None and type(value) not in (int, float):
        raise TypeError
    return math.nan if value is None else float(value)


def read_plain(path: Path) -> Any:
    """The content of a JSON file, all of whose text can be written again.

    Raises:
        Refused: it cannot be read or written.
    """
    try:
        held = read_json(path)
        json.dumps(held, ensure_ascii=False).encode()  # surrogates cannot
    except ValueError as error:
        raise Refused(f"{path.name}: {error}") from None
    return held


def is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def loads(path: Path) -> bool:
    """Whether a file has arrays that can be read without running code."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as held:
            return all(held[name].dtype.kind in "biuf" for name in held.files)
    except (AttributeError, EOFError, KeyError, OSError, ValueError, BadZipFile):
        return False


def files_of(folder: Path) -> list[Path]:
    """The files that a cell is known to have, within its folder, and no links."""
    files = [Path(name) for name in FILES if is_plain(folder / name)]
    for inner, suffix in INNER.items():
        if (folder / inner).is_dir() and not (folder / inner).is_symlink():
            held = sorted((folder / inner).glob(f"*{suffix}"))
            files += [path.relative_to(folder) for path in held if is_plain(path)]
    return files


def copy(folder: Path, cell: Cell, into: Store) -> bool:
    """Copy a cell, whole or not at all; False where another process did meanwhile.

    Raises:
        InputError: it cannot be copied.
    """
    try:
        with into.claimed(cell, wait=True), into.part(folder.name) as part:
            for file in files_of(folder):
                (part / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / file, part / file)
                times = (folder / file).stat()  # of several cells the one finished last counts
                os.utime(part / file, ns=(times.st_atime_ns, times.st_mtime_ns))
            return into.settle(part, cell)
    except Unwritable as error:
        raise InputError(f"{folder} cannot be copied to {into.path}: {error.__cause__}") from None


def held_rows(store: Store, cell: Cell) -> list[Row]:
    """The rows of a cell that ``store`` has.

    Raises:
        InputError: they are damaged.
    """
    try:
        return read_rows(store.folder(cell) / "metrics.json")
    except Refused as why:
        raise InputError(f"{store.folder(cell)} cannot be read: {why}") from None


def differences(kept: list[Row], other: list[Row]) -> list[tuple[str, Pair]]:
    """The numbers in which two copies of a cell differ, costs aside: metric and both values."""
    first, second = numbers(kept), numbers(other)
    found = []
    for name in {**first, **second}:
        a, b = first.get(name), second.get(name)
        if a != b and not (a is not None and b is not None and math.isnan(a) and math.isnan(b)):
            found.append((name, (a, b)))
    return found


def numbers(rows: list[Row]) -> dict[str, float]:
    """The values of a cell by metric and sampler, without what it cost."""
    return {
        f"{row.metric} of {row.sampler}" if row.sampler else row.metric: row.value
        for row in rows
        if row.family != "cost"
    }


def number(value: float | None) -> str:
    """A value to the last bit, in words where there is none."""
    return "missing" if value is None else "n/a" if math.isnan(value) else repr(value)


def printable(text: str) -> str:
    """``text`` without what a terminal would obey."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
