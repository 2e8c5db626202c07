"""What lies between two images: the decoded path between their codes, straight or on an arc."""

import math
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...datasets import as_float
from ...datasets.lines import Lines
from ...plugins import InputError
from .base import Fitted, Metric, NotApplicable, Quantity, Values, as_uint8, finite
from .generation import OnFeatures

LEAST_LENGTH = 1 / 255
"""A path is degenerate if it is shorter in all than one grey level of one pixel."""
LEAST_TURN = 1e-4
"""A path of lines is degenerate if its ends are nearer than this, in radians."""
LEAST_SINE = 1e-6
"""Codes at an angle whose sine is smaller are in line: the arc between them is not determined."""
REFERENCES = 10_000
"""True lines, evenly spaced over the turn, among which the nearest is looked for."""
CHUNK = 512
"""Images at a time, in whole paths. A number of its own: no score may hang on the batch size."""


def on_path(first: Tensor, second: Tensor, t: Tensor, spherical: bool = False) -> Tensor:
    r"""Codes between others: straight, or along the arc of directions (Shoemake 1985).

    .. math::
        (1 - t) z_1 + t z_2 \quad\text{or}\quad
        \frac{\sin((1 - t)\omega)}{\sin\omega} z_1 + \frac{\sin(t\omega)}{\sin\omega} z_2

    with ω the angle between the flattened codes. Between codes of one norm the arc keeps it. It
    is taken straight where it is not determined: where a code is zero, or ω is 0 or π.

    Args:
        first: z₁ of each path, (n, …).
        second: z₂, the same shape.
        t: the places on each path, (n, T); 0 gives z₁, 1 gives z₂.
        spherical: whether along the arc.

    Returns:
        (n, T, …), computed in float64, in the precision of ``first``.
    """
    a, b, t = first.flatten(1).double(), second.flatten(1).double(), t.double()
    left, right = 1 - t, t
    if spherical:
        units = F.normalize(a, dim=1), F.normalize(b, dim=1)
        gap, joint = (units[0] - units[1]).norm(dim=1), (units[0] + units[1]).norm(dim=1)
        omega = 2 * torch.atan2(gap, joint)[:, None]
        bent = (omega.sin() > LEAST_SINE) & (a.any(1) & b.any(1))[:, None]
        sine = torch.where(bent, omega.sin(), 1.0)
        left = torch.where(bent, (left * omega).sin() / sine, left)
        right = torch.where(bent, (right * omega).sin() / sine, right)
    codes = left[:, :, None] * a[:, None] + right[:, :, None] * b[:, None]
    return codes.to(first.dtype).unflatten(2, first.shape[1:])


def unevenness(steps: Tensor) -> Tensor:
    r"""How far the longest step of each path is above an equal share.

    .. math:: \frac{\max_t d_t}{\sum_t d_t} - \frac{1}{T - 1}

    0 for a path of equal steps, 1 - 1/(T-1) for one jump; NaN for a path of next to no length.
    Berthelot et al. 2019, arXiv:1807.07543, with distances of images for their angles of lines.

    Args:
        steps: the distances d between neighbouring points, (n, T - 1).
    """
    total = steps.sum(1)
    uneven = steps.amax(1) / total - 1 / steps.shape[1]
    return torch.where(total < LEAST_LENGTH, torch.nan, uneven)


def path_length(first: Tensor, second: Tensor, step: float) -> float:
    r"""The mean square speed of features along paths, of pairs of points ``step`` apart.

    .. math:: E\left[\lVert f_1 - f_2\rVert^2 / \epsilon^2\right]

    The mean leaves out the values below the 1st and above the 99th percentile; those are the
    nearest values outwards, so that few values are all kept. Karras et al. 2019, arXiv:1812.04948.

    Args:
        first: the features at the nearer point of each pair, (n, k).
        second: those at the farther one.
        step: ε, the distance of the points as a share of the path.
    """
    speeds = (second.double() - first.double()).square().sum(1) / step**2
    low = speeds.quantile(0.01, interpolation="lower")
    high = speeds.quantile(0.99, interpolation="higher")
    return speeds[(low <= speeds) & (speeds <= high)].mean().item()


def nearest(images: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    r"""The least cosine distance of each image to the references, and which one it is.

    .. math:: \min_r \; 1 - \frac{\langle x, r\rangle}{\lVert x\rVert \lVert r\rVert}

    In float64: neighbouring lines are less than 1e-6 apart. An image of zeros, which has no
    direction, is at distance 1 of all, and the first is its nearest.

    Args:
        images: (n, …).
        references: (m, …), of the same shape.

    Returns:
        The distances in [0, 2], float64 (n,), and the indices, int64 (n,).
    """
    units = F.normalize(references.flatten(1).double(), dim=1).T
    found = [
        (F.normalize(some.flatten(1).double(), dim=1) @ units).max(1)
        for some in images.split(CHUNK)
    ]
    distances = 1 - torch.cat([cosine for cosine, _ in found])
    return distances.clamp(0, 2), torch.cat([index for _, index in found])


def mean_distance(images: Tensor, references: Tensor) -> float:
    """The mean over images of the cosine distance to the :func:`nearest` reference.

    Berthelot et al. 2019, arXiv:1807.07543, with lines for references. The original compares
    images in [-1, 1]; a cosine is another in [0, 1].

    Args:
        images: (n, …).
        references: (m, …), in the same range.
    """
    return nearest(images, references)[0].mean().item()


def line_smoothness(angles: Tensor) -> Tensor:
    r"""How far the largest turn of each path of lines is above an equal share.

    .. math::
        \max_t \frac{|\theta_{t+1} - \theta_t|}{|\theta_T - \theta_1|} - \frac{1}{T - 1}

    with the angles unwrapped: a turn of more than π is one the other way. 0 where all turns are
    equal, 1 - 1/(T-1) for one jump, more for a path that turns back; NaN where the ends are less
    than 1e-4 apart. Berthelot et al. 2019, arXiv:1807.07543.

    The original sums the paths that have a score and divides by the number of all, so that the
    others count as perfect: its value is the mean of ours times one less the share of NaN.

    Args:
        angles: the angles in radians, (n, T).

    Returns:
        float64 (n,).
    """
    unwrapped = torch.from_numpy(np.unwrap(angles.double().cpu().numpy(), axis=1))
    total = (unwrapped[:, -1] - unwrapped[:, 0]).abs()
    uneven = unwrapped.diff(dim=1).abs().amax(1) / total - 1 / (angles.shape[1] - 1)
    return torch.where(total < LEAST_TURN, torch.nan, uneven.clamp(min=0))


def draw_pairs(n: int, pairs: int, labels: Tensor | None = None) -> Tensor:
    """Pairs of different indices below ``n``, int64 (pairs, 2), from torch's global stream.

    Args:
        n: how many there are to choose from.
        pairs: how many pairs.
        labels: both ends of a pair share theirs, where given: int64 (n,).

    Raises:
        NotApplicable: no two can be paired.
    """
    labels = torch.zeros(n, dtype=torch.int64) if labels is None else labels
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    starts = counts.cumsum(0) - counts
    size = counts[labels]  # of each index's group
    able = (size > 1).nonzero().squeeze(1)
    if not len(able):
        raise NotApplicable("no two test images can be paired")
    first = able[torch.randint(len(able), (pairs,))]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(n) - starts[labels[order]]
    # Float64 draws in [0, 1) give every group its own range of offsets, 1 to size - 1.
    offset = 1 + (torch.rand(pairs, dtype=torch.float64) * (size[first] - 1)).long()
    second = order[starts[labels[first]] + (rank[first] + offset) % size[first]]
    return torch.stack([first, second], 1)


def unshared(fitted: Fitted) -> str:
    """Why no two images can be decoded alike but for their codes; empty where they can."""
    return f"the decoder reads {fitted.shown} of the image" if fitted.shown else ""


Ends = tuple[Tensor, Tensor, Tensor | None]
"""The codes at both ends of paths, each (n, …), and the labels (n,) or None."""


class BetweenPairs(Metric):
    """A metric of decoded points between the codes of pairs of test images.

    A model with discrete codes decodes such a point as the nearest code. The pairs of a model whose
    decoder is given the label share it; they are nearer than others, and stand in a column of their
    own. Where the decoder is given more of an image, no two images share it.
    """

    family = "interpolation"

    def lacks(self, fitted: Fitted) -> str:
        return super().lacks(fitted) or unshared(fitted)

    def qualifier(self, fitted: Fitted) -> str:
        held = [super().qualifier(fitted), fitted.model.given]
        return "|".join(word for word in held if word)

    def ends(self, fitted: Fitted, pairs: int) -> Ends:
        """The codes of both ends of random pairs, (pairs, …), and their labels or None."""
        labels = fitted.labels("test") if fitted.model.given else None
        codes = fitted.codes("test")
        with fitted.random(self.name, "pairs"):
            first, second = draw_pairs(len(codes), pairs, labels).unbind(1)
        shared = None if labels is None else labels[first].to(codes.device)
        return codes[first.to(codes.device)], codes[second.to(codes.device)], shared

    @torch.no_grad()
    def paths(
        self, fitted: Fitted, ends: Ends, t: Tensor, spherical: bool = False
    ) -> Iterator[Tensor]:
        """The images at places t (n, T) of paths, some paths at a time, on the model's device.

        Yields:
            Mean images float32 (p, T, C, H, W) in [0, 1].

        Raises:
            NotApplicable: a pixel is not finite.
        """
        first, second, labels = ends
        points = t.shape[1]
        at_once = max(1, CHUNK // points)
        for start in range(0, len(first), at_once):
            part = slice(start, start + at_once)
            codes = on_path(first[part], second[part], t[part].to(first.device), spherical)
            y = None if labels is None else labels[part].repeat_interleave(points)
            images = fitted.model.decode(codes.flatten(0, 1), y)
            yield finite(images, "decoded images").unflatten(0, (-1, points))

    def both(
        self, fitted: Fitted, value: Callable[[bool], float | NotApplicable]
    ) -> dict[str, float | NotApplicable]:
        """What ``value`` gives on straight paths, and where codes have angles, on arcs."""
        found: dict[str, float | NotApplicable] = {self.name: value(False)}
        no_angle = NotApplicable("discrete codes have no angle")
        found[f"{self.name}_spherical"] = no_angle if fitted.model.discrete else value(True)
        return found

    def words(self, fitted: Fitted) -> str:
        """Which pairs, in words."""
        within = " of one label" if fitted.model.given else ""
        return f"random pairs{within} of the test split, between deterministic codes"


class OfPaths(BetweenPairs):
    """A metric of whole paths, decoded at evenly spaced points.

    Args:
        pairs: how many paths.
        points: T, the decoded points of a path, both ends among them.
    """

    def __init__(self, *, pairs: int = 256, points: int = 16) -> None:
        self.at_least(1, pairs=pairs)
        self.at_least(3, points=points)
        self.pairs, self.points = pairs, points

    def whole(self, fitted: Fitted, spherical: bool = False) -> Iterator[Tensor]:
        """The images of :meth:`paths` at all points, float32 (p, T, C, H, W) in [0, 1]."""
        t = torch.linspace(0, 1, self.points, dtype=torch.float64).expand(self.pairs, -1)
        return self.paths(fitted, self.ends(fitted, self.pairs), t, spherical)


class Smoothness(OfPaths):
    """How evenly the image changes along a path of codes: :func:`unevenness`.

    The mean over paths that are not degenerate; n/a where the decoder makes all of them so.

    Args:
        pairs: how many paths.
        points: T, the decoded points of a path, both ends among them.
    """

    name = "smoothness"
    quantities: ClassVar = (
        Quantity("smoothness", "lower", low=0, high=1),
        Quantity("smoothness_spherical", "lower", low=0, high=1, ranked=False),
        Quantity("smoothness_degenerate", "lower", low=0, high=1, ranked=False),
    )
    source = "Berthelot et al. 2019, arXiv:1807.07543"
    description = "longest step of a decoded path above an equal share; 0 is perfectly even"

    def scores(self, fitted: Fitted, spherical: bool = False) -> Tensor:
        """The score of each path, float64 (pairs,), NaN where it is degenerate."""

        def compute() -> Tensor:
            paths = self.whole(fitted, spherical)
            steps = [some.double().flatten(2).diff(dim=1).norm(dim=2).cpu() for some in paths]
            return unevenness(torch.cat(steps)).clamp(min=0)

        return fitted.once((self.name, self.pairs, self.points, spherical), compute)

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        def value(spherical: bool) -> float | NotApplicable:
            mean = self.scores(fitted, spherical).nanmean().item()
            if math.isnan(mean):
                return NotApplicable("the decoded image does not change on any path")
            return mean

        degenerate = self.scores(fitted).isnan().double().mean().item()
        return self.both(fitted, value) | {"smoothness_degenerate": degenerate}

    def estimator(self, fitted: Fitted) -> str:
        return (
            f"{self.pairs} {self.words(fitted)}, straight or (spherical) along arcs, "
            f"{self.points} points, Euclidean distance of pixels in [0, 1], paths shorter than "
            "1/255 left out and counted (degenerate, of the straight ones)"
        )


class MidpointFID(BetweenPairs, OnFeatures):
    """Fréchet distance of the decoded midpoints of pairs of test images to the test images.

    Ghosh et al. 2020, arXiv:1903.12436.

    Args:
        pairs: how many midpoints; None takes the test split's number, at most 10,000, as for FID.
    """

    name = "midpoint_fid"
    quantities: ClassVar = (
        Quantity("midpoint_fid", "lower", low=0),
        Quantity("midpoint_fid_spherical", "lower", low=0, ranked=False),
    )
    source = "Ghosh et al. 2020, arXiv:1903.12436"
    description = "Fréchet distance between features of decoded midpoints and of test images"

    def __init__(self, *, pairs: int | None = None) -> None:
        self.at_least(2, pairs=pairs)
        self.pairs = pairs

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        ends = self.ends(fitted, self.pairs or fitted.generated)
        half = torch.full((len(ends[0]), 1), 0.5)

        def value(spherical: bool) -> float:
            paths = self.paths(fitted, ends, half, spherical)
            images = torch.cat([as_uint8(some[:, 0]).cpu() for some in paths])
            return self.fid(fitted, fitted.features(images))

        return self.both(fitted, value)

    def estimator(self, fitted: Fitted) -> str:
        real = len(fitted.dataset.split("test"))
        return (
            f"midpoints of {self.pairs or fitted.generated} {self.words(fitted)}, straight or "
            f"(spherical) of their arcs, against {real} images of the test split, features of "
            f"{fitted.extractor.label}"
        )


class PathLength(BetweenPairs, OnFeatures):
    """Perceptual path length, the mean square speed along a path of codes: :func:`path_length`.

    It departs from Karras et al. 2019, arXiv:1812.04948, in three ways. The distance is that of
    the extractor's features, not LPIPS. The ends are codes of test images, not drawn from the
    prior, so it is about the decoder between data. And ε is 0.01, not 0.0001: images and features
    are float32, not rounded to grey levels, and on small networks their rounding then changes the
    value by less than a millionth, where at 0.0001 it changes it by some 1e-5 and more; between
    the two the value itself differs by one or two hundredths at most.

    A blurred decoder moves little and scores well, so it is not ranked, but read beside the
    reconstructions. One that does not move at all is n/a, as is a model with discrete codes: its
    images jump, and the square of a jump over ε grows without bound as ε falls.

    Args:
        pairs: how many paths; on each one place, uniform among those with both points on the path.
        eps: ε, the distance of the two points as a share of the path.

    Raises:
        InputError: ``eps`` is not in (0, 1].
    """

    name = "path_length"
    quantities: ClassVar = (
        Quantity("path_length", "lower", low=0, ranked=False),
        Quantity("path_length_spherical", "lower", low=0, ranked=False),
    )
    source = "Karras et al. 2019, arXiv:1812.04948"
    description = "mean square speed of the decoded image's features along a path of codes"

    def __init__(self, *, pairs: int = 1000, eps: float = 0.01) -> None:
        self.at_least(1, pairs=pairs)
        if not 0 < eps <= 1:
            raise InputError(f"metric {self.name!r}: eps must be above 0 and at most 1, not {eps}")
        self.pairs, self.eps = pairs, eps

    def lacks(self, fitted: Fitted) -> str:
        jumps = "the images of discrete codes jump" if fitted.model.discrete else ""
        return super().lacks(fitted) or jumps

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        ends = self.ends(fitted, self.pairs)
        with fitted.random(self.name, "places"):
            start = torch.rand(self.pairs, 1, dtype=torch.float64) * (1 - self.eps)
        t = torch.cat([start, start + self.eps], 1)

        def value(spherical: bool) -> float | NotApplicable:
            features = [
                fitted.extractor.features(some.flatten(0, 1)).double().cpu().unflatten(0, (-1, 2))
                for some in self.paths(fitted, ends, t, spherical)
            ]
            first, second = torch.cat(features).unbind(1)
            found = path_length(first, second, self.eps)
            return found or NotApplicable("the decoded image does not change on any path")

        return self.both(fitted, value)

    def estimator(self, fitted: Fitted) -> str:
        return (
            f"{self.pairs} {self.words(fitted)}, straight or (spherical) along arcs, steps of "
            f"{self.eps:g} of the path, squared Euclidean distance of features of "
            f"{fitted.extractor.label}, 1st to 99th percentile"
        )


class NearestLines(OfPaths):
    """How near decoded points between lines are to true lines, and how evenly their angle turns.

    The lines benchmark of Berthelot et al. 2019, arXiv:1807.07543: the end points are encoded test
    lines, and every decoded point is compared with 10,000 true lines by cosine distance of images
    in [-1, 1]. Two numbers that are read together: :func:`mean_distance`, 0 for a jump between
    the ends, and :func:`line_smoothness`, near 0 for noise with the right angles. The distance of
    the decoded end points alone, plain reconstructions, is a floor under the first: noise in them
    is enough to raise it.

    The original counts a path whose ends have one angle as perfectly smooth, so that a constant
    decoder could reach next to 0; here the mean is over the others, and the share of such paths
    is given beside it.

    Args:
        pairs: how many paths.
        points: T, the decoded points of a path, both ends among them.
    """

    name = "lines"
    quantities: ClassVar = (
        Quantity("lines_distance", "lower", low=0, high=2),
        Quantity("lines_smoothness", "lower", low=0),
        Quantity("lines_reconstruction_distance", "lower", low=0, high=2, ranked=False),
        Quantity("lines_degenerate", "lower", low=0, high=1, ranked=False),
    )
    source = "Berthelot et al. 2019, arXiv:1807.07543"
    description = "distance to true lines and evenness of the turn between lines (dataset lines)"

    def lacks(self, fitted: Fitted) -> str:
        other = "" if isinstance(fitted.dataset, Lines) else "the images are not lines"
        return super().lacks(fitted) or other

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        assert isinstance(fitted.dataset, Lines)
        grid = torch.arange(REFERENCES, dtype=torch.float64) * (2 * math.pi / REFERENCES)
        references = as_float(fitted.dataset.line(grid).to(fitted.device)) * 2 - 1
        images = torch.cat(list(self.whole(fitted))) * 2 - 1
        distances, index = nearest(images.flatten(0, 1), references)
        by_path = distances.view(self.pairs, self.points)
        smoothness = line_smoothness(grid[index.cpu()].view(self.pairs, self.points))
        mean = smoothness.nanmean().item()
        return {
            "lines_distance": distances.mean().item(),
            "lines_smoothness": (
                NotApplicable("no path has two angles at its ends") if math.isnan(mean) else mean
            ),
            "lines_reconstruction_distance": by_path[:, [0, -1]].mean().item(),
            "lines_degenerate": smoothness.isnan().double().mean().item(),
        }

    def estimator(self, fitted: Fitted) -> str:
        return (
            f"{self.pairs} {self.words(fitted)}, straight, {self.points} points, cosine distance "
            f"in [-1, 1] to {REFERENCES} lines, smoothness over the paths whose ends differ in "
            "angle by 1e-4 or more"
        )
