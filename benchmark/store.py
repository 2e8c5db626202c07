"""The store: the folder of finished cells, written atomically and read back."""

import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout

from ..plugins import InputError, suggestion
from ..seeds import digest
from .across import across_seeds
from .grid import Cell, folder_name
from .provenance import versions
from .rows import COLUMNS, DETAILS, Row

if TYPE_CHECKING:
    import pandas as pd

    from ..models import Autoencoder
    from .train import Trained

FORMAT = 1
FOLDERS = ("cells", "failed", "under_way", "across", "trained", "claims")
OF_A_CELL = ("dataset", "model", "hyperparameters", "backbone", "seed", "cell")
"""The columns that all rows of a cell share, in the order that rows are sorted by."""


class Unwritable(Exception):
    """The store cannot be written: its disk is full, or it is read-only."""


class Counting(NamedTuple):
    """A cell whose rows count, with its folder; a failed one has none, but what went wrong."""

    cell: Cell
    folder: Path | None
    error: str = ""


class Store:
    """A folder of finished cells.

    ``cells/<name>/`` has a finished cell: ``cell.json`` (specification and provenance),
    ``metrics.json``, ``history.json``, ``checkpoint.pt``, ``pictures/``, and in ``kept/`` the
    arrays that are compared across seeds; ``across/`` has what was found by comparing them, and
    ``trained/<key>`` the name of a cell whose checkpoint is that of this training;
    ``trained/<key>.pt`` is one that no cell has yet.
    ``failed/<name>.json`` has what became of a cell that failed. Everything is written under
    ``under_way/`` first and renamed, so whatever stands elsewhere is whole. What is under way is
    its writer's by the lock of the same name in ``claims/``, on a folder that machines share too.
    Links in a store are not followed: it may be a stranger's.

    Args:
        path: the folder; with ``create`` it is made where it is missing.

    Raises:
        InputError: it is no store, is one of another format, or may not be written.
    """

    def __init__(self, path: str | Path, create: bool = False) -> None:
        self.path = Path(path).expanduser()
        self.cells, self.failed = self.path / "cells", self.path / "failed"
        self.under_way = self.path / "under_way"
        marker = self.path / "store.json"
        try:
            if create:
                for folder in FOLDERS:
                    (self.path / folder).mkdir(parents=True, exist_ok=True)
                with self.locked("store"):
                    if not marker.exists():
                        about = {"format": FORMAT, "aebench": versions()["aebench"]}
                        self.write_text("store.json", json.dumps(about))
            held = json.loads(marker.read_text(encoding="utf-8"))
        except Unwritable as error:
            raise InputError(str(error)) from None
        except (OSError, ValueError) as error:
            if isinstance(error, FileNotFoundError) and not create:
                raise InputError(f"{self.path} is not a folder of results of a run") from None
            raise InputError(f"{self.path} cannot be used: {error}") from None
        if not isinstance(held, dict) or held.get("format") != FORMAT:
            made = held.get("format") if isinstance(held, dict) else held
            raise InputError(
                f"{self.path} has results in format {made!r}, this version of aebench reads "
                f"format {FORMAT}: use another folder"
            )

    def clean(self) -> None:
        """Remove what processes left that were killed, of this machine or another.

        Raises:
            Unwritable: the system refuses.
        """
        for name in {*os.listdir(self.under_way), *os.listdir(self.path / "claims")}:
            with self.locked(name, wait=False) as dead:
                if dead:
                    with self.part(name):
                        pass  # which removes it

    @contextmanager
    def locked(self, name: str, wait: bool = True) -> Iterator[bool]:
        """Whether the lock called ``name`` is this process's while the context lasts.

        The system takes it back from a process that ends, however it ends.

        Args:
            name: a file's name.
            wait: wait for another process that has it.

        Raises:
            Unwritable: the system refuses.
        """
        lock = FileLock(self.path / "claims" / name)
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise self.unwritable(error) from error
        try:
            yield True
        finally:
            with suppress(OSError):
                os.unlink(lock.lock_file)
            lock.release()

    @contextmanager
    def part(self, name: str) -> Iterator[Path]:
        """Where ``name`` is written before it is whole; nothing stays of it if the system refuses.

        What a dead process left there is removed. The lock of that name must be held.

        Raises:
            Unwritable: the system refuses.
        """
        part = self.under_way / name
        try:
            remove(part)
            yield part
        except OSError as error:
            with suppress(OSError):
                remove(part)
            raise self.unwritable(error) from error

    def unwritable(self, error: OSError) -> Unwritable:
        return Unwritable(f"{self.path} cannot be written: {error.strerror or error}")

    def folder(self, cell: Cell) -> Path:
        """Where ``cell`` lies once it is finished."""
        return self.cells / folder_name(cell.spec, cell.key)

    def has(self, cell: Cell) -> bool:
        """Whether ``cell`` is finished."""
        return self.folder(cell).is_dir()

    def missing(self, cells: list[Cell]) -> list[Cell]:
        """Those of ``cells`` that are not finished, in their order."""
        finished = set(os.listdir(self.cells))
        return [cell for cell in cells if folder_name(cell.spec, cell.key) not in finished]

    def claimed(self, cell: Cell, wait: bool = False) -> AbstractContextManager[bool]:
        """Whether ``cell`` is this process's to run while the context lasts: see :meth:`locked`."""
        return self.locked(folder_name(cell.spec, cell.key), wait)

    def write(
        self,
        cell: Cell,
        rows: list[Row],
        kept: Mapping[str, Mapping[str, Any]],
        trained: "Trained",
        state: Mapping[str, Any],
        pictures: Mapping[str, Any],
        provenance: Mapping[str, Any],
    ) -> None:
        """Write a finished cell, whole or not at all.

        Args:
            cell: the cell, claimed.
            rows: its numbers.
            kept: arrays by metric and name that are compared across seeds.
            trained: what the training left.
            state: the weights.
            pictures: uint8 arrays (H, W, 3) by name.
            provenance: versions, device and what else a reader may ask; its ``about``, what the
                model says of itself, stands in ``cell.json`` beside it.

        Raises:
            Unwritable: the system refuses.
        """
        import numpy as np
        from PIL import Image

        name = folder_name(cell.spec, cell.key)
        costs = {k: v for k, v in vars(trained).items() if k != "history"}
        about = {
            "key": cell.key,
            "spec": cell.spec,
            "about": provenance.get("about", {}),
            "provenance": {k: v for k, v in provenance.items() if k != "about"},
            "trained": costs,
        }
        with self.part(name) as part:
            (part / "pictures").mkdir(parents=True)
            (part / "checkpoint.pt").write_bytes(saved(dict(state)))
            for metric, arrays in kept.items():
                (part / "kept").mkdir(exist_ok=True)
                np.savez_compressed(part / "kept" / f"{metric}.npz", **arrays)
            for title, picture in pictures.items():
                safe = re.sub(r"[^\w.,=()-]+", "-", title)[:100]
                Image.fromarray(picture).save(part / "pictures" / f"{safe}.png")
            for file, content in (
                ("cell.json", about),
                ("history.json", trained.history),
                ("metrics.json", [vars(row) for row in rows]),
            ):
                (part / file).write_text(to_json(content), encoding="utf-8")
            self.settle(part, cell)
        self.name_trained(provenance["training_key"], name)

    def settle(self, part: Path, cell: Cell) -> bool:
        """Make the folder ``part``, under way, the finished ``cell``; False where it was there."""
        target, is_new = self.folder(cell), True
        try:
            part.rename(target)
        except OSError:
            if not target.is_dir():  # else another run finished the same cell first
                raise
            shutil.rmtree(part)
            is_new = False
        self.failure(cell).unlink(missing_ok=True)
        return is_new

    def name_trained(self, training_key: str, name: str) -> None:
        """Note that the cell in the folder called ``name`` has the training of this key.

        Raises:
            Unwritable: the system refuses.
        """
        self.write_text(f"trained/{training_key}", name)
        with suppress(OSError):
            self.training_file(training_key).unlink(missing_ok=True)

    def write_training(
        self, training_key: str, trained: "Trained", state: Mapping[str, Any]
    ) -> None:
        """Write a training before a cell has it: what goes wrong in scoring does not lose it.

        Args:
            training_key: the key of the training.
            trained: what it left.
            state: the weights.

        Raises:
            Unwritable: the system refuses.
        """
        held = {"trained": vars(trained), "state": dict(state)}
        self.write_bytes(f"trained/{self.training_file(training_key).name}", saved(held))

    def training_file(self, training_key: str) -> Path:
        """Where a training lies that no cell has yet."""
        return self.path / "trained" / f"{training_key}.pt"

    def trained(self, training_key: str, model: "Autoencoder") -> "Trained | None":
        """What an earlier training of this key left; its weights are loaded into ``model``.

        None where there is none, or it cannot be read.
        """
        import torch

        from .train import Trained

        def of_a_cell() -> tuple[dict[str, Any], dict[str, Any]]:
            folder = self.of_training(training_key)
            costs = read_json(folder / "cell.json")["trained"]
            history = read_json(folder / "history.json")
            state = torch.load(unlinked(folder / "checkpoint.pt"), weights_only=True)
            return costs | {"history": history}, state

        def of_no_cell() -> tuple[dict[str, Any], dict[str, Any]]:
            held = torch.load(unlinked(self.training_file(training_key)), weights_only=True)
            return held["trained"], held["state"]

        for read in (of_a_cell, of_no_cell):
            with suppress(Exception):
                trained, state = read()
                model.load_state_dict(state)
                return Trained(**trained)
        return None

    def of_training(self, training_key: str) -> Path:
        """The folder of a finished cell whose checkpoint is that of the training of this key.

        Raises:
            OSError: there is none.
            InputError: what stands there leads elsewhere.
        """
        name = unlinked(self.path / "trained" / training_key).read_text(encoding="utf-8")
        if name != Path(name).name:
            raise InputError(f"{self.path / 'trained' / training_key} leads out of the store")
        return unlinked(self.cells / name)

    def failure(self, cell: Cell) -> Path:
        """Where it is written what became of ``cell`` if it failed."""
        return self.failed / f"{folder_name(cell.spec, cell.key)}.json"

    def fail(self, cell: Cell, message: str) -> None:
        """Write down that ``cell`` failed, and why, in one line.

        Raises:
            Unwritable: the system refuses.
        """
        about = {"key": cell.key, "spec": cell.spec, "error": " ".join(message.split())[:1000]}
        self.write_text(f"failed/{self.failure(cell).name}", to_json(about))

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the store by its path in it, whole or not at all.

        Raises:
            Unwritable: the system refuses.
        """
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: "bytes | memoryview") -> None:
        """As :meth:`write_text`."""
        last = Path(name).name
        with self.locked(last), self.part(last) as part:
            part.write_bytes(content)
            part.replace(self.path / name)

    def finished(self) -> Iterator[tuple[Cell, Path]]:
        """Every finished cell with its folder, by name.

        Raises:
            InputError: one cannot be read, or its folder is not the one of what it says.
        """
        for folder in sorted(self.cells.iterdir()):
            about = read_json(unlinked(folder) / "cell.json")
            try:
                cell = Cell(about["spec"], about["key"])
                named = folder_name(cell.spec, cell.key)
            except (KeyError, TypeError):
                named = ""
            if named != folder.name:
                raise InputError(f"{folder / 'cell.json'} is not that of this cell")
            yield cell, folder

    def find(self, name: str) -> tuple[Cell, Path]:
        """The finished cell whose folder's name or key begins with ``name``.

        Raises:
            InputError: none does, or several do.
        """
        found = {}
        for cell, folder in self.finished():
            if folder.name == name or cell.key == name:
                return cell, folder
            if name and (folder.name.startswith(name) or cell.key.startswith(name)):
                found[folder.name] = (cell, folder)
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise InputError(f"{name!r} is the beginning of several cells: {', '.join(found)}")
        names = [folder.name for _, folder in self.finished()]
        raise InputError(f"no cell {name!r} in {self.path}{suggestion(name, names)}")

    def rows(self, planned: list[Cell] | None = None) -> "pd.DataFrame":
        """The rows of the cells that count, finished and failed: ``COLUMNS`` and ``DETAILS``.

        Args:
            planned: as for :meth:`counting`.
        """
        return self.rows_of(self.counting(planned))

    def counting(self, planned: list[Cell] | None = None) -> list[Counting]:
        """The cells that count, a training each.

        Where several are of one training (scored otherwise, or made by other code or versions) the
        planned one counts, or else the one finished last. A failed cell counts where none finished.

        Args:
            planned: the cells of a grid.
        """
        wanted = {cell.key for cell in planned or []}
        latest: dict[str, tuple[bool, float, Counting]] = {}
        for cell, folder in self.finished():
            finished = (folder / "cell.json").stat().st_mtime
            entry = (cell.key in wanted, finished, Counting(cell, folder))
            identity = training_of(cell)
            if identity not in latest or entry[:2] > latest[identity][:2]:
                latest[identity] = entry
        for path in sorted(self.failed.glob("*.json")):
            about = read_json(path)
            failed = Counting(Cell(about["spec"], about["key"]), None, about["error"])
            latest.setdefault(training_of(failed.cell), (False, 0.0, failed))
        return [counting for *_, counting in latest.values()]

    def rows_of(self, counting: list[Counting]) -> "pd.DataFrame":
        """The rows of ``counting``."""
        compared = across_seeds(self, [found.cell for found in counting])
        held = []
        for cell, folder, error in counting:
            if folder is None:
                failed = Row("failed", math.nan, family="status", note=error)
                held.append((cell, [vars(failed)]))
            else:
                own = read_json(folder / "metrics.json")
                held.append((cell, [*own, *compared.get(cell.key, [])]))
        return frame(held)


def frame(cells: Iterable[tuple[Cell, Iterable[Mapping[str, Any]]]]) -> "pd.DataFrame":
    """The rows of cells, each with its own, as one table in the order of :func:`columns_of`.

    Args:
        cells: every cell with its rows, as dicts of the fields of :class:`Row`.
    """
    import pandas as pd

    columns: dict[str, list[Any]] = {name: [] for name in [*COLUMNS, *DETAILS]}
    of_cell = [columns[name] for name in OF_A_CELL]
    of_row = [(columns[f.name], f.name, f.default) for f in fields(Row) if f.name != "value"]
    ordered = sorted(((columns_of(cell), held) for cell, held in cells), key=lambda entry: entry[0])
    for description, held in ordered:
        rows = list(held)
        for column, value in zip(of_cell, description):
            column += [value] * len(rows)
        columns["value"] += [math.nan if r["value"] is None else float(r["value"]) for r in rows]
        for column, name, default in of_row:
            column += [row.get(name, default) for row in rows]  # older stores lack some
    return pd.DataFrame(columns)


def columns_of(cell: Cell) -> tuple[str, str, str, str, int, str]:
    """What every row of a cell has of it: the columns ``OF_A_CELL``."""
    name = folder_name(cell.spec, cell.key)
    settings = hyperparameters(cell.spec)
    return cell.dataset, cell.model, settings, cell.backbone, cell.seed, name


def training_of(cell: Cell) -> str:
    """What cells share that differ in their evaluation alone."""
    return digest({name: held for name, held in cell.spec.items() if name != "evaluation"})


def saved(held: Mapping[str, Any]) -> memoryview:
    """The bytes of ``torch.save``, which does not say itself what the system refused to write."""
    import torch

    content = io.BytesIO()
    torch.save(held, content)
    return content.getbuffer()


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unlinked(path: Path) -> Path:
    """``path``, which is no link: what a stranger's store links to is not its own.

    Raises:
        InputError: it is one.
    """
    if path.is_symlink():
        raise InputError(f"{path} is a link, and links in a store are not followed")
    return path


def to_json(content: Any) -> str:
    """``content`` as JSON, numbers that are not finite as null."""

    def clean(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, Mapping):
            return {k: clean(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [clean(v) for v in value]
        return value

    return json.dumps(clean(content), indent=1, allow_nan=False)


def unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read: {error}; remove its cell to run it again")


def read_json(path: Path) -> Any:
    """The content of a JSON file of a store.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return json.loads(unlinked(path).read_text(encoding="utf-8"))
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, error) from None


def hyperparameters(spec: Mapping[str, Any]) -> str:
    """A cell's hyper-parameters and its training budget, as compact JSON."""
    budget = {f"training.{key}": value for key, value in spec["training"].items()}
    held = spec["model"]["hyperparameters"] | budget
    return json.dumps(held, sort_keys=True, separators=(",", ":"))
