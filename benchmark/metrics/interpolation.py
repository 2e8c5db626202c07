"""What lies between two images: the decoded straight path between their codes."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from .base import Fitted, Metric, NotApplicable, Quantity
from .generation import OnFeatures, fid

LEAST_LENGTH = 1 / 255
"""A path is degenerate if it is shorter in all than one grey level of one pixel."""


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


class BetweenPairs(Metric):
    """A metric of decoded points between the codes of pairs of test images.

    A model with discrete codes decodes such a point as the nearest code. A conditional model's
    pairs share their label; they are nearer than others, and stand in a column of their own.
    """

    family = "interpolation"

    def qualifier(self, fitted: Fitted) -> str:
        held = [super().qualifier(fitted), "label" if fitted.model.conditional else ""]
        return "|".join(word for word in held if word)

    def ends(self, fitted: Fitted, pairs: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """The codes of both ends of random pairs, (pairs, …), and their labels or None."""
        labels = fitted.labels("test") if fitted.model.conditional else None
        codes = fitted.codes("test")
        with fitted.random(self.name, "pairs"):
            first, second = draw_pairs(len(codes), pairs, labels).unbind(1)
        shared = None if labels is None else labels[first]
        return codes[first.to(codes.device)], codes[second.to(codes.device)], shared

    def words(self, fitted: Fitted) -> str:
        """Which pairs, in words."""
        within = " of one label" if fitted.model.conditional else ""
        return f"random pairs{within} of the test split, straight between deterministic codes"


class Smoothness(BetweenPairs):
    """How evenly the image changes along a straight path of codes: :func:`unevenness`.

    The mean over paths that are not degenerate; n/a where the decoder makes all of them so.

    Args:
        pairs: how many paths.
        points: T, the decoded points of a path, both ends among them.
    """

    name = "smoothness"
    quantities: ClassVar = (Quantity("smoothness", "lower", low=0, high=1),)
    source = "Berthelot et al. 2019, arXiv:1807.07543"
    description = "longest step of a decoded path above an equal share; 0 is perfectly even"

    def __init__(self, *, pairs: int = 256, points: int = 16) -> None:
        self.at_least(1, pairs=pairs)
        self.at_least(3, points=points)
        self.pairs, self.points = pairs, points

    def scores(self, fitted: Fitted) -> Tensor:
        """The score of each path, float64 (pairs,), NaN where it is degenerate."""

        def compute() -> Tensor:
            first, second, labels = self.ends(fitted, self.pairs)
            places = torch.linspace(0, 1, self.points, device=first.device)
            scores = []
            for i in range(self.pairs):
                t = places.view(-1, *[1] * (first.dim() - 1))
                y = None if labels is None else labels[i].expand(self.points)
                path = torch.cat(list(fitted.mean_images((1 - t) * first[i] + t * second[i], y)))
                steps = path.double().flatten(1).diff(dim=0).norm(dim=1)
                scores.append(unevenness(steps[None]).cpu())
            return torch.cat(scores)

        return fitted.once((self.name, self.pairs, self.points), compute)

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        value = self.scores(fitted).nanmean().item()
        if math.isnan(value):
            raise NotApplicable("the decoded image does not change on any path")
        return {"smoothness": value}

    def estimator(self, fitted: Fitted) -> str:
        degenerate = int(self.scores(fitted).isnan().sum())
        return (
            f"{self.pairs} {self.words(fitted)}, {self.points} points, Euclidean distance of "
            f"pixels in [0, 1], {degenerate} degenerate paths left out"
        )


class MidpointFID(BetweenPairs, OnFeatures):
    """Fréchet distance of the decoded midpoints of pairs of test images to the test images.

    Ghosh et al. 2020, arXiv:1903.12436.

    Args:
        pairs: how many midpoints; None takes the test split's number, at most 10,000, as for FID.
    """

    name = "midpoint_fid"
    quantities: ClassVar = (Quantity("midpoint_fid", "lower", low=0),)
    source = "Ghosh et al. 2020, arXiv:1903.12436"
    description = "Fréchet distance between features of decoded midpoints and of test images"

    def __init__(self, *, pairs: int | None = None) -> None:
        self.at_least(2, pairs=pairs)
        self.pairs = pairs

    def compute(self, fitted: Fitted, sampler: str = "") -> dict[str, float]:
        first, second, labels = self.ends(fitted, self.pairs or fitted.generated)
        images = fitted.decode((first + second) / 2, labels)
        return {"midpoint_fid": fid(fitted.real_features("test"), fitted.features(images))}

    def estimator(self, fitted: Fitted) -> str:
        real = len(fitted.dataset.split("test"))
        return (
            f"midpoints of {self.pairs or fitted.generated} {self.words(fitted)}, against {real} "
            f"images of the test split, features of {fitted.extractor.label}"
        )
