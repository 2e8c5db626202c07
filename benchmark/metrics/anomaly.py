"""How well a model tells images unlike its training images by their scores."""

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...datasets import Split, as_float
from .base import Fitted, Metric, NotApplicable, Quantity, Values, finite
from .likelihood import bounds, importance_log_likelihood

Floats = NDArray[np.float64]
Scores = tuple[Floats, Floats]
"""Those of usual images (n,) and of anomalies (m,); the higher the odder."""


def auroc(usual: Floats, odd: Floats) -> float:
    """P(odd > usual) + P(odd = usual) / 2: the area under the ROC curve, ``odd`` being positive.

    Args:
        usual: scores of usual images, (n,).
        odd: scores of anomalies, (m,).
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_together(usual, odd)))


def aupr(usual: Floats, odd: Floats) -> float:
    """The average precision with ``odd`` being positive; m / (n + m) by chance.

    Args:
        usual: scores of usual images, (n,).
        odd: scores of anomalies, (m,).
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_together(usual, odd)))


def _together(usual: Floats, odd: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Whether each is an anomaly, 0 or 1, and its score."""
    return np.repeat([0, 1], [len(usual), len(odd)]), np.concatenate([usual, odd])


def constant_images(levels: int, shape: tuple[int, int, int]) -> Tensor:
    """Images of one grey each, from black to white in equal steps: uint8 (levels, C, H, W)."""
    greys = torch.linspace(0, 255, levels, dtype=torch.float64).round().to(torch.uint8)
    return greys[:, None, None, None].expand(levels, *shape).contiguous()


class Outliers(Metric):
    """Scores images by how badly a model explains them.

    ``reconstruction`` is the squared error summed over an image; ``likelihood`` is -log p(x) by
    importance sampling (:func:`importance_log_likelihood`).

    Args:
        samples: draws of z an image, for the likelihood.
        images: the first so many test images are scored.
    """

    family = "anomaly"

    def __init__(self, *, samples: int, images: int) -> None:
        self.at_least(1, samples=samples, images=images)
        self.samples, self.images = samples, images

    def lacks(self, fitted: Fitted) -> str:
        told = "a label is needed to score an image" if fitted.model.given == "label" else ""
        return super().lacks(fitted) or told

    def qualifier(self, fitted: Fitted) -> str:
        return fitted.shown

    def scored(self, fitted: Fitted, odd: Split) -> dict[str, Scores | NotApplicable]:
        """By score those of the test images and of the anomalies ``odd``, or why there are none."""
        usual = fitted.split("test").take(slice(self.images))
        found: dict[str, Scores | NotApplicable] = {}
        for name, score in (("reconstruction", self.errors), ("likelihood", self.surprise)):
            try:
                found[name] = score(fitted, usual, "usual"), score(fitted, odd, "odd")
            except NotApplicable as reason:
                found[name] = reason
        return found

    @torch.no_grad()
    def errors(self, fitted: Fitted, split: Split, which: str) -> Floats:
        """The summed squared error of each image's reconstruction: (n,).

        Raises:
            NotApplicable: a pixel is not finite.
        """
        parts = []
        for pixels, _ in split.batches(fitted.batch_size):
            x = as_float(pixels)
            rebuilt = finite(fitted.model.reconstruct(x), "reconstructions")
            parts.append((rebuilt.double() - x).square().flatten(1).sum(1).cpu())
        return torch.cat(parts).numpy()

    def surprise(self, fitted: Fitted, split: Split, which: str) -> Floats:
        """-log p(x) of each image in nats, drawn within a stream of ``which``: (n,).

        Raises:
            NotApplicable: the model has no likelihood, or one is not finite.
        """
        if not fitted.model.offers("log_weights"):
            raise NotApplicable("the model has no log_weights")
        with fitted.random(self.name, which):
            found = bounds(fitted.model, split, self.samples, importance_log_likelihood)
        return finite(-found, "likelihoods").numpy()

    def how(self, fitted: Fitted) -> str:
        """What the scores are and what of, in words."""
        n = min(self.images, len(fitted.dataset.split("test")))
        return (
            f"{n} test images, scored by the squared error summed over an image and by -log p(x), "
            f"importance-sampled with {self.samples} samples of z an image"
        )


class HeldOutClass(Outliers):
    """Tells test images of a class that was held out of training from those of the others.

    The dataset's ``held_out`` names the class, so each class has rows of its own. The anomalies
    are positive; equal scores count half in the ROC curve.

    Args:
        samples: draws of z an image, for the likelihood.
        images: the first so many test images of either kind are scored.
    """

    name = "held_out_class"
    quantities: ClassVar = (
        Quantity("auroc_reconstruction", "higher", low=0, high=1),
        Quantity("aupr_reconstruction", "higher", low=0, high=1, ranked=False),
        Quantity("auroc_likelihood", "higher", low=0, high=1),
        Quantity("aupr_likelihood", "higher", low=0, high=1, ranked=False),
    )
    source = "An and Cho 2015, Special Lecture on IE 2:1"
    description = "images of a class held out of training, told by their scores"

    def __init__(self, *, samples: int = 16, images: int = 10_000) -> None:
        super().__init__(samples=samples, images=images)

    def lacks(self, fitted: Fitted) -> str:
        none = "" if fitted.dataset.anomalies else "no class is held out of training"
        return super().lacks(fitted) or none

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        values: dict[str, float | NotApplicable] = {}
        odd = fitted.split("anomalies").take(slice(self.images))
        for score, found in self.scored(fitted, odd).items():
            for name, area in (("auroc", auroc), ("aupr", aupr)):
                values[f"{name}_{score}"] = (
                    found if isinstance(found, NotApplicable) else area(*found)
                )
        return values

    def estimator(self, fitted: Fitted) -> str:
        odd = min(self.images, len(fitted.dataset.split("anomalies")))
        return f"{odd} test images of the class held out, as positives, and {self.how(fitted)}"


class OutlierTrap(Outliers):
    """Whether the model finds images of one grey less likely than the test images.

    Below one half it finds them likelier, though it has seen none such: likelihoods follow how
    simple an image is. They rate the images of simpler datasets above those trained on (Nalisnick
    et al. 2019, arXiv:1810.09136), so a score that fails here tells of simplicity first.

    Args:
        samples: draws of z an image, for the likelihood.
        images: the first so many test images are scored.
        levels: how many greys, from black to white in equal steps.
    """

    name = "outlier_trap"
    quantities: ClassVar = (
        Quantity("constant_auroc_reconstruction", "higher", low=0, high=1, ranked=False),
        Quantity("constant_auroc_likelihood", "higher", low=0, high=1, ranked=False),
    )
    source = "Nalisnick et al. 2019, arXiv:1810.09136"
    description = "images of one grey, told from test images by their scores"

    def __init__(self, *, samples: int = 16, images: int = 1_000, levels: int = 64) -> None:
        super().__init__(samples=samples, images=images)
        self.at_least(2, levels=levels)
        self.levels = levels

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        odd = Split(constant_images(self.levels, fitted.model.data.shape)).to(fitted.device)
        values: dict[str, float | NotApplicable] = {}
        for score, found in self.scored(fitted, odd).items():
            values[f"constant_auroc_{score}"] = (
                found if isinstance(found, NotApplicable) else auroc(*found)
            )
        return values

    def estimator(self, fitted: Fitted) -> str:
        return f"{self.levels} constant images, as positives, and {self.how(fitted)}"
