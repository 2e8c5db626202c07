"""The lines are those of the original program, and their angles are spread as they should be."""

import math

import pytest
import torch
from aebench.datasets import SPLITS, Dataset
from aebench.datasets.lines import Lines, all_lines
from aebench.plugins import InputError
from torch import Tensor

# Of the original program at 32 pixels: the angle, then the sums over pixels of m, row · m,
# column · m, row · column · m and m², for m the brightness in [0, 1].
ORIGINAL = [
    (0.0, 30.0, 465.0, 690.0, 10695.0, 30.0),
    (0.3, 30.0, 404.68, 690.0, 9134.4, 25.156),
    (0.7, 24.0, 270.93, 516.0, 5584.0, 20.086),
    (1.2, 27.961, 237.92, 520.27, 4250.7, 23.097),
    (math.pi / 2, 30.0, 240.0, 465.0, 3720.0, 30.0),
    (2.1, 25.896, 233.69, 288.17, 2811.1, 21.613),
    (3.0, 29.7, 424.66, 239.7, 3505.0, 24.489),
    (3.6, 26.903, 519.68, 235.81, 4354.3, 21.508),
    (4.4, 30.0, 690.0, 402.02, 9065.6, 24.988),
    (5.1, 28.0, 630.0, 502.59, 11494.0, 23.403),
    (5.9, 28.0, 501.72, 630.0, 11472.2, 23.552),
]


def bright(angles: Tensor, size: int = 32) -> Tensor:
    return Lines(size=size).line(angles)[:, 0].double() / 255


def turns(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, dtype=torch.float64, generator=generator) * 2 * math.pi


@pytest.mark.parametrize("expected", ORIGINAL)
def test_a_line_is_drawn_as_the_original_program_draws_it(expected: tuple[float, ...]) -> None:
    (m,) = bright(torch.tensor(expected[:1], dtype=torch.float64))
    place = torch.arange(32).double()
    found = [m.sum(), (m.T @ place).sum(), (m @ place).sum(), place @ m @ place, (m * m).sum()]
    for value, known in zip(found, expected[1:], strict=True):
        assert value.item() == pytest.approx(known, rel=1e-3)  # of grey levels rounded to bytes


@pytest.mark.parametrize("size", [16, 32, 33, 64])
def test_a_line_does_not_depend_on_its_batch(size: int) -> None:
    lines, angles = Lines(size=size), turns(300)
    together = lines.line(angles)
    assert together.shape == (300, 1, size, size)
    assert torch.equal(torch.cat([lines.line(a) for a in angles.split(1)]), together)
    assert torch.equal(lines.line(angles.flip(0)).flip(0), together)
    assert lines.line(angles[:0]).shape == (0, 1, size, size)
    again = lines.line(angles + 2 * math.pi).int()
    assert (again - together.int()).abs().max() <= 1


@pytest.mark.parametrize("size", [16, 32, 64])
def test_a_line_goes_from_the_centre_to_the_rim(size: int) -> None:
    angles = turns(200)
    m = bright(angles, size)
    place = torch.arange(size) + 0.5 - size / 2
    mass = m.sum((1, 2))
    right, up = (m.sum(1) * place).sum(1) / mass, -(m.sum(2) * place).sum(1) / mass
    # Half the length from the centre, but for the pixel by which the original is off.
    middle = (size / 2 - 1) / 2
    assert (right - middle * angles.cos()).abs().max() < 1.1
    assert (up - middle * angles.sin()).abs().max() < 1.1
    # As wide as two pixels of its rows or columns.
    longer = torch.maximum(angles.cos().abs(), angles.sin().abs())
    assert (mass - 2 * (size / 2 - 1) * longer).abs().max() < 2.1


def test_lines_jump_where_the_original_jumps() -> None:
    degrees = torch.arange(0, 360, 0.02, dtype=torch.float64)
    steps = bright(degrees.deg2rad()).diff(dim=0).abs().sum((1, 2))
    jumps = (steps > 10).nonzero()[:, 0]
    assert degrees[jumps].round().tolist() == [135, 315]


def test_the_splits_share_no_line_and_fill_the_circle() -> None:
    lines = Dataset.make("lines")
    assert [len(lines.split(name)) for name in SPLITS] == [50_000, 5_000, 5_000]
    assert lines.shape == (1, 32, 32)
    assert lines.classes == 10
    assert lines.factor_sizes == ()
    held = [{x.numpy().tobytes() for x in lines.split(name).images()} for name in SPLITS]
    assert sum(map(len, held)) == len(set.union(*held))
    assert all(len(some) > 0.5 * len(lines.split(n)) for some, n in zip(held, SPLITS))
    for name in SPLITS:
        labels = lines.split(name).labels
        assert labels is not None
        share = torch.bincount(labels).double() / len(labels)
        assert (share - 0.1).abs().max() < 0.02


def test_a_label_is_the_tenth_of_the_turn() -> None:
    lines = Lines(size=16, test=300)
    split = lines.split("test")
    assert split.labels is not None
    grid = (torch.arange(5000) + 0.5) * (2 * math.pi / 5000)
    drawn = lines.line(grid).flatten(1).double()
    apart = torch.cdist(split.images().flatten(1).double(), drawn)
    nearest = apart.argmin(1)
    assert apart.amin(1).max() < 20
    # A line at a boundary may be nearest to one just beyond it.
    around = torch.stack([(nearest + i) % 5000 * 10 // 5000 for i in (-3, 0, 3)])
    assert (around == split.labels).any(0).all()
    assert (nearest * 10 // 5000 == split.labels).double().mean() > 0.98


def test_lines_are_the_same_every_time() -> None:
    first = Lines(size=16, train=100, val=5, test=5)
    one = first.hash
    all_lines.cache_clear()
    assert Lines(size=16, train=100, val=5, test=5).hash == one
    assert Lines(size=17, train=100, val=5, test=5).hash != one


@pytest.mark.parametrize("size", [15, 65])
def test_lines_refuse_other_sizes(size: int) -> None:
    with pytest.raises(InputError, match=f"size must be 16 to 64, not {size}"):
        Dataset.make("lines", {"size": size})
