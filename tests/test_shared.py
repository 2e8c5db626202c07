"""What one process has loaded others map: equal to the last bit, and in memory once."""

import json
import multiprocessing
import pickle
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from aebench.benchmark import cell
from aebench.datasets import SPLITS, Dataset, Split, folder
from aebench.datasets.shared import adopt, fill, mapped, region_of, share, views
from PIL import Image
from standins import Held, Malicious, noise_images

MIB = 1 << 20


def refuse(self: Dataset) -> Any:
    raise AssertionError("it is loaded again")


def adopted(name: str, parameters: dict[str, Any], path: Path) -> tuple[Dataset, Dataset]:
    """A dataset and another of the same choice that has it from a file, which is gone by then."""
    whole, other = Dataset.make(name, parameters), Dataset.make(name, parameters)
    file = share(whole, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(other), "load", refuse)
        adopt(other, file)
        file.unlink()
        _ = other.splits
    return whole, other


def assert_same(one: Split, other: Split) -> None:
    assert type(one) is type(other)
    assert len(one) == len(other)
    index = torch.arange(len(one) - 1, -1, -3)
    torch.manual_seed(0)
    expected = one.images(), one.drawn(one.raw(index))
    torch.manual_seed(0)
    found = other.images(), other.drawn(other.raw(index))
    for a, b in (*zip(expected, found), (one.labels, other.labels), (one.factors, other.factors)):
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.fixture
def archive(tmp_path: Path) -> dict[str, str]:
    """Every combination of named factors, in a file."""
    factors = torch.cartesian_prod(torch.arange(5), torch.arange(4), torch.arange(6)).numpy()
    images = noise_images(120, 1, 4, 6).numpy()
    names = np.array(["a", "b", "c"])
    path = tmp_path / "a.npz"
    np.savez(path, images=images, labels=factors[:, 0], factors=factors, factor_names=names)
    return {"path": str(path)}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("digits", {"held_out": 3, "train": 50}),
        ("genotypes", {"individuals": 60, "size": 8}),
        ("sprites", {"size": 8, "train": 60, "val": 20, "test": 20}),
        ("npz", {"train": 30}),
    ],
)
def test_what_is_adopted_is_equal(
    name: str, parameters: dict[str, Any], tmp_path: Path, archive: dict[str, str]
) -> None:
    parameters = parameters | (archive if name == "npz" else {})
    whole, other = adopted(name, parameters, tmp_path)
    assert list(whole.splits) == list(other.splits)
    for split in whole.splits:
        assert_same(whole.split(split), other.split(split))
    for about in ("shape", "classes", "factor_names", "factor_sizes", "renders"):
        assert getattr(whole, about) == getattr(other, about)
    if whole.renders:
        factors = whole.split("test").factors
        assert factors is not None
        assert torch.equal(whole.render(factors), other.render(factors))
    if name == "genotypes":
        assert torch.equal(whole.proportions("val"), other.proportions("val"))  # type: ignore[attr-defined]
    assert other.hash == whole.hash
    del other.__dict__["hash"]  # once more, from what was adopted
    assert other.hash == whole.hash


@pytest.mark.parametrize("name", ["digits", "npz"])
def test_what_is_in_memory_is_viewed_there(name: str, archive: dict[str, str]) -> None:
    """As Ray hands it from process to process: a stream, and buffers that it does not copy."""
    parameters = {"train": 30} | (archive if name == "npz" else {})
    whole, other = Dataset.make(name, parameters), Dataset.make(name, parameters)
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(views(whole), protocol=5, buffer_callback=buffers.append)
    assert len(stream) < 10_000
    places = [np.frombuffer(buffer, np.uint8) for buffer in buffers]
    spans = sorted((place.ctypes.data, place.nbytes) for place in places)
    assert all(start + size <= after for (start, size), (after, _) in zip(spans, spans[1:]))
    held = pickle.loads(stream, buffers=[buffer.raw().toreadonly() for buffer in buffers])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(other), "load", refuse)
        fill(other, held)
        assert list(whole.splits) == list(other.splits)
    for split in whole.splits:
        assert_same(whole.split(split), other.split(split))
    images, there = whole.split("val").pixels, other.split("val").pixels
    assert images is not None
    assert there is not None
    assert there.data_ptr() == images.data_ptr()
    assert other.hash == whole.hash


def test_rendered_splits_are_rendered_by_the_dataset_that_adopts_them(tmp_path: Path) -> None:
    parameters = {"size": 64}  # too many to be drawn at once
    whole, other = adopted("sprites", parameters, tmp_path)
    assert other.split("train").pixels is None
    assert other.split("train").render == other.render
    index = torch.tensor([5, 100_000])
    assert torch.equal(whole.split("train").images(index), other.split("train").images(index))


class Learns(Held):
    """What loading it finds out is an attribute of its own."""

    def load(self) -> dict[Any, Split]:
        self.mean = self.given.images().double().mean()
        return super().load()


def test_what_loading_leaves_is_adopted(tmp_path: Path) -> None:
    one, other = (Learns(noise_images(20, 1, 3, 3, seed=seed)) for seed in (0, 1))
    adopt(other, share(one, tmp_path))
    assert other.mean == one.mean


def test_a_split_shares_its_images_with_the_others(tmp_path: Path) -> None:
    whole = Held(noise_images(300, 3, 32, 32), torch.arange(300) % 3, held_out=1)
    assert share(whole, tmp_path).stat().st_size < 1.1 * whole.given.nbytes


def test_what_is_written_to_an_adopted_tensor_stays_there(tmp_path: Path) -> None:
    whole = Dataset.make("digits")
    file = share(whole, tmp_path)
    file.chmod(0o444)
    before = file.read_bytes()
    first, second = Dataset.make("digits"), Dataset.make("digits")
    for dataset in (first, second):
        adopt(dataset, file)
    pixels = first.split("train").pixels
    assert pixels is not None
    pixels.fill_(7)
    assert torch.equal(second.split("train").images(), whole.split("train").images())
    assert file.read_bytes() == before


def test_a_file_of_a_stranger_runs_no_code(tmp_path: Path) -> None:
    torch.save({"whole": Malicious(tmp_path / "done")}, tmp_path / "a.pt")
    with pytest.raises(pickle.UnpicklingError):
        adopt(Dataset.make("digits"), tmp_path / "a.pt")
    assert not (tmp_path / "done").exists()


def test_a_mapped_file_is_named_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "HELD_BYTES", 1000)
    monkeypatch.setenv("AEBENCH_CACHE", str(tmp_path / "cache"))
    for i, image in enumerate(noise_images(60, 64, 64, 3).numpy()):
        path = tmp_path / "images" / SPLITS[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    whole = Dataset.make("folder", {"path": str(tmp_path / "images")})
    file = share(whole, tmp_path)
    assert file.stat().st_size < 20_000 < whole.split("test").nbytes
    other = Dataset.make("folder", {"path": str(tmp_path / "images")})
    monkeypatch.setattr(folder.Folder, "load", refuse)
    adopt(other, file)
    for name in SPLITS:
        assert_same(whole.split(name), other.split(name))
        pixels = other.split(name).pixels
        assert pixels is not None
        region = region_of(pixels)
        assert region is not None
        assert torch.equal(mapped(region), pixels)
    assert views(whole) is None


def test_a_tensor_in_memory_is_no_region() -> None:
    assert region_of(torch.zeros(3, dtype=torch.uint8)) is None


def test_a_worker_takes_the_datasets_that_are_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"train": 31, "val": 11, "test": 12}
    choice = {"name": "digits", "parameters": parameters}
    file = share(Dataset.make("digits", parameters), tmp_path)
    key = json.dumps(choice, sort_keys=True)
    cell.held_dataset.cache_clear()
    monkeypatch.setitem(cell.shared, key, file)
    with monkeypatch.context() as patch:
        patch.setattr(Dataset.choose("digits"), "load", refuse)
        held = cell.dataset_of({"dataset": choice})
        assert len(held.split("train")) == 31
    cell.held_dataset.cache_clear()
    file.unlink()  # a file that is gone costs time, not the cell
    again = cell.dataset_of({"dataset": choice})
    assert_same(held.split("train"), again.split("train"))


# Memory.


def memory() -> dict[str, int]:
    """The bytes of this process by kind: ``Pss`` counts a page shared by n processes as 1/n."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}


def read_all(pipe: Connection, path: str, file: str) -> None:
    """A worker: load or adopt a dataset, look at all its images, then tell how memory grew."""
    dataset = Dataset.make("npz", {"path": path})
    before = memory()
    if file:
        adopt(dataset, Path(file))
    total = sum(int(x.sum()) for name in SPLITS for x, _ in dataset.split(name).batches(4))
    pipe.send(total)
    pipe.recv()  # until all have read theirs
    after = memory()
    pipe.send({kind: after[kind] - before[kind] for kind in before})
    pipe.recv()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, int, int]]:
    """An archive, the file by which it is shared, its bytes and the sum of them."""
    path = tmp_path_factory.mktemp("large")
    images = noise_images(2048, 1, 256, 256).numpy()
    np.savez(path / "a.npz", images=images)
    dataset = Dataset.make("npz", {"path": str(path / "a.npz")})
    yield str(path / "a.npz"), str(share(dataset, path)), images.nbytes, int(images.sum())


def growth(path: str, file: str, workers: int, total: int) -> list[dict[str, int]]:
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(workers):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=read_all, args=(theirs, path, file), daemon=True))
        processes[-1].start()
        pipes.append(ours)
    assert [pipe.recv() for pipe in pipes] == [total] * workers
    for pipe in pipes:
        pipe.send(None)
    found = [pipe.recv() for pipe in pipes]
    for pipe, process in zip(pipes, processes):
        pipe.send(None)
        process.join()
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_workers_hold_one_copy(large: tuple[str, str, int, int]) -> None:
    path, file, size, total = large
    (alone,) = growth(path, "", 1, total)
    assert alone["Anonymous"] > 0.9 * size  # what sharing is to spare
    shared = growth(path, file, 2, total)
    assert all(kinds["Anonymous"] < 0.5 * size for kinds in shared)
    assert all(kinds["Pss_File"] < 0.75 * size for kinds in shared)  # half each
