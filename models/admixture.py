"""Admixture: images as mixtures of populations, each a frequency of white a pixel."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributions import Dirichlet
from torch.nn import functional as F

from ..plugins import InputError
from .backbones import Backbone
from .backbones.linear import Linear
from .base import Autoencoder, Batch, ClosedForm, DataSpec, Terms

LEAST = 1e-5
"""Frequencies are in [LEAST, 1 - LEAST], so that no image is impossible."""
MOVED = 1e-5
"""An image's proportions are found when three steps move none of them by more."""
CHUNK = 1 << 16
"""Pixels at a time: temporaries that stay in a core's cache."""


def logits(z: Tensor, frequencies: Tensor) -> Tensor:
    """The logits of QP for codes (B, K) and frequencies (K, D): (B, D).

    A code off the simplex, which a sampler may draw, is clamped at 0 and divided by its sum.
    """
    q = F.normalize(z.clamp(min=1e-9), p=1, dim=1)
    return (q @ frequencies).log() - (q @ (1 - frequencies)).log()


class Admixture(ClosedForm):
    r"""ADMIXTURE: the frequencies of an image are a mixture of those of K populations.

    .. math::
        \max_{Q, P} \sum_{id} x_{id} \log (QP)_{id} + (1 - x_{id}) \log (1 - (QP)_{id}), \quad
        Q \ge 0, \; Q 1 = 1, \; P \in [0, 1]

    For genotypes of 0, 1 or 2 copies of an allele x is half of them, and this is half their
    binomial log-likelihood, without its constant; of binary pixels it is the likelihood, of grey
    ones the cross-entropy. Codes are the proportions of ancestry, rows of Q, (B, K): those under
    which the image is likeliest given P, a concave problem, solved image by image to three digits.
    The observation model is Bernoulli, of logits of QP.

    Fitted by EM from the centroids of k-means, every third step of which is from further ahead
    (Varadhan and Roland 2008, Scand. J. Stat. 35:335) unless the likelihood would fall; the paper's
    block relaxation climbs the same likelihood, accelerated by secants too. P keeps 1e-5 from 0 and
    1. It is the likelihood that is climbed: of few pixels an image it prefers populations further
    apart, and individuals more admixed, than the true ones.

    The paper has no prior over Q. The one here is the Dirichlet distribution with the means and the
    summed variance of the training images' proportions; many of these are 0, which its maximum
    likelihood does not bear. Alexander, Novembre and Lange 2009, Genome Research 19:1655.

    Args:
        populations: K, the number of ancestral populations.
        n_init: starts of the k-means by k-means++, of which the best is kept.
        tolerance: stop when three steps of EM gain less than so many nats an image.
        max_iter: the most steps of EM, of the fit and of an image's code alike.
    """

    name = "admixture"
    sampler = "prior"
    reference = "Alexander, Novembre and Lange 2009, Genome Research 19:1655"
    frequencies: Tensor
    concentration: Tensor

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone | None = None,
        *,
        populations: int = 10,
        n_init: int = 10,
        tolerance: float = 1e-4,
        max_iter: int = 1000,
    ) -> None:
        self.at_least(1, populations=populations, n_init=n_init, max_iter=max_iter)
        if not (tolerance > 0 and math.isfinite(tolerance)):
            raise InputError(f"model 'admixture': tolerance must be positive, not {tolerance}")
        if populations > data.size:
            raise InputError(
                f"model 'admixture': populations must be at most {data.size}, the number of "
                f"training images, not {populations}"
            )
        super().__init__(data, Linear(), latent_dim=populations, likelihood="bernoulli")
        self.n_init, self.tolerance, self.max_iter = n_init, tolerance, max_iter
        self.register_buffer("frequencies", torch.full((populations, self.pixels), 0.5))
        self.register_buffer("concentration", torch.ones(populations))

    def fit(self, images: Tensor, seed: int) -> None:
        from sklearn.cluster import KMeans

        x = images.flatten(1)
        solved = KMeans(self.latent_dim, n_init=self.n_init, random_state=seed).fit(x.cpu().numpy())
        labels = torch.as_tensor(solved.labels_, device=x.device).long()
        q = (F.one_hot(labels, self.latent_dim).double() + 1 / self.latent_dim) / 2
        p = torch.as_tensor(solved.cluster_centers_, device=x.device).double()
        p, before = p.clamp(LEAST, 1 - LEAST), -math.inf
        for _ in range(0, self.max_iter, 3):
            q1, p1, _ = em(x, q, p)
            q2, p2, reached = em(x, q1, p1)
            far = F.normalize(leap(q, q1, q2), p=1, dim=1)
            q, p, likelihood = em(x, far, leap(p, p1, p2).clamp(LEAST, 1 - LEAST))
            if likelihood.sum() < reached.sum():
                q, p, likelihood = q2, p2, reached
            mean = float(likelihood.mean())
            if mean - before < self.tolerance:
                break
            before = mean
        self.frequencies.copy_(p)
        self.concentration.copy_(dirichlet(q))

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        flat, p = x.flatten(1), self.frequencies.double()
        q = p.new_full((len(x), self.latent_dim), 1 / self.latent_dim)
        # Every image leaps and stops by itself, so that its code does not depend on the others.
        left = torch.arange(len(x), device=x.device)
        for _ in range(0, self.max_iter, 3):
            part, start = flat[left], q[left]
            q1, _, _ = em(part, start, p, fixed=True)
            q2, _, reached = em(part, q1, p, fixed=True)
            far = F.normalize(leap(start, q1, q2, dim=1), p=1, dim=1)
            q3, _, likelihood = em(part, far, p, fixed=True)
            q[left] = after = torch.where((likelihood < reached)[:, None], q2, q3)
            left = left[(after - start).abs().amax(1) > MOVED]
            if not len(left):
                break
        return q.float()

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return logits(z, self.frequencies).unflatten(1, self.data.shape)

    def sample_prior(self, n: int) -> Tensor:
        return Dirichlet(self.concentration).sample((n,))


def em(x: Tensor, q: Tensor, p: Tensor, *, fixed: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """A step of EM from proportions (N, K) and frequencies (K, D) of images (N, D) in [0, 1].

    Args:
        fixed: whether the frequencies stay.

    Returns:
        The next of both, and the log-likelihood of those before, in nats an image: (N,).
    """
    after, likelihood = torch.empty_like(q), q.new_empty(len(q))
    ones, zeros = torch.zeros_like(p), torch.zeros_like(p)
    rows = max(1, CHUNK // x.shape[1])
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        white, share = x[part].double(), q[part]
        black, mixed, rest = 1 - white, share @ p, share @ (1 - p)
        likelihood[part] = (white * mixed.log() + black * rest.log()).sum(1)
        white, black = white / mixed, black / rest
        after[part] = share * (white @ p.T + black @ (1 - p).T)
        if not fixed:
            ones += share.T @ white
            zeros += share.T @ black
    after = F.normalize(after, p=1, dim=1)
    if fixed:
        return after, p, likelihood
    ones, zeros = p * ones, (1 - p) * zeros
    return after, (ones / (ones + zeros)).clamp(LEAST, 1 - LEAST), likelihood


def leap(start: Tensor, one: Tensor, two: Tensor, dim: int | None = None) -> Tensor:
    """Where steps such as ``start`` to ``one`` to ``two`` lead to, by SQUAREM's third scheme.

    It keeps a tenth of the way from ``two`` to 0 and 1: EM multiplies, so that nothing comes back
    from there. All of them leap equally far, or each as far as its own steps along ``dim`` tell.
    """
    step = one - start
    bend = two - one - step
    sizes = [torch.linalg.vector_norm(v, dim=dim, keepdim=True) for v in (step, bend)]
    length = (sizes[0] / sizes[1].clamp(min=1e-30)).clamp(min=1)
    ahead = start + 2 * length * step + length.square() * bend
    return ahead.clamp(two / 10, 1 - (1 - two) / 10)


def dirichlet(q: Tensor) -> Tensor:
    """The concentration with the means and the summed variance of proportions (N, K): (K,)."""
    mean, variance = q.mean(0), q.var(0, correction=0).sum()
    total = (mean * (1 - mean)).sum() / variance.clamp(min=1e-12) - 1
    return (mean * total.clamp(min=1e-2)).clamp(min=1e-4)


class NeuralAdmixture(Autoencoder):
    r"""Neural ADMIXTURE: ADMIXTURE's likelihood, with proportions that a network reads off.

    .. math::
        -\sum_d x_d \log (qP)_d + (1 - x_d) \log (1 - (qP)_d), \quad
        q = \mathrm{softmax}(f(x)), \; P \in [0, 1]^{K \times D}

    Codes are q, (B, K). f is the grid's encoder; the paper's has one hidden layer of 64. There is
    no prior. P starts from k-means in the space of the first principal components, mapped back to
    pixels, as in the authors' first program; a Gaussian mixture there, as in their second, starts
    from populations too alike where individuals are admixed. P is kept in [1e-5, 1 - 1e-5] by
    projection before every step, as there; a sigmoid of logits would move it a quarter as far a
    step, or less. The observation model is Bernoulli, of logits of qP.
    Dominguez Mantes et al. 2023, doi:10.1038/s43588-023-00482-7.

    Args:
        populations: K, the number of ancestral populations.
        components: the number of principal components in which P's start is sought.
    """

    name = "neural_admixture"
    reference = "Dominguez Mantes et al. 2023, doi:10.1038/s43588-023-00482-7"

    def __init__(
        self, data: DataSpec, backbone: Backbone, *, populations: int = 10, components: int = 8
    ) -> None:
        self.at_least(1, populations=populations, components=components)
        if populations > data.size:
            raise InputError(
                f"model 'neural_admixture': populations must be at most {data.size}, the number of "
                f"training images, not {populations}"
            )
        super().__init__(data, backbone, latent_dim=populations, likelihood="bernoulli")
        self.components = components
        self.encoder: nn.Module = backbone.encoder(data.shape, populations)
        self.weight = nn.Parameter(torch.rand(populations, self.pixels))

    @torch.no_grad()
    def initialise(self, batches: Iterable[Batch]) -> None:
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA

        x = torch.cat([batch.x.flatten(1) for batch in batches]).cpu().numpy()
        seed = int(torch.randint(2**31, ()))
        space = PCA(min(self.components, *x.shape), random_state=seed)
        means = KMeans(self.latent_dim, n_init=10, random_state=seed).fit(space.fit_transform(x))
        self.weight.copy_(torch.as_tensor(space.inverse_transform(means.cluster_centers_)))
        self.project()

    @torch.no_grad()
    def project(self) -> None:
        self.weight.clamp_(LEAST, 1 - LEAST)

    @property
    def frequencies(self) -> Tensor:
        """P, (K, D)."""
        return self.weight.clamp(LEAST, 1 - LEAST)

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.encoder(x).softmax(1)

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return logits(z, self.frequencies).unflatten(1, self.data.shape)

    def losses(self, batch: Batch) -> Terms:
        if self.training:
            self.project()
        return {"loss": self.reconstruction_loss(self.raw(self.code(batch.x)), batch.x)}
