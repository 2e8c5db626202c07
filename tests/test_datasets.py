"""Every dataset keeps the contract; the renderer and the readers do what they say."""

import gzip
import hashlib
import http.server
import itertools
import multiprocessing
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from aebench.benchmark.metrics import Fitted
from aebench.benchmark.metrics.base import canonical_order
from aebench.datasets import SPLITS, Dataset, Split, base, folder
from aebench.datasets.folder import Folder
from aebench.datasets.idx import IdxFile, Mnist
from aebench.datasets.shared import region_of
from aebench.datasets.sprites import Sprites
from aebench.datasets.static_mnist import AmatFile, StaticMnist
from aebench.models.samplers.prior import Prior
from aebench.plugins import InputError
from PIL import Image
from standins import Held, Pixels, normed_vae
from torch import Tensor

Arrays = dict[str, np.ndarray]
SIZES = {"train": 40, "val": 10, "test": 20}


def refusal(name: str, **parameters: Any) -> str:
    """The one line with which a dataset refuses to load."""
    with pytest.raises(InputError) as caught:
        _ = Dataset.make(name, parameters).splits
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Files to read, each image unlike the others.


def noise(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def save_npz(path: Path, **arrays: Any) -> dict[str, str]:
    np.savez(path, **arrays)
    return {"path": str(path)}


def grid_arrays() -> Arrays:
    """Every combination of 2 × 3 × 5 factors, shuffled, with gaps between their values."""
    factors = np.array(list(itertools.product(range(2), range(3), range(5))))
    order = np.random.default_rng(1).permutation(len(factors))
    return {"images": noise(30, 4, 6), "factors": factors[order] * 10 + 3}


def save_images(root: Path, images: np.ndarray, folders: tuple[str, ...] = ("",)) -> None:
    for i, image in enumerate(images):
        folder = root / folders[i % len(folders)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:03}.png")


def idx(array: np.ndarray) -> bytes:
    lengths = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes()


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """MNIST shrunk to 60 + 20 images that are nowhere yet: the contents of its files by name."""
    arrays = {
        "train-images-idx3-ubyte": noise(60, 28, 28),
        "train-labels-idx1-ubyte": np.arange(60, dtype=np.uint8) % 10,
        "t10k-images-idx3-ubyte": noise(20, 28, 28, seed=1),
        "t10k-labels-idx1-ubyte": np.arange(20, dtype=np.uint8) % 10,
    }
    contents = {name: idx(array) for name, array in arrays.items()}
    files = tuple(
        IdxFile(name, array.shape, (hashlib.sha256(contents[name]).hexdigest(),))
        for name, array in arrays.items()
    )
    monkeypatch.setattr(Mnist, "files", files)
    monkeypatch.setattr(Mnist, "val_size", 10)
    monkeypatch.setattr(Mnist, "mirrors", ())
    monkeypatch.setenv("AEBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("AEBENCH_CACHE", str(tmp_path / "cache"))
    return contents


def place(folder: Path, contents: dict[str, bytes], *, packed: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.fixture(params=["digits", "genotypes", "lines", "sprites", "npz", "folder", "mnist"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Dataset]:
    """What makes a dataset, given its limits."""
    parameters: dict[str, Any] = {}
    if request.param == "sprites":
        parameters = {"size": 16} | SIZES
    elif request.param == "npz":
        parameters = save_npz(
            tmp_path / "a.npz",
            images=noise(200, 3, 8, 8),
            labels=np.arange(200) % 7,
            factors=np.stack([np.arange(200) % 7, np.arange(200) % 4], 1),
        )
    elif request.param == "folder":
        save_images(tmp_path / "images", noise(200, 8, 8, 3), ("cat", "dog"))
        parameters = {"path": str(tmp_path / "images")}
    elif request.param == "mnist":
        place(tmp_path / "data" / "mnist", request.getfixturevalue("mnist"))
    return lambda **limits: Dataset.make(request.param, parameters | limits)


# The contract.


def test_splits_are_disjoint_and_well_formed(make: Callable[..., Dataset]) -> None:
    dataset = make()
    seen: list[bytes] = []
    for name in SPLITS:
        split = dataset.split(name)
        images = split.images()
        assert images.dtype == torch.uint8
        assert images.shape == (len(split), *dataset.shape)
        assert len(split) > 0
        assert split.labels is not None
        assert split.labels.dtype == torch.int64
        assert split.labels.shape == (len(split),)
        assert split.labels.min() >= 0
        assert split.labels.max() < dataset.classes
        if split.factors is not None:
            sizes = torch.tensor(dataset.factor_sizes)
            assert split.factors.dtype == torch.int64
            assert split.factors.shape == (len(split), len(dataset.factor_names))
            assert ((split.factors >= 0) & (split.factors < sizes)).all()
        batches = list(split.batches(7))
        assert torch.equal(torch.cat([x for x, _ in batches]), images)
        keys = split.factors if dataset.name == "sprites" else images
        assert keys is not None
        seen += [row.numpy().tobytes() for row in keys]
    if dataset.name not in ("digits", "lines"):  # which have some images twice
        assert len(set(seen)) == len(seen)


def test_limits_keep_the_first_images(make: Callable[..., Dataset]) -> None:
    whole, limited = make(), make(train=9, val=2, test=5)
    for name, n in (("train", 9), ("val", 2), ("test", 5)):
        part = limited.splits[name]
        assert len(part) == n
        assert torch.equal(part.images(), whole.splits[name].images(slice(n)))
        assert part.labels is not None
        assert torch.equal(part.labels, whole.splits[name].labels[:n])
    assert limited.classes == whole.classes
    assert limited.factor_sizes == whole.factor_sizes


def test_hash_is_of_the_content(make: Callable[..., Dataset]) -> None:
    first, second = make(), make()
    _ = second.splits  # what was read before must not matter
    assert re.fullmatch("[0-9a-f]{16}", first.hash)
    assert first.hash == second.hash
    assert len({first.hash, make(train=9).hash, make(test=5).hash}) == 3


def test_limits_below_one_are_refused(make: Callable[..., Dataset]) -> None:
    with pytest.raises(InputError, match="val must be 1 or more, not 0"):
        make(val=0)


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    splits = Dataset.make("digits").splits
    assert [len(splits[name]) for name in SPLITS] == [1258, 180, 359]
    images = torch.cat([splits[name].images() for name in SPLITS]).double()
    labels = torch.cat([splits[name].labels for name in SPLITS])
    held = load_digits()
    mine = sorted(zip(labels.tolist(), (images * 16 / 255).round().flatten(1).tolist()))
    assert mine == sorted(zip(held.target.tolist(), held.data.tolist()))
    assert images.max() == 255


# Sprites.


def draw(*rows: tuple[int, ...], size: int = 64) -> Tensor:
    return Sprites(size=size).render(torch.tensor(rows)).double()[:, 0]


def centres(images: Tensor) -> Tensor:
    """The centre of mass (x, y) of images (n, H, W), in pixels."""
    middle = torch.arange(images.shape[-1]) + 0.5
    mass = images.sum((1, 2))
    return torch.stack([(images.sum(axis) * middle).sum(1) / mass for axis in (1, 2)], 1)


@pytest.mark.parametrize("size", [8, 32, 64])
def test_a_sprite_does_not_depend_on_its_batch(size: int) -> None:
    sprites = Sprites(size=size)
    generator = torch.Generator().manual_seed(0)
    top = torch.tensor(sprites.factor_sizes)
    factors = (torch.rand(300, 5, generator=generator) * top).long()
    together = sprites.render(factors)
    alone = torch.cat([sprites.render(row) for row in factors.split(1)])
    assert torch.equal(together, alone)
    assert torch.equal(sprites.render(factors.flip(0)).flip(0), together)
    assert sprites.render(factors[:0]).shape == (0, 1, size, size)


@pytest.mark.parametrize("shape", range(3))
@pytest.mark.parametrize("size", [16, 64])
def test_position_is_the_centre_of_mass(shape: int, size: int) -> None:
    for axis in (0, 1):
        rows = [(shape, 4, 7, *((i, 11) if axis == 0 else (11, i))) for i in range(32)]
        found = centres(draw(*rows, size=size))
        steps = found.diff(dim=0)
        expected = (size - 2 * (size * 15 / 64 + 1.25)) / 31
        assert (steps[:, axis] > 0).all()
        assert torch.allclose(steps[:, axis].mean(), torch.tensor(expected).double(), rtol=0.02)
        assert (found[:, 1 - axis] - found[0, 1 - axis]).abs().max() < 0.05


@pytest.mark.parametrize("shape", range(3))
def test_a_turn_leaves_the_centre_in_place(shape: int) -> None:
    found = centres(draw(*[(shape, 5, o, 16, 16) for o in range(40)]))
    assert (found - found.mean(0)).abs().max() < 0.1


@pytest.mark.parametrize("shape", range(3))
def test_scale_sets_the_area(shape: int) -> None:
    areas = draw(*[(shape, s, 3, 16, 16) for s in range(6)]).sum((1, 2))
    assert (areas.diff() > 0).all()
    assert areas[5] / areas[0] == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize("size", [8, 32, 64])
def test_no_sprite_touches_the_border(size: int) -> None:
    corners = [
        (shape, 5, o, x, y)
        for shape, o, x, y in itertools.product(range(3), range(40), (0, 31), (0, 31))
    ]
    images = draw(*corners, size=size)
    edges = torch.cat([images[:, [0, -1]].flatten(1), images[:, :, [0, -1]].flatten(1)], 1)
    assert edges.max() == 0
    assert images.flatten(1).amax(1).min() > 200


@pytest.mark.parametrize(("shape", "order"), [(0, 4), (1, 2), (2, 1)])
def test_symmetry_of_the_shapes(shape: int, order: int) -> None:
    turns = draw(*[(shape, 5, o, 9, 20) for o in range(40)])
    for step in (10, 20):
        apart = (turns - turns.roll(step, 0)).abs()
        if step * order % 40 == 0:
            assert apart.max() <= 1
        else:
            assert apart.flatten(1).sum(1).min() > 255 * 20
    within = turns[: 40 // order].flatten(1)
    assert len({row.numpy().tobytes() for row in within}) == len(within)


def test_edges_are_one_pixel_wide() -> None:
    image = draw((0, 5, 3, 16, 16))[0] / 255
    grey = ((image > 0.02) & (image < 0.98)).sum()
    perimeter = 4 * 15 * 2**0.5
    assert image.max() == 1
    assert 0.7 * perimeter < grey < 1.6 * perimeter


def test_area_is_that_of_the_shape() -> None:
    areas = draw(*[(shape, 5, 3, 16, 16) for shape in range(3)]).sum((1, 2)) / 255
    expected = torch.tensor([2.0, torch.pi / 2, 2.0704]).double() * 15**2
    assert torch.allclose(areas, expected, rtol=0.02)


def test_the_whole_grid_is_drawn_on_demand() -> None:
    sprites = Sprites(test=50)
    train, test = sprites.split("train"), sprites.split("test")
    assert sprites.factor_sizes == (3, 6, 40, 32, 32)
    assert sprites.classes == 3
    assert sprites.renders
    assert sum(map(len, sprites.whole.values())) == 3 * 6 * 40 * 32 * 32
    assert train.pixels is None
    assert test.pixels is not None
    assert train.factors is not None
    assert test.factors is not None
    index = torch.tensor([500_000, 3])
    assert torch.equal(train.images(index), sprites.render(train.factors[index]))
    assert torch.equal(test.images(), sprites.render(test.factors))
    assert torch.equal(train.labels, train.factors[:, 0])
    flat = torch.cat([split.factors for split in sprites.whole.values()]) @ torch.tensor(
        [6 * 40 * 32 * 32, 40 * 32 * 32, 32 * 32, 32, 1]
    )
    assert torch.equal(flat.sort().values, torch.arange(len(flat)))


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (torch.tensor([[0, 6, 0, 0, 0]]), "factor 'scale' has no value 6; valid: 0 to 5"),
        (torch.tensor([[0, 0, 0, 0, -1]]), "factor 'y' has no value -1; valid: 0 to 31"),
        (torch.zeros(2, 4, dtype=torch.int64), r"int64 \(n, 5\), not int64 \(2, 4\)"),
        (torch.zeros(2, 5), r"not float32 \(2, 5\)"),
    ],
)
def test_sprites_refuse_other_factors(factors: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sprites().render(factors)


def test_sprites_refuse_other_sizes() -> None:
    assert "8 to 256, not 7" in refusal("sprites", size=7)


# IDX files.


def arrays_of(split: Split) -> tuple[np.ndarray, np.ndarray]:
    assert split.labels is not None
    return split.images().numpy(), split.labels.numpy()


def check_is_mnist(contents: dict[str, bytes]) -> Dataset:
    dataset = Dataset.make("mnist")
    images, labels = arrays_of(dataset.split("test"))
    assert images.tobytes() == contents["t10k-images-idx3-ubyte"][16:]
    assert labels.astype(np.uint8).tobytes() == contents["t10k-labels-idx1-ubyte"][8:]
    parts = [arrays_of(dataset.split(name)) for name in ("train", "val")]
    assert [len(labels) for _, labels in parts] == [50, 10]
    held = {image.tobytes(): label for part in parts for image, label in zip(*part)}
    official = noise(60, 28, 28)
    assert [held[image.tobytes()] for image in official] == [i % 10 for i in range(60)]
    return dataset


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("folder", ["data/mnist", "data", "cache/data/mnist"])
def test_idx_files_are_found(
    folder: str, packed: bool, mnist: dict[str, bytes], tmp_path: Path
) -> None:
    place(tmp_path / folder, mnist, packed=packed)
    check_is_mnist(mnist)


def test_idx_files_are_found_by_their_other_spelling(
    mnist: dict[str, bytes], tmp_path: Path
) -> None:
    spelt = {name.replace("-idx", ".idx"): content for name, content in mnist.items()}
    place(tmp_path / "data", spelt, packed=False)
    check_is_mnist(mnist)


IMAGES = "train-images-idx3-ubyte"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b"\0\0\x0d" + b[3:], "is not an IDX file of 3 axes: it begins with 00000d03"),
        (lambda b: b"", "begins with nothing"),
        (lambda b: b[:9], "is cut short: 9 bytes"),
        (lambda b: b[:-5], "has 47051 bytes where its header says 47056"),
        (lambda b: b[:4] + b"\0\0\0\x01" + b[8:], r"shape (1, 28, 28), not (60, 28, 28)"),
        (lambda b: b[:-1] + bytes([b[-1] ^ 1]), "is not the published file"),
        (lambda b: gzip.compress(b)[:-99], "is a damaged gzip file"),
        (lambda b: gzip.compress(b)[:50] + b"\xff" * 500, "is a damaged gzip file"),
    ],
)
def test_a_damaged_idx_file_is_named(
    damage: Callable[[bytes], bytes], message: str, mnist: dict[str, bytes], tmp_path: Path
) -> None:
    place(tmp_path / "data" / "mnist", mnist | {IMAGES: damage(mnist[IMAGES])}, packed=False)
    said = refusal("mnist")
    assert f"{tmp_path}/data/mnist/{IMAGES} " in said
    assert message in said


def test_hashes_of_the_compressed_file_and_of_git_count_too(tmp_path: Path) -> None:
    content = idx(np.arange(6, dtype=np.uint8).reshape(2, 3))
    packed = gzip.compress(content)
    plain, zipped = tmp_path / "a", tmp_path / "a.gz"
    plain.write_bytes(content)
    zipped.write_bytes(packed)
    # git hash-object a
    by_git = IdxFile("a", (2, 3), (hashlib.sha1(b"blob 18\0" + content).hexdigest(),))
    by_gzip = IdxFile("a", (2, 3), (hashlib.sha256(packed).hexdigest(),))
    assert by_git.read(plain).tolist() == by_git.read(zipped).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert by_gzip.read(zipped).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(InputError, match="not the published file"):
        by_gzip.read(plain)


def test_missing_idx_files_say_where_to_put_them(mnist: dict[str, bytes], tmp_path: Path) -> None:
    said = refusal("mnist")
    for place in ("data/mnist", "data", "cache/data/mnist"):
        assert str(tmp_path / place) in said
    for name in mnist:
        assert f"{name}.gz" in said
    assert f"into {tmp_path}/data/mnist by hand" in said


class Server(http.server.ThreadingHTTPServer):
    """Serves ``/good/`` and, of each file, the first half under ``/cut/``; the rest is missing."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.held = {f"{name}.gz": gzip.compress(content) for name, content in contents.items()}
        self.requests: list[tuple[str, str | None, int]] = []
        self.ranges = True

    def address(self, folder: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{folder}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        _, folder, name = self.path.split("/")
        wanted = self.headers["Range"]
        content = self.server.held[name]
        start = int(wanted[6:-1]) if wanted and self.server.ranges else 0
        status = 206 if start else 200
        if folder not in ("good", "cut"):
            status, content = 404, b""
        elif start >= len(content):
            status, content = 416, b""
        self.server.requests.append((folder, wanted, status))
        self.send_response(status)
        self.send_header("Content-Length", str(len(content[start:])))
        self.end_headers()
        end = len(content) // 2 if folder == "cut" else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(mnist: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    pytest.importorskip("pooch")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(mnist) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def use(monkeypatch: pytest.MonkeyPatch, server: Server, *folders: str) -> None:
    monkeypatch.setattr(Mnist, "mirrors", tuple(map(server.address, folders)))


def test_download_turns_to_the_second_mirror_and_is_kept(
    mnist: dict[str, bytes], server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, server, "missing", "good")
    check_is_mnist(mnist)
    assert [status for _, _, status in server.requests] == [404, 200] * 4
    cached = tmp_path / "cache" / "data" / "mnist"
    assert sorted(path.name for path in cached.glob("*.gz")) == sorted(server.held)
    assert not list(cached.glob("*.part"))
    check_is_mnist(mnist)
    assert len(server.requests) == 8


def test_an_interrupted_download_is_resumed(
    mnist: dict[str, bytes], server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, server, "cut")
    assert server.address("cut") in refusal("mnist")
    cached = tmp_path / "cache" / "data" / "mnist"
    (part,) = cached.glob("*.part")
    half = len(server.held[f"{IMAGES}.gz"]) // 2
    start = part.stat().st_size
    assert half - (1 << 13) < start <= half
    assert not list(cached.glob("*.gz"))
    use(monkeypatch, server, "good")
    check_is_mnist(mnist)
    assert server.requests[1] == ("good", f"bytes={start}-", 206)


@pytest.mark.parametrize("length", [10, 10**6])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_false_part_is_dropped(
    length: int,
    ranges: bool,
    mnist: dict[str, bytes],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    part = tmp_path / "cache" / "data" / "mnist" / f"{IMAGES}.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"?" * length)
    server.ranges = ranges
    use(monkeypatch, server, "good")
    check_is_mnist(mnist)
    assert [wanted for _, wanted, _ in server.requests[:2]] == [f"bytes={length}-", None]


def test_a_false_download_is_not_kept(
    mnist: dict[str, bytes], server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.held[f"{IMAGES}.gz"] = gzip.compress(mnist[IMAGES][:-1] + b"?")
    use(monkeypatch, server, "good")
    assert "not the published file" in refusal("mnist")
    assert {path.suffix for path in (tmp_path / "cache" / "data" / "mnist").iterdir()} <= {".lock"}


def test_another_datasets_files_in_the_shared_folder_are_passed_over(
    mnist: dict[str, bytes], server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    others = mnist | {IMAGES: idx(noise(60, 28, 28, seed=9))}
    place(tmp_path / "data", others)
    said = refusal("mnist")
    assert f"{tmp_path}/data/{IMAGES}.gz is not the published file" in said
    use(monkeypatch, server, "good")
    check_is_mnist(mnist)
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_the_real_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(os.environ.get("AEBENCH_DATA", "")) / name
    if not any(folder.glob("train-images*")):
        pytest.skip(f"no {name} in $AEBENCH_DATA")
    dataset = Dataset.make(name)
    assert [len(dataset.split(split)) for split in SPLITS] == [50_000, 10_000, 10_000]
    assert dataset.shape == (1, 28, 28)
    assert dataset.classes == 10
    assert torch.equal(dataset.split("test").labels.bincount(), torch.full((10,), 1000)) or (
        name == "mnist"
    )


# Binary and larger images.


@pytest.fixture
def held(mnist: dict[str, bytes], tmp_path: Path) -> dict[str, bytes]:
    """The shrunk MNIST where it is found."""
    place(tmp_path / "data" / "mnist", mnist)
    return mnist


def test_dynamic_images_are_drawn_from_their_grey_levels(held: dict[str, bytes]) -> None:
    grey = Dataset.make("mnist").split("train").images()
    train = Dataset.make("mnist", {"binarisation": "dynamic"}).split("train")
    assert set(train.images().unique().tolist()) == {0, 255}
    index = torch.tensor([3, 11])
    torch.manual_seed(0)
    draws = torch.stack([train.drawn(train.raw(index)) for _ in range(2000)])
    assert set(draws.unique().tolist()) == {0, 255}
    # A share of 2,000 draws is within five standard deviations, .056, of its probability.
    off = (draws == 255).double().mean(0) - grey[index].double() / 255
    assert off.abs().max() < 0.056
    assert (draws[:, grey[index] == 0] == 0).all()
    assert (draws[:, grey[index] == 255] == 255).all()
    # A split that is cut or moved keeps its grey levels.
    part = train.take(index).to("cpu")
    torch.manual_seed(0)
    assert torch.equal(part.drawn(part.raw(torch.tensor([0, 1]))), draws[0])


def test_what_is_scored_is_drawn_once(held: dict[str, bytes]) -> None:
    first, second = (Dataset.make("mnist", {"binarisation": "dynamic"}) for _ in range(2))
    grey = Dataset.make("mnist")
    assert first.hash == second.hash != grey.hash
    for name in SPLITS:
        assert torch.equal(first.split(name).images(), second.split(name).images())
        assert torch.equal(first.split(name).labels, grey.split(name).labels)
        # Of noise half is white; the draws of one level are independent.
        white = (first.split(name).images() == 255).double()
        levels = grey.split(name).images().double() / 255
        assert (white - levels).mean().abs() < 0.02
    index = torch.arange(5)
    test = first.split("test")
    assert torch.equal(test.drawn(test.raw(index)), test.images(index))


def test_threshold_is_half(held: dict[str, bytes]) -> None:
    grey = Dataset.make("mnist").split("val")
    binary = Dataset.make("mnist", {"binarisation": "threshold"}).split("val")
    assert torch.equal(binary.images() == 255, grey.images() >= 128)
    index = torch.arange(3)
    assert torch.equal(binary.drawn(binary.raw(index)), binary.images(index))


@pytest.mark.parametrize("binarisation", ["none", "dynamic", "threshold"])
def test_a_larger_size_is_a_black_margin(binarisation: str, held: dict[str, bytes]) -> None:
    small, large = (
        Dataset.make("mnist", {"binarisation": binarisation, "size": size}) for size in (28, 32)
    )
    assert large.shape == (1, 32, 32)
    images = large.split("test").images()
    assert images.sum() == images[..., 2:-2, 2:-2].sum()
    if binarisation != "dynamic":
        assert torch.equal(images[..., 2:-2, 2:-2], small.split("test").images())


@pytest.mark.parametrize("size", [26, 29, 258])
def test_mnist_refuses_other_sizes(size: int) -> None:
    assert f"size must be even, 28 to 256, not {size}" in refusal("mnist", size=size)


# Static MNIST.


@pytest.fixture
def static(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """Static MNIST shrunk to 6, 3 and 2 images, in a folder: the contents of its files."""
    monkeypatch.setenv("AEBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("AEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(StaticMnist, "mirrors", ())
    files, contents = [], {}
    for file, n in zip(StaticMnist.files, (6, 3, 2)):
        rows = noise(n, 28 * 28, seed=n) % 2
        text = "".join(" ".join(map(str, row)) + "\n" for row in rows).encode()
        hashes = (hashlib.sha256(text).hexdigest(),)
        files.append(AmatFile(file.name, (n, 28, 28), hashes))
        contents[file.name] = text
    monkeypatch.setattr(StaticMnist, "files", tuple(files))
    return contents


@pytest.mark.parametrize("packed", [True, False])
def test_static_mnist_is_read_from_its_text(
    packed: bool, static: dict[str, bytes], tmp_path: Path
) -> None:
    place(tmp_path / "data" / "static_mnist", static, packed=packed)
    dataset = Dataset.make("static_mnist")
    assert dataset.classes == 0
    for name, n in zip(SPLITS, (6, 3, 2)):
        expected = torch.from_numpy(noise(n, 28 * 28, seed=n) % 2) * 255
        assert torch.equal(dataset.split(name).images().flatten(1), expected)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-2], "has 9406 bytes, not 9408"),
        (lambda b: b"7" + b[1:], "does not hold zeros and ones"),
        (lambda b: bytes([b[0] ^ 1]) + b[1:], "is not the published file"),
    ],
)
def test_a_damaged_text_is_named(
    damage: Callable[[bytes], bytes], message: str, static: dict[str, bytes], tmp_path: Path
) -> None:
    name = StaticMnist.files[0].name
    place(tmp_path / "data" / "static_mnist", static | {name: damage(static[name])}, packed=False)
    assert message in refusal("static_mnist")


def test_missing_static_mnist_says_where_to_put_it(static: dict[str, bytes]) -> None:
    said = refusal("static_mnist")
    assert all(name in said for name in static)


# Archives.


def test_npz_layouts_are_one_content(tmp_path: Path) -> None:
    images = noise(30, 3, 8, 9)
    first, last, floats = (
        Dataset.make("npz", save_npz(tmp_path / f"{i}.npz", images=held))
        for i, held in enumerate([images, images.transpose(0, 2, 3, 1), images / 255])
    )
    assert first.shape == last.shape == (3, 8, 9)
    assert first.hash == last.hash == floats.hash
    changed = images.copy()
    changed[4, 0, 0, 0] ^= 1
    assert Dataset.make("npz", save_npz(tmp_path / "4.npz", images=changed)).hash != first.hash
    grey = Dataset.make("npz", save_npz(tmp_path / "5.npz", images=images[:, 0]))
    assert grey.shape == (1, 8, 9)
    assert grey.classes == 0
    assert not grey.renders


def test_npz_renders_a_complete_grid(tmp_path: Path) -> None:
    arrays = grid_arrays()
    names = {"factor_names": np.array(["a", "b", "c"])}
    dataset = Dataset.make("npz", save_npz(tmp_path / "a.npz", **arrays, **names))
    limited = Dataset.make("npz", {"path": str(tmp_path / "a.npz"), "train": 2})
    for each in (dataset, limited):
        assert each.renders
        assert each.factor_names == ("a", "b", "c")
        assert each.factor_sizes == (2, 3, 5)
        asked = torch.from_numpy((arrays["factors"] - 3) // 10)
        assert np.array_equal(each.render(asked)[:, 0].numpy(), arrays["images"])
    train = dataset.split("train")
    assert train.factors is not None
    assert torch.equal(dataset.render(train.factors), train.images())
    with pytest.raises(InputError, match="factor 'b' has no value 3; valid: 0 to 2"):
        dataset.render(torch.tensor([[0, 3, 0]]))


@pytest.mark.parametrize("rows", [[*range(29), 0], list(range(29))])
def test_npz_without_a_complete_grid_does_not_render(rows: list[int], tmp_path: Path) -> None:
    arrays = {key: held[rows] for key, held in grid_arrays().items()}
    dataset = Dataset.make("npz", save_npz(tmp_path / "a.npz", **arrays))
    assert dataset.factor_sizes == (2, 3, 5)
    assert dataset.factor_names == ("factor_0", "factor_1", "factor_2")
    assert not dataset.renders
    with pytest.raises(InputError, match="every combination"):
        dataset.render(torch.zeros(1, 3, dtype=torch.int64))


def test_npz_official_splits(tmp_path: Path) -> None:
    arrays: Arrays = {}
    for i, (name, n) in enumerate(SIZES.items()):
        arrays[f"{name}_images"] = noise(n, 8, 8, seed=i)
        arrays[f"{name}_labels"] = np.full(n, 5 * i)
    dataset = Dataset.make("npz", save_npz(tmp_path / "a.npz", **arrays))
    for i, name in enumerate(SPLITS):
        images, labels = arrays_of(dataset.split(name))
        assert np.array_equal(images[:, 0], arrays[f"{name}_images"])
        assert (labels == i).all()  # 0, 5, 10 become 0, 1, 2
    assert dataset.classes == 3


GOOD = noise(30, 8, 8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": GOOD}, "no array 'images'; it has pictures"),
        ({"images": GOOD.astype(np.int16)}, "images is int16; valid: uint8, or floats in [0, 1]"),
        ({"images": GOOD.astype(np.float32)}, "must be in [0, 1], found 0 to 255"),
        ({"images": np.where(GOOD > 250, np.nan, 0.5)}, "must be in [0, 1], found nan"),
        ({"images": noise(30, 2, 8, 8)}, "images has the shape (30, 2, 8, 8); valid: (n, H, W)"),
        ({"images": GOOD[:0]}, "none of them 0"),
        ({"images": GOOD[:3]}, "too few images for train, val and test: 3"),
        ({"images": GOOD, "labels": np.zeros(29, int)}, "labels has the shape (29,), not (30,)"),
        ({"images": GOOD, "labels": np.zeros(30)}, "labels must be non-negative integers (float"),
        ({"images": GOOD, "labels": np.arange(30) - 1}, "labels must be non-negative integers"),
        ({"images": GOOD, "factors": np.arange(30)}, "factors has the shape (30,), not (30, 'K')"),
        (
            {"images": GOOD, "factors": np.zeros((30, 2), int), "factor_names": np.array(["a"])},
            "factor_names must be 2 different names, not ('a',)",
        ),
        ({"train_images": GOOD, "val_images": GOOD}, "no array 'test_images'"),
        (
            {f"{s}_images": GOOD for s in SPLITS} | {"val_labels": np.zeros(30, int)},
            "no array 'train_labels', though there is 'val_labels'",
        ),
        (
            {f"{s}_images": GOOD for s in SPLITS} | {"test_images": noise(30, 9, 8)},
            "test_images are (1, 9, 8) where train_images are (1, 8, 8)",
        ),
        ({"images": np.array([{}, []], object)}, "not an archive of plain arrays"),
    ],
)
def test_npz_refuses(arrays: Arrays, message: str, tmp_path: Path) -> None:
    said = refusal("npz", **save_npz(tmp_path / "a.npz", **arrays))
    assert message in said


def test_npz_refuses_other_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    assert f"{path}: no such file" in refusal("npz", path=str(path))
    path.write_text("hello")
    assert "not an archive" in refusal("npz", path=str(path))
    np.savez(path, images=GOOD)
    path.write_bytes(path.read_bytes()[:-200])
    assert "cannot be read" in refusal("npz", path=str(path))
    np.save(tmp_path / "b.npy", GOOD)
    assert "a single array" in refusal("npz", path=str(tmp_path / "b.npy"))


# Folders.


def test_folder_reads_classes_in_order(tmp_path: Path) -> None:
    images = noise(30, 8, 9, 3)
    save_images(tmp_path / "a", images, ("zebra", "ant/deep", "cow"))
    (tmp_path / "a" / ".hidden").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    dataset = Dataset.make("folder", {"path": str(tmp_path / "a")})
    assert dataset.shape == (3, 8, 9)
    assert dataset.classes == 3
    held = {
        image.tobytes(): label
        for split in dataset.splits.values()
        for image, label in zip(*arrays_of(split))
    }
    expected = [held[image.transpose(2, 0, 1).tobytes()] for image in images]
    assert expected == [(2, 0, 1)[i % 3] for i in range(30)]
    (tmp_path / "a").rename(tmp_path / "b")
    assert Dataset.make("folder", {"path": str(tmp_path / "b")}).hash == dataset.hash
    save_images(tmp_path / "b" / "cow", images[:1])
    assert Dataset.make("folder", {"path": str(tmp_path / "b")}).hash != dataset.hash


def test_folder_without_classes(tmp_path: Path) -> None:
    save_images(tmp_path, noise(30, 8, 8))
    dataset = Dataset.make("folder", {"path": str(tmp_path), "channels": 1})
    assert dataset.shape == (1, 8, 8)
    assert dataset.classes == 0
    assert dataset.split("train").labels is None


def test_folder_official_splits(tmp_path: Path) -> None:
    for i, (name, n) in enumerate(SIZES.items()):
        save_images(tmp_path / name, noise(n, 4, 4, seed=i), ("a", "b") if i else ("b", "c"))
    dataset = Dataset.make("folder", {"path": str(tmp_path), "channels": 1})
    assert {name: len(dataset.splits[name]) for name in SPLITS} == SIZES
    assert dataset.classes == 3
    images, labels = arrays_of(dataset.split("train"))
    assert set(labels) == {1, 2}
    assert np.array_equal(images[:, 0], noise(40, 4, 4)[[*range(0, 40, 2), *range(1, 40, 2)]])


@pytest.mark.parametrize(("size", "shape"), [(4, (3, 4, 4)), ([6, 5], (3, 6, 5))])
def test_folder_resizes(size: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    save_images(tmp_path, noise(10, 40, 40, 3))
    save_images(tmp_path / "sub", noise(10, 24, 32, 3))
    for path in tmp_path.glob("*.png"):
        path.rename(tmp_path / "sub" / f"large_{path.name}")
    dataset = Dataset.make("folder", {"path": str(tmp_path), "size": size})
    assert dataset.shape == shape
    # Averages of many pixels of noise: without anti-aliasing they would spread as single ones do.
    assert dataset.split("train").images().double().std() < 30
    assert "is 40×40 where" in refusal("folder", path=str(tmp_path))


def test_folder_refuses(tmp_path: Path) -> None:
    path = str(tmp_path)
    assert f"no such folder: {path}/none" in refusal("folder", path=f"{path}/none")
    assert f"no images in {path}; read are .png, .jpg" in refusal("folder", path=path)
    assert "size must be" in refusal("folder", path=path, size=0)
    assert "2 is not one of 1, 3" in refusal("folder", path=path, channels=2)
    save_images(tmp_path / "class", noise(10, 4, 4))
    (tmp_path / "class" / "bad.jpg").write_text("hello")
    assert f"cannot read {path}/class/bad.jpg" in refusal("folder", path=path)
    (tmp_path / "class" / "bad.jpg").unlink()
    deep = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    deep.save(tmp_path / "class" / "deep.png")
    assert "deep.png: its pixels (I;16) are not of 8 bits" in refusal("folder", path=path)
    (tmp_path / "class" / "deep.png").unlink()
    save_images(tmp_path, noise(1, 4, 4))
    assert f"{path}/000.png is in no class" in refusal("folder", path=path)
    (tmp_path / "000.png").unlink()
    for name in ("train", "test"):
        save_images(tmp_path / name, noise(2, 4, 4))
    assert "has train and test but no val" in refusal("folder", path=path)


# Splits that share what they store.


def plain(split: Split) -> Split:
    """A copy that stores its own images and no others."""
    labels, factors = (None if t is None else t.clone() for t in (split.labels, split.factors))
    grey = None if split.grey is None else split.raw(torch.arange(len(split)))
    return Split(split.images().clone(), labels, factors, grey=grey)


def assert_equal(split: Split, expected: Split) -> None:
    assert len(split) == len(expected)
    assert split.nbytes == expected.nbytes
    assert torch.equal(split.images(), expected.images())
    index = torch.arange(len(split)).flip(0)[: len(split) // 2 + 1]
    assert torch.equal(split.images(index), expected.images(index))
    raw = expected.images(index) if expected.grey is None else expected.grey[index]
    assert torch.equal(split.raw(index), raw)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = split.drawn(split.raw(index))
        torch.manual_seed(0)
        assert torch.equal(drawn, raw if expected.grey is None else base.binary(raw))
    for name in ("labels", "factors"):
        one, other = getattr(split, name), getattr(expected, name)
        assert (one is None and other is None) or torch.equal(one, other)
    for (x, y), (found_x, found_y) in zip(expected.batches(7), split.batches(7), strict=True):
        assert torch.equal(x, found_x)
        assert (y is None and found_y is None) or torch.equal(y, found_y)


def stored(kind: str) -> Split:
    images, labels = torch.from_numpy(noise(60, 2, 3, 5)), torch.arange(60) % 7
    grey = torch.from_numpy(noise(60, 2, 3, 5, seed=1)) if kind == "grey" else None
    factors = torch.stack([labels, torch.arange(60) // 7], 1)
    if kind == "rendered":
        return Split(None, labels, factors, lambda f: (f * 20).to(torch.uint8)[:, None, None, :])
    return Split(images, labels, factors, grey=grey)


@pytest.mark.parametrize("kind", ["plain", "grey", "rendered"])
@pytest.mark.parametrize("seed", range(15))
def test_take_is_indexing(kind: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    split = whole = stored(kind)
    index = torch.arange(60)  # what a split of its own would be indexed by
    for _ in range(4):
        n = len(index)
        chosen: Tensor | slice
        if random.random() < 0.4:
            start, stop = np.sort(random.integers(0, n + 1, 2)).tolist()
            chosen = slice(start, max(stop, start + 1), int(random.integers(1, 3)))
        elif random.random() < 0.3:
            chosen = torch.from_numpy(random.random(n) < 0.8)
        else:  # some twice, some counted from the end
            chosen = torch.from_numpy(random.integers(-n, n, int(random.integers(1, n + 9))))
        if not len(index[chosen]):
            continue
        split, index = split.take(chosen), index[chosen]
        assert split.pixels is None or whole.pixels is not None
        expected = Split(
            whole.images(index),
            whole.labels[index],  # type: ignore[index]
            whole.factors[index],  # type: ignore[index]
            grey=None if whole.grey is None else whole.grey[index],
        )
        if kind == "rendered":
            expected = replace(expected, pixels=None, render=whole.render)
        assert_equal(split, expected)
        assert_equal(split.to("cpu"), expected)
        if kind != "rendered":
            assert_equal(plain(split), expected)


def storage(split: Split) -> int:
    assert split.pixels is not None
    return split.pixels.untyped_storage().data_ptr()


@pytest.mark.parametrize("name", ["digits", "genotypes"])
def test_splits_are_cut_without_a_copy(name: str) -> None:
    whole = Dataset.make(name)
    part = Dataset.make(name, {"train": 50, "held_out": 2})
    assert len({storage(split) for split in whole.splits.values()}) == 1
    assert len({storage(split) for split in (*part.whole.values(), *part.splits.values())}) == 1
    train = whole.split("train")
    half = train.take(slice(len(train) // 2))
    again = half.take(torch.arange(len(half)).flip(0))
    assert storage(again) == storage(half) == storage(train)
    assert half.nbytes == train.nbytes // len(train) * len(half)
    assert canonical_order(whole, "train").shape == (len(train),)


@pytest.mark.parametrize("labelled", [False, True])
def test_the_canonical_order_is_that_of_the_content(labelled: bool) -> None:
    images, labels = torch.from_numpy(noise(50, 1, 3, 4)), torch.arange(50) % 5
    images[7] = images[31] = images[3]  # twins without labels, in the order that they come in
    dataset = Held(images, labels if labelled else None, train=40)

    def key(i: int) -> bytes:
        label = labels[i].numpy().tobytes() if labelled else b""
        return hashlib.blake2b(images[i].numpy().tobytes() + label, digest_size=8).digest()

    assert canonical_order(dataset, "train").tolist() == sorted(range(40), key=key)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    other = Held(images, labels if labelled else None)
    other.given = other.given.take(order)
    first, second = (
        held.split("test").take(canonical_order(held, "test")).images() for held in (dataset, other)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", ["plain", "grey", "rendered"])
def test_what_does_not_fit_is_brought_by_batches(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = stored(kind).take(torch.arange(59, 0, -2))
    assert split.on("cpu").target is None
    monkeypatch.setattr(Split, "fits", lambda self, device: False)
    assert_equal(split.on("cpu"), split if kind == "rendered" else plain(split))
    there = split.on("meta")  # a device on which there are shapes alone
    assert there.labels is not None
    for some in (there, there.take(slice(10)), there.take(torch.arange(10))):
        for images, labels in some.batches(4):
            assert labels is not None
            assert images.device.type == labels.device.type == "meta"
    assert there.raw(torch.arange(3)).device.type == "meta"
    assert kind == "rendered" or there.device.type == "cpu"
    moved = split.to("meta")
    assert moved.order is None
    assert moved.images().shape == split.images().shape


def test_metrics_are_the_same_where_a_split_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def numbers() -> list[Tensor]:
        model, dataset = normed_vae()
        fitted = Fitted(model, dataset, Pixels(dataset), samplers={"prior": Prior()}, batch_size=7)
        drawn = fitted.samples("prior", 20)
        return [fitted.codes("train"), fitted.reconstructions(), drawn, fitted.labels("test")]

    held = numbers()
    monkeypatch.setattr(Split, "fits", lambda self, device: False)
    for one, other in zip(held, numbers()):
        assert torch.equal(one, other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_what_fits_a_gpu_is_held_there(monkeypatch: pytest.MonkeyPatch) -> None:
    split = stored("grey").take(torch.arange(59, 0, -2))
    there = split.on("cuda")
    assert there.images().device.type == there.device.type == "cuda"
    assert there.order is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * split.nbytes - 1, 1 << 40))
    assert not split.fits("cuda")
    assert there.fits("cuda")  # it is there already
    streamed = split.on("cuda")
    assert streamed.device.type == "cpu"
    for (x, y), (a, b) in zip(there.batches(4), streamed.batches(4), strict=True):
        assert torch.equal(x, a)
        assert y is not None and b is not None and torch.equal(y, b)
    assert torch.equal(there.images(torch.arange(3)), streamed.images(torch.arange(3).cuda()))


def test_how_much_fits_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    split = stored("plain")
    for free, fits in ((2 * split.nbytes, True), (2 * split.nbytes - 1, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 1 << 40))
        assert split.fits("cuda") is fits
        assert split.fits("cpu")
        assert stored("rendered").fits("cuda")


# Folders of more images than are held in memory.


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 200 images, too many for memory as it is told."""
    save_images(tmp_path / "images", noise(200, 8, 8, 3), ("cat", "dog", "eel"))
    monkeypatch.setattr(folder, "HELD_BYTES", 200 * 8 * 8 - 1)
    monkeypatch.setenv("AEBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "images"


def cached(many: Path, suffix: str = "") -> list[Path]:
    return sorted((many.parent / "cache" / "images").glob(f"*{suffix}"))


def refuse(*args: Any) -> Any:
    raise AssertionError("it is done again")


@pytest.mark.parametrize("limits", [{}, {"train": 50, "held_out": 1}])
def test_a_large_folder_is_as_a_small_one(
    limits: dict[str, int],
    many: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    parameters = {"path": str(many), **limits}
    state = torch.get_rng_state()
    large = Dataset.make("folder", parameters)
    _ = large.hash
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")
    (file,) = cached(many, ".u8")
    assert file.stat().st_size == 200 * 8 * 8 * 3
    assert not cached(many, ".part")
    monkeypatch.setattr(folder, "HELD_BYTES", 200 * 8 * 8 * 3)
    small = Dataset.make("folder", parameters)
    assert large.hash == small.hash
    assert (large.shape, large.classes) == (small.shape, small.classes)
    for name in small.splits:
        assert region_of(large.split(name).pixels) is not None  # type: ignore[arg-type]
        assert region_of(small.split(name).pixels) is None  # type: ignore[arg-type]
        assert_equal(large.split(name), small.split(name))
        assert torch.equal(canonical_order(large, name), canonical_order(small, name))


def test_a_large_folder_is_decoded_and_hashed_once(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Dataset.make("folder", {"path": str(many)})
    content, images = first.hash, first.split("test").images()
    limited = Dataset.make("folder", {"path": str(many), "train": 9}).hash
    assert limited != content
    moved = many.rename(many.parent / "moved")
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "decode", refuse)
        patch.setattr(base, "parts", refuse)
        second = Dataset.make("folder", {"path": str(moved)})
        assert second.hash == content
        assert torch.equal(second.split("test").images(), images)
        assert Dataset.make("folder", {"path": str(moved), "train": 9}).hash == limited
    Image.fromarray(noise(1, 8, 8, 3, seed=5)[0]).save(moved / "cat" / "000.png")
    assert Dataset.make("folder", {"path": str(moved)}).hash != content
    assert Dataset.make("folder", {"path": str(moved), "channels": 1}).shape == (1, 8, 8)
    assert len(cached(many, ".u8")) == 3


def test_a_fault_among_many_is_named(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (many / "dog" / "bad.jpg").write_text("hello")
    (many / "eel" / "worse.jpg").write_text("hello")
    assert f"cannot read {many}/dog/bad.jpg" in refusal("folder", path=str(many))
    for path in many.glob("*/*.jpg"):
        path.unlink()
    Image.fromarray(noise(1, 9, 8, 3)[0]).save(many / "dog" / "tall.png")
    said = refusal("folder", path=str(many))
    assert f"{many}/dog/tall.png is 9×8 where {many}/cat/000.png is 8×8" in said
    (many / "dog" / "tall.png").unlink()
    assert not [path for path in cached(many) if path.suffix != ".lock"]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
        said = refusal("folder", path=str(many))
        assert f"{cached(many)[0].parent} cannot be written: 0 MiB are needed, 0 MiB are" in said
    (many.parent / "file").touch()
    monkeypatch.setenv("AEBENCH_CACHE", str(many.parent / "file"))
    assert f"{many.parent}/file/images cannot be written" in refusal("folder", path=str(many))


def load_in(path: str, log: str) -> None:
    """A process that loads a folder and says so each time that it decodes one."""
    decode = Folder.decode

    def logged(self: Folder, images: folder.Images) -> None:
        with open(log, "a") as file:
            file.write("decoded\n")
        decode(self, images)

    Folder.decode = logged  # type: ignore[method-assign]
    assert len(Dataset.make("folder", {"path": path}).split("test")) == 40


@pytest.mark.parametrize("daemon", [False, True])  # one may start processes, the other not
def test_processes_decode_a_folder_once(daemon: bool, many: Path, tmp_path: Path) -> None:
    context, log = multiprocessing.get_context("fork"), tmp_path / "log"
    processes = [
        context.Process(target=load_in, args=(str(many), str(log)), daemon=daemon) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text() == "decoded\n"
    assert len(cached(many, ".u8")) == 1


def load_slowly(path: str) -> None:
    read = Folder.checked

    def slow(self: Folder, path: str, *rest: Any) -> Any:
        if path.endswith("dog/100.png"):
            time.sleep(10)
        return read(self, path, *rest)

    Folder.checked = slow  # type: ignore[method-assign]
    _ = Dataset.make("folder", {"path": path}).whole


def test_a_killed_decoding_leaves_nothing_that_counts(many: Path) -> None:
    context = multiprocessing.get_context("fork")
    process = context.Process(target=load_slowly, args=(str(many),))
    process.start()
    deadline = time.monotonic() + 60
    while not any(path.read_bytes().strip(b"\0") for path in cached(many, ".part")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    assert not cached(many, ".u8")
    large = Dataset.make("folder", {"path": str(many)})
    images = torch.cat([large.split(name).images() for name in SPLITS])
    expected = torch.from_numpy(noise(200, 8, 8, 3)).permute(0, 3, 1, 2)
    assert sorted(x.numpy().tobytes() for x in images) == sorted(
        x.contiguous().numpy().tobytes() for x in expected
    )
    assert not cached(many, ".part")


def anonymous() -> int:
    """The bytes of this process that are no file's."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert found
    return int(found[1]) << 10


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_large_folder_needs_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEBENCH_CACHE", str(tmp_path / "cache"))
    size = 700 * 3 * 512 * 512
    random = np.random.default_rng(0)
    for i in range(700):  # coarse, so that they are written and read fast
        path = tmp_path / "images" / str(i % 3) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((512, 512), Image.Resampling.NEAREST).save(path, compress_level=1)
    _ = Dataset.make("folder", {"path": str(tmp_path / "images" / "0"), "size": 8}).hash  # imports
    before, peak, done = anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, anonymous())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        dataset = Dataset.make("folder", {"path": str(tmp_path / "images"), "held_out": 1})
        _ = dataset.hash
        train = dataset.split("train")
        for name in dataset.splits:
            held = dataset.split(name).take(canonical_order(dataset, name))
            seen = sum(len(images) for images, _ in held.batches(16))
            assert seen == len(held)
        for index in torch.randperm(len(train)).split(16):
            assert len(train.drawn(train.raw(index))) == len(index)
    finally:
        done.set()
        watching.join()
    assert sum(map(len, dataset.whole.values())) * 3 * 512 * 512 == size
    assert peak - before < size / 5
