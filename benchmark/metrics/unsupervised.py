"""What codes say of each other: no factors are needed."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from .base import AcrossSeeds, Fitted, Kept, Metric, NotApplicable, Quantity, Values, finite

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WIDEST = 1_000
"""The most codes whose pairs are looked at."""

SINGULAR = 1e-10
"""Codes whose correlations have a smaller eigenvalue are linearly dependent but for rounding."""


def cut(values: NDArray[Any], bins: int) -> Ints:
    """Values (n,) as the numbers of ``bins`` of equal width over their range, int64 (n,)."""
    edges = np.linspace(values.min(), values.max(), bins + 1)[:-1]
    return np.searchsorted(edges, values, side="right") - 1


def mutual_information(a: Ints, b: Ints, size_a: int, size_b: int) -> float:
    """The mutual information in nats of two samples (n,) of integers in [0, size)."""
    counts = np.bincount(a * size_b + b, minlength=size_a * size_b).reshape(size_a, size_b)
    joint = counts / len(a)
    apart = np.outer(joint.sum(1), joint.sum(0))
    some = joint > 0
    return max(0.0, float((joint[some] * np.log(joint[some] / apart[some])).sum()))


def unsupervised(codes: NDArray[Any], bins: int = 20) -> dict[str, float]:
    r"""How far codes are from independent; 0 where they are, and where all but one stand still.

    Of their covariance :math:`\Sigma` and its diagonal :math:`D`, in the order of the answer:

    .. math::
        \mathrm{TC} &= \tfrac12 (\log\det D - \log\det\Sigma) \\
        \mathrm{W} &= 2\,\mathrm{tr}\,\Sigma - 2\,\mathrm{tr}\,(D^{1/2} \Sigma D^{1/2})^{1/2} \\
        \mathrm{W} &/\, \mathrm{tr}\,\Sigma

    the total correlation of a Gaussian in nats, the squared 2-Wasserstein distance from it to the
    product of its marginals in squared units of the codes, and the same as a share of the
    variance; then the mean mutual information of two codes in nats, each cut into ``bins`` of
    equal width, which chance keeps above 0. The total correlation of linearly dependent codes,
    such as duplicates, is infinite. All are NaN of fewer than two points and of codes that are not
    finite.

    Locatello et al. 2019, arXiv:1811.12359.

    Args:
        codes: (n, d).
        bins: how many bins a code has.

    Returns:
        ``gaussian_tc``, ``wasserstein_correlation``, ``wasserstein_correlation_normalised`` and
        ``code_mi``.
    """
    names = [quantity.name for quantity in Unsupervised.quantities]
    z = np.asarray(codes, dtype=np.float64)
    n, d = z.shape
    if n < 2 or not d or not np.isfinite(z).all():
        return dict.fromkeys(names, math.nan)
    binned = [cut(code, bins) for code in z.T]
    shared = [
        mutual_information(binned[i], binned[j], bins, bins) for i in range(d) for j in range(i)
    ]
    between = sum(shared) / max(len(shared), 1)
    z = z[:, np.ptp(z, 0) > 0]
    if not z.shape[1]:
        return dict(zip(names, (0.0, 0.0, 0.0, between)))
    covariance = np.atleast_2d(np.cov(z, rowvar=False))
    deviations = np.sqrt(np.diag(covariance))
    scale, total = np.outer(deviations, deviations), float(np.trace(covariance))
    spectrum = np.linalg.eigvalsh(covariance / scale)
    correlation = math.inf
    if spectrum[0] > SINGULAR:
        correlation = max(0.0, float(-np.log(spectrum).sum() / 2))
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(covariance * scale), 0))
    distance = max(0.0, 2 * total - 2 * float(roots.sum()))
    return dict(zip(names, (correlation, distance, distance / total, between)))


def udr(
    codes: Sequence[NDArray[Any]],
    kls: Sequence[NDArray[Any]] | None = None,
    kind: Literal["spearman", "lasso"] = "spearman",
    *,
    least_kl: float = 0.01,
    alpha: float = 0.1,
) -> list[float]:
    r"""The unsupervised disentanglement ranking: how well a model's codes are found in the others.

    Model i's score is the median over the other models j of

    .. math::
        \frac12 \left( \frac1{d_i} \sum_a \frac{\max_b R_{ab}^2}{\sum_b R_{ab}}
        + \frac1{d_j} \sum_b \frac{\max_a R_{ab}^2}{\sum_a R_{ab}} \right),

    where :math:`R_{ab}` is how much code a of model i has to do with code b of j, both
    standardised: the absolute rank correlation, or the absolute weight of b in a lasso that
    predicts a. Rank correlations of independent codes and of the same codes in any order and of any
    sign give 1; those of unrelated codes give what chance does, less for more points. Codes that
    stand still or whose mean KL is no more than ``least_kl`` are left out, and a pair of models of
    which one has none left counts as 0. NaN without another model and for codes that are not
    finite, with which no others are compared.

    Duan et al. 2020, arXiv:1905.12614.

    Args:
        codes: (n, d) of each model, of the same n images in the same order; d may differ.
        kls: the mean KL of each code in nats, (d,) of each model; all codes count without.
        kind: ``spearman``, or ``lasso``, with which even equal codes score below 1.
        least_kl: in nats, above it a code is informative.
        alpha: the lasso's penalty.
    """
    active: list[Floats | None] = []
    for i, held in enumerate(codes):
        z = np.asarray(held, dtype=np.float64)
        if not np.isfinite(z).all():
            active.append(None)
            continue
        counts = np.ptp(z, 0) > 0 if len(z) else np.zeros(z.shape[1], dtype=bool)
        if kls is not None:
            counts &= np.asarray(kls[i]) > least_kl
        active.append(_standardised(z[:, counts], ranks=kind == "spearman"))
    scores = []
    for i, own in enumerate(active):
        pairs = []
        for j, other in enumerate(active):
            if own is not None and other is not None and i != j:
                pairs.append(_strength(_relation(own, other, kind, alpha)))
        scores.append(float(np.median(pairs)) if pairs else math.nan)
    return scores


def _standardised(z: Floats, ranks: bool) -> Floats:
    from scipy.stats import rankdata

    if ranks and z.size:
        z = rankdata(z, axis=0)
    return (z - z.mean(0)) / z.std(0) if z.size else z


def _relation(own: Floats, other: Floats, kind: str, alpha: float) -> Floats:
    """How much each own code has to do with each of the other's, (d own, d other)."""
    if not own.size or not other.size:
        return np.zeros((own.shape[1], other.shape[1]))
    if kind == "spearman":
        return np.abs(own.T @ other) / len(own)
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        weights = Lasso(alpha=alpha).fit(other, own).coef_
    return np.abs(weights).reshape(own.shape[1], other.shape[1])


def _strength(relation: Floats) -> float:
    """How far each row and each column is one entry: the mean of the two means."""
    if not relation.size:
        return 0.0
    sides = []
    for axis in (0, 1):
        total, most = relation.sum(axis), relation.max(axis)
        sides.append((most**2 / np.where(total > 0, total, 1)).mean())
    return float(np.mean(sides))


def narrow(codes: torch.Tensor, most: int) -> NDArray[Any]:
    """Codes (n, d) as an array, of at most ``most`` dimensions.

    Raises:
        NotApplicable: there are more.
    """
    if codes.shape[1] > most:
        raise NotApplicable(f"{codes.shape[1]} codes are more than the {most} that it can compare")
    return codes.numpy()


class Unsupervised(Metric):
    """How far from independent the first test images' deterministic codes are.

    See :func:`unsupervised`.

    Args:
        points: how many test images; fewer where the split has fewer.
        bins: bins a code.
    """

    name = "unsupervised"
    family = "disentanglement"
    quantities: ClassVar = (
        Quantity("gaussian_tc", "lower", "nats", low=0, ranked=False),
        Quantity("wasserstein_correlation", "lower", low=0, ranked=False),
        Quantity("wasserstein_correlation_normalised", "lower", low=0, high=2, ranked=False),
        Quantity("code_mi", "lower", "nats", low=0, ranked=False),
    )
    source = "Locatello et al. 2019, arXiv:1811.12359"
    description = "dependence between codes, of a Gaussian's correlations and by bins"

    def __init__(self, *, points: int = 10_000, bins: int = 20) -> None:
        self.at_least(2, points=points, bins=bins)
        self.points, self.bins = points, bins

    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        codes = narrow(fitted.embeddings("test", self.points), WIDEST)
        if len(codes) < 2:
            raise NotApplicable("there are fewer than two test images")
        found: dict[str, float | NotApplicable] = dict(unsupervised(codes, self.bins))
        if found["gaussian_tc"] == math.inf:
            found["gaussian_tc"] = NotApplicable(
                "the codes are linearly dependent: the total correlation is infinite"
            )
        return found

    def estimator(self, fitted: Fitted) -> str:
        n = min(self.points, len(fitted.dataset.split("test")))
        return (
            f"{n} images of the test split, deterministic codes; {self.bins} bins of equal width "
            "for code_mi"
        )


class UDR(AcrossSeeds):
    """The unsupervised disentanglement ranking: :func:`udr` of the seeds of one model.

    A model that has no KL a dimension has all of its codes compared.

    Args:
        points: how many test images' codes a cell keeps; fewer where the split has fewer.
        relation: of two codes, ``spearman`` or ``lasso``.
        least_kl: in nats, above it a code is informative.
    """

    name = "udr"
    family = "disentanglement"
    quantities: ClassVar = (Quantity("udr", "higher", low=0, ranked=False),)
    source = "Duan et al. 2020, arXiv:1905.12614"
    description = "how well a seed's codes are found one by one in those of the other seeds"

    def __init__(
        self,
        *,
        points: int = 1_000,
        relation: Literal["spearman", "lasso"] = "spearman",
        least_kl: float = 0.01,
    ) -> None:
        self.at_least(2, points=points)
        self.points, self.least_kl = points, least_kl
        self.relation: Literal["spearman", "lasso"] = relation

    @torch.no_grad()
    def keep(self, fitted: Fitted) -> Kept:
        codes = narrow(fitted.embeddings("test", self.points), WIDEST)
        kl = torch.full((codes.shape[1],), math.inf)
        if fitted.model.offers("kl"):
            parts = [fitted.model.kl(x, y).cpu() for x, y in fitted.batches("test", self.points)]
            kl = finite(torch.cat(parts).double().mean(0), "KL divergences").float()
        return {"codes": codes, "kl": kl.numpy()}

    def compare(self, kept: list[Kept]) -> list[Values]:
        codes, kls = ([held[name] for held in kept] for name in ("codes", "kl"))
        scores = udr(codes, kls, self.relation, least_kl=self.least_kl)
        return [{"udr": score} for score in scores]

    def compared(self, seeds: int) -> str:
        relation = "rank correlations" if self.relation == "spearman" else "lasso weights"
        return (
            f"median over {seeds - 1} other seeds, {relation} of the deterministic codes of the "
            f"first {self.points} test images, codes of mean KL > {self.least_kl:g} nats where "
            "the model has one, else all"
        )
