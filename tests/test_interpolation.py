"""Metrics of interpolation: known answers and invariants."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from aebench.benchmark.metrics import NotApplicable
from aebench.benchmark.metrics.generation import fid
from aebench.benchmark.metrics.interpolation import (
    REFERENCES,
    MidpointFID,
    NearestLines,
    PathLength,
    Smoothness,
    draw_pairs,
    line_smoothness,
    mean_distance,
    nearest,
    on_path,
    path_length,
    unevenness,
)
from aebench.datasets.lines import Lines
from aebench.models import DataSpec
from aebench.plugins import InputError
from standins import Echo, Fitted, Pixels, fitted_echo, noise_images, spec
from torch import Tensor


def test_straight_paths() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(5, 2, 3), torch.randn(5, 2, 3)
    t = torch.rand(5, 4)
    path = on_path(first, second, t)
    assert path.shape == (5, 4, 2, 3)
    assert path.dtype == torch.float32
    for i in range(4):
        expected = torch.lerp(first, second, t[:, i, None, None])
        assert torch.allclose(path[:, i], expected, atol=1e-6)


def test_spherical_paths_turn_evenly_and_keep_the_norm() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(50, 8).double(), torch.randn(50, 8).double()
    second *= (first.norm(dim=1) / second.norm(dim=1))[:, None]
    t = torch.linspace(0, 1, 6).double().expand(50, -1)
    path = on_path(first, second, t, spherical=True)
    assert torch.allclose(path[:, 0], first)
    assert torch.allclose(path[:, -1], second)
    assert torch.allclose(path.norm(dim=2), first.norm(dim=1)[:, None])
    cosines = torch.cosine_similarity(path[:, :-1], path[:, 1:], dim=2)
    omega = torch.cosine_similarity(first, second, dim=1).acos()
    assert torch.allclose(cosines.acos(), (omega / 5)[:, None].expand(-1, 5), atol=1e-6)
    apart = (path - on_path(first, second, t)).norm(dim=2)[:, 2]
    assert apart.min() > 0.01


@pytest.mark.parametrize(
    ("first", "second"),
    [([1, 0], [3, 0]), ([1, 0], [-2, 0]), ([0, 0], [1, 2]), ([0, 0], [0, 0]), ([1, 2], [1, 2])],
)
def test_spherical_paths_are_straight_where_there_is_no_arc(
    first: list[float], second: list[float]
) -> None:
    ends = torch.tensor([first], dtype=torch.float32), torch.tensor([second], dtype=torch.float32)
    t = torch.linspace(0, 1, 7)[None]
    assert torch.equal(on_path(*ends, t, spherical=True), on_path(*ends, t))


def test_paths_in_one_batch_are_those_alone() -> None:
    torch.manual_seed(0)
    first, second, t = torch.randn(3, 4), torch.randn(3, 4), torch.rand(3, 5)
    second[1] = 0  # which alone is straight
    together = on_path(first, second, t, spherical=True)
    for i in range(3):
        part = slice(i, i + 1)
        assert torch.allclose(on_path(first[part], second[part], t[part], True)[0], together[i])


def test_unevenness() -> None:
    even, jump = torch.full((1, 15), 0.2), torch.zeros(1, 15)
    jump[0, 6] = 3.0
    still = torch.full((1, 15), 1e-5)
    found = unevenness(torch.cat([even, jump, still]).double())
    assert found[:2].tolist() == pytest.approx([0, 1 - 1 / 15])
    assert found[2].isnan()


def test_smoothness_of_a_linear_decoder_is_zero() -> None:
    fitted = fitted_echo(noise_images(30, 1, 4, 4))
    assert Smoothness(pairs=20).compute(fitted)["smoothness"] == pytest.approx(0, abs=1e-5)
    assert "20 random pairs of the test split" in Smoothness(pairs=20).estimator(fitted)


def test_smoothness_on_arcs() -> None:
    """The code is the image, so an arc's steps are those of :func:`on_path`."""
    fitted = fitted_echo(noise_images(30, 1, 4, 4) // 2)  # no pixel is clipped
    metric = Smoothness(pairs=20, points=7)
    first, second, _ = metric.ends(fitted, 20)
    t = torch.linspace(0, 1, 7).expand(20, -1)
    path = on_path(first.double(), second.double(), t, spherical=True)
    expected = unevenness(path.diff(dim=1).norm(dim=2)).mean().item()
    found = metric.compute(fitted)
    assert found["smoothness_spherical"] == pytest.approx(expected, abs=1e-6)
    assert expected > 1e-3
    assert found["smoothness"] == pytest.approx(0, abs=1e-5)


def test_smoothness_of_a_jump() -> None:
    class Nearest(Echo):
        def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return super().raw(z, y).round()

    fitted = fitted_echo((noise_images(30, 1, 4, 4) > 127).byte() * 255, Nearest)
    found = Smoothness(pairs=20, points=10).compute(fitted)["smoothness"]
    assert found == pytest.approx(1 - 1 / 9, abs=1e-6)


class Constant(Echo):
    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return super().raw(0 * z, y)


class Discrete(Echo):
    discrete = True


def test_smoothness_leaves_degenerate_paths_out() -> None:
    images = noise_images(2, 1, 4, 4)[torch.arange(40) % 2]
    metric = Smoothness(pairs=50)
    fitted = fitted_echo(images)
    found = metric.compute(fitted)
    assert found["smoothness"] == pytest.approx(0, abs=1e-5)
    first, second, _ = metric.ends(fitted, 50)
    alike = (first == second).all(1).double().mean().item()
    assert 0.2 < alike < 0.8
    assert found["smoothness_degenerate"] == pytest.approx(alike)
    still = metric.compute(fitted_echo(images, Constant))
    assert "does not change" in str(still["smoothness"])
    assert "does not change" in str(still["smoothness_spherical"])
    assert still["smoothness_degenerate"] == 1


def test_discrete_codes_have_no_arcs() -> None:
    fitted = fitted_echo(noise_images(30, 1, 4, 4), Discrete)
    for metric in (Smoothness(pairs=5), MidpointFID(pairs=5)):
        found = metric.compute(fitted)
        assert isinstance(found[metric.name], float)
        assert str(found[f"{metric.name}_spherical"]) == "discrete codes have no angle"
    assert PathLength().lacks(fitted) == "the images of discrete codes jump"
    assert not PathLength().lacks(fitted_echo(noise_images(30, 1, 4, 4)))


def test_pairs_are_of_different_images_of_one_label() -> None:
    labels = torch.tensor([0, 1, 1, 2, 2, 2, 5])
    torch.manual_seed(0)
    first, second = draw_pairs(7, 3000, labels).T
    assert (first != second).all()
    assert (labels[first] == labels[second]).all()
    counts = torch.zeros(7, 7).index_put_((first, second), torch.ones(3000), accumulate=True)
    drawn = counts[counts > 0]
    assert len(drawn) == 2 + 6  # every ordered pair within a label, none of a single
    assert counts[3:6, 3:6].sum(1).min() > 500
    assert counts[3, 4:6].min() > 230
    first, second = draw_pairs(4, 3000).T
    counts = torch.zeros(4, 4).index_put_((first, second), torch.ones(3000), accumulate=True)
    assert counts.diag().sum() == 0
    assert counts[counts > 0].min() > 190
    with pytest.raises(NotApplicable):
        draw_pairs(3, 10, torch.arange(3))


def test_pairs_of_a_conditional_model_share_the_label_it_decodes() -> None:
    seen = []

    class Told(Echo):
        given = "label"

        def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            assert y is not None
            seen.append((z[:, 0] * 255 - 20.0 * y).abs().max().item())
            return super().raw(z, y)

    labels = torch.arange(40) % 4
    images = noise_images(40, 1, 3, 3)
    images[:, 0, 0, 0] = (20 * labels).byte()  # the first pixel says the label
    fitted = fitted_echo(images, Told, labels=labels)
    Smoothness(pairs=10).compute(fitted)
    MidpointFID().compute(fitted)
    PathLength(pairs=10).compute(fitted)
    assert len(seen) == 6
    assert max(seen[::2]) < 1e-3  # those straight; on an arc no pixel says the label
    assert "of one label" in MidpointFID().estimator(fitted)


def test_midpoint_fid_is_of_the_midpoints() -> None:
    images = noise_images(200, 1, 2, 2) // 2 * 2
    fitted = fitted_echo(images)
    metric = MidpointFID(pairs=150)
    a, b, _ = metric.ends(fitted, 150)
    real = images.flatten(1).double() / 255
    middle = ((a + b) / 2 * 255).round().double() / 255
    assert metric.compute(fitted)["midpoint_fid"] == pytest.approx(fid(real, middle), abs=1e-6)
    assert fid(real, middle) > 0.01
    assert metric.qualifier(fitted) == "pixels"


# Path length.


@pytest.mark.parametrize("eps", [0.01, 0.1])
def test_path_length_of_a_linear_decoder_is_the_square_of_its_length(eps: float) -> None:
    fitted = fitted_echo(noise_images(300, 1, 4, 4))
    metric = PathLength(pairs=60, eps=eps)
    first, second, _ = metric.ends(fitted, 60)
    lengths = (first - second).double().square().sum(1).sort().values
    expected = lengths[lengths.quantile(0.01, interpolation="lower") <= lengths][:60].mean()
    found = metric.compute(fitted)
    assert found["path_length"] == pytest.approx(expected.item(), rel=1e-4)
    assert "steps of 0.01" in PathLength().estimator(fitted)
    assert metric.qualifier(fitted) == "pixels"


def test_path_length_on_arcs() -> None:
    r"""An arc of codes of one norm r at a right angle: speed r ω, with ω = π/2."""

    class Basis(Echo):
        def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return 0.5 * torch.nn.functional.one_hot(x.flatten(1).argmax(1), 16).float()

    images = torch.zeros(16, 1, 4, 4, dtype=torch.uint8)
    images.flatten(1).fill_diagonal_(255)
    found = PathLength(pairs=50, eps=0.001).compute(fitted_echo(images, Basis))
    assert found["path_length"] == pytest.approx(0.5, rel=1e-4)
    assert found["path_length_spherical"] == pytest.approx((math.pi / 4) ** 2, rel=1e-4)


def test_path_length_reads_images_that_are_not_rounded() -> None:
    """Images one grey level apart: a step along a path is a hundredth of it."""
    fitted = fitted_echo(100 + noise_images(16, 1, 4, 4) // 128)
    metric = PathLength(pairs=20)
    first, second, _ = metric.ends(fitted, 20)
    expected = (first - second).double().square().sum(1).mean().item()
    assert metric.compute(fitted)["path_length"] == pytest.approx(expected, rel=0.01)
    assert 0 < expected < 16 / 255**2


def test_path_length_leaves_out_the_extremes() -> None:
    steps = torch.arange(1000, dtype=torch.float64)
    steps[999] = 1e9
    second = torch.stack([steps.sqrt() * 0.1, 0 * steps], 1)
    # Values 0 to 998 and one huge one: those of rank 9 to 990 stay.
    assert path_length(second * 0, second, 0.1) == pytest.approx(steps[9:991].mean().item())
    assert path_length(second[:9] * 0, second[:9], 0.1) == pytest.approx(4.0)
    assert path_length(second[3:4] * 0, second[3:4], 1.0) == pytest.approx(0.03)


def test_path_length_of_what_does_not_move() -> None:
    found = PathLength(pairs=5).compute(fitted_echo(noise_images(30, 1, 4, 4), Constant))
    assert all("does not change" in str(value) for value in found.values())


@pytest.mark.parametrize("eps", [0.0, -0.1, 1.5, math.nan])
def test_path_length_refuses_other_steps(eps: float) -> None:
    with pytest.raises(InputError, match="eps must be above 0 and at most 1"):
        PathLength(eps=eps)


# Lines.


@pytest.fixture(scope="module")
def references() -> Tensor:
    return signed(torch.arange(REFERENCES, dtype=torch.float64) * (2 * math.pi / REFERENCES))


def signed(angles: Tensor) -> Tensor:
    """Lines as pixels in [-1, 1], float64 (n, 1024)."""
    return Lines().line(angles).flatten(1).double() / 127.5 - 1


def interpolations() -> dict[str, Tensor]:
    """What the original program was run on: 256 pairs, 16 points, numpy's seed 0."""
    stream = np.random.RandomState(0)
    first, second = (torch.from_numpy(stream.uniform(0, 2 * np.pi, 256)) for _ in range(2))
    arc = torch.remainder(second - first + math.pi, 2 * math.pi) - math.pi
    t = torch.linspace(0, 1, 16, dtype=torch.float64)
    exact = signed((first[:, None] + arc[:, None] * t).flatten()).view(256, 16, -1)
    a, b, t = exact[:, :1], exact[:, -1:], t[:, None]
    noise = torch.from_numpy(stream.normal(0, 0.1, tuple(exact.shape)))
    return {
        "exact": exact,
        "cross-fade": (1 - t) * a + t * b,
        "jump": torch.where(t < 0.5, a, b),
        "constant": a.expand_as(exact),
        "black": -torch.ones_like(exact),
        "noise": exact + noise,
    }


@pytest.mark.parametrize(
    ("kind", "distance", "smoothness", "within"),
    [
        ("exact", 0.0, 0.0010, 0.15),
        ("cross-fade", 0.00633, 0.8907, 0.001),
        ("jump", 0.0, 0.9297, 1e-4),
        ("constant", 2e-7, math.nan, 0.0),
        ("black", 0.0307, math.nan, 0.0),
        # Most of it is from one pair whose ends are half a step of the grid apart. With lines of
        # floats, as the original's, it is 0.0151 here too; with ours, of bytes, 0.0169.
        ("noise", 0.00504, 0.0151, 0.15),
    ],
)
def test_known_answers_of_the_original_on_lines(
    kind: str, distance: float, smoothness: float, within: float, references: Tensor
) -> None:
    images = interpolations()[kind]
    distances, index = nearest(images.flatten(0, 1), references)
    assert distances.mean().item() == pytest.approx(distance, rel=0.005, abs=5e-7)
    scores = line_smoothness(index.view(256, 16) * (2 * math.pi / REFERENCES))
    undefined = scores.isnan().double().mean().item()
    # The original counts what is undefined as 0, unless all of it is.
    theirs = scores.nanmean().item() * (1 - undefined)
    assert theirs == pytest.approx(smoothness, rel=within, nan_ok=True)
    assert undefined == (1 if math.isnan(smoothness) else 1 / 256 if kind != "noise" else 0)


def test_the_cosine_distance_to_the_nearest() -> None:
    references = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    images = torch.tensor([[5.0, 0.0], [-1.0, 1e-9], [1.0, 1.0], [0.0, 0.0], [1.0, -2.0]])
    distances, index = nearest(images, references)
    expected = [0, 0, 1 - 0.5**0.5, 1, 1 - 0.2**0.5]
    assert distances.tolist() == pytest.approx(expected, abs=1e-12)
    assert index.tolist()[:2] == [0, 2]
    assert mean_distance(images, references) == pytest.approx(sum(expected) / 5)
    many = torch.randn(1500, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(nearest(many, many)[1], torch.arange(1500))


@pytest.mark.parametrize(
    ("angles", "expected"),
    [
        ([0, 1, 2, 3], 0),
        ([6.0, 6.1, 6.2, 6.3 - 2 * math.pi], 0),  # past the right
        ([1, 1, 1, 2], 2 / 3),
        ([0, 2, 1, 1], 5 / 3),  # there and halfway back
        ([1, 2, 0, 1], math.nan),
        ([1, 1, 1, 1.00005], math.nan),
    ],
)
def test_line_smoothness(angles: list[float], expected: float) -> None:
    found = line_smoothness(torch.tensor([angles], dtype=torch.float64)).item()
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)


class OfLines(Echo):
    """The code is the direction of a line, as (cos, sin); points between are drawn as lines."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        self.lines = Lines()
        self.grid = torch.arange(REFERENCES, dtype=torch.float64) * (2 * math.pi / REFERENCES)
        self.drawn = self.lines.line(self.grid)

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        index = nearest(x * 2 - 1, self.drawn.double() / 127.5 - 1)[1]
        return torch.stack([self.grid[index].cos(), self.grid[index].sin()], 1).float()

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.lines.line(torch.atan2(z[:, 1], z[:, 0]).double()).float() / 255


def on_lines(cls: type[Echo]) -> dict[str, Any]:
    dataset = Lines(train=60, val=20, test=200)
    fitted = Fitted(cls(spec(dataset)), dataset, Pixels(dataset))
    return dict(NearestLines(pairs=100).compute(fitted))


def test_lines_of_a_perfect_model_and_of_a_cross_fade() -> None:
    perfect, fade = on_lines(OfLines), on_lines(Echo)
    for found in (perfect, fade):
        assert set(found) == {q.name for q in NearestLines.quantities}
        assert found["lines_reconstruction_distance"] < 2e-6
        assert found["lines_degenerate"] < 0.02
    assert perfect["lines_distance"] < 2e-6
    assert fade["lines_distance"] == pytest.approx(0.00633, rel=0.1)
    assert fade["lines_smoothness"] == pytest.approx(0.89, abs=0.03)
    # The chord between directions does not turn evenly: at its middle it is nearer the origin.
    assert 0.01 < perfect["lines_smoothness"] < 0.5


def test_lines_of_a_decoder_that_gives_one_line() -> None:
    class One(OfLines):
        def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return super().raw(torch.ones_like(z), y)

    found = on_lines(One)
    assert found["lines_degenerate"] == 1
    assert "no path has two angles" in str(found["lines_smoothness"])
    assert found["lines_distance"] < 1e-5


def test_the_reconstruction_distance_is_of_the_ends() -> None:
    class Torn(OfLines):
        """Only codes of test lines, which have unit length, are decoded well."""

        def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            inside = (z.norm(dim=1) < 0.999)[:, None, None, None]
            return torch.where(inside, 0.0, super().raw(z, y))

    found = on_lines(Torn)
    assert found["lines_reconstruction_distance"] < 2e-6
    assert found["lines_distance"] > 0.02


def test_lines_need_lines() -> None:
    fitted = fitted_echo(noise_images(30, 1, 32, 32))
    assert NearestLines().lacks(fitted) == "the images are not lines"
