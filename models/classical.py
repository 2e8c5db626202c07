"""Autoencoders as old as the word: linear maps and centroids, mostly fitted without gradients."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..plugins import InputError
from .ae import AE
from .backbones import Backbone
from .backbones.linear import Linear
from .base import Batch, ClosedForm, DataSpec, Terms

ROUNDING = 1 / (12 * 255**2)
"""The variance of what is lost by rounding a pixel of [0, 1] to a byte."""


class PCA(ClosedForm):
    r"""Principal component analysis: the linear autoencoder of least squared error.

    .. math:: \min_W \lVert X - \mu - (X - \mu) W W^\top \rVert_F^2, \quad W^\top W = I

    μ is the mean of the training images. Codes are (B, d), the centred images on the first d
    principal directions, not whitened. Its prior is the Gaussian that PCA is the fit of: zero mean,
    the variance of each component. Baldi and Hornik 1989, Neural Networks 2:53.
    """

    name = "pca"
    sampler = "prior"
    reference = "Baldi and Hornik 1989, Neural Networks 2:53"
    mean: Tensor
    directions: Tensor
    variances: Tensor

    def __init__(
        self, data: DataSpec, backbone: Backbone | None = None, *, latent_dim: int = 16
    ) -> None:
        super().__init__(data, Linear(), latent_dim=latent_dim)
        most = min(self.pixels, data.size)
        if latent_dim > most:
            raise InputError(f"model 'pca': latent_dim must be at most {most}, not {latent_dim}")
        self.register_buffer("mean", torch.zeros(self.pixels))
        self.register_buffer("directions", torch.zeros(latent_dim, self.pixels))
        self.register_buffer("variances", torch.zeros(latent_dim))

    def fit(self, images: Tensor, seed: int) -> None:
        from sklearn.decomposition import PCA as Solver

        flat = images.flatten(1).double().cpu().numpy()
        solved = Solver(self.latent_dim, random_state=seed).fit(flat)
        self.mean.copy_(torch.as_tensor(solved.mean_))
        self.directions.copy_(torch.as_tensor(solved.components_))
        self.variances.copy_(torch.as_tensor(solved.explained_variance_))

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return (x.flatten(1) - self.mean) @ self.directions.T

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (z @ self.directions + self.mean).unflatten(1, self.data.shape)

    def sample_prior(self, n: int) -> Tensor:
        noise = torch.randn(n, self.latent_dim, device=self.device)
        return noise * self.variances.clamp(min=0).sqrt()


class LinearAE(AE):
    r"""Linear autoencoder, trained by gradients: it finds PCA's subspace without being told of it.

    .. math::
        -\log p(x \mid b + W_d z) +
        \tfrac{\lambda}{2} (\lVert W_e \rVert_F^2 + \lVert W_d \rVert_F^2),
        \quad z = a + W_e (x - \mu)

    Two affine maps whatever the backbone, and the Gaussian observation model with σ = 1. μ is the
    mean of the training images, from which b starts too. Codes are (B, d). Without weight decay
    every minimum spans the first d principal directions, in any basis; with it W_e is the transpose
    of W_d, the singular vectors of W_d are the principal directions, and the reconstruction shrinks
    along each by the factor 1 - λ/s, s the variance along it: a direction of less than λ is lost.
    The λ of Kunin et al. 2019 (arXiv:1901.08168), whose error is a sum over n images without the
    half, is nλ here. Bourlard and Kamp 1988.

    Args:
        weight_decay: λ, in nats an image.
    """

    name = "linear_ae"
    uses_backbone = False
    reference = "Bourlard and Kamp 1988, Biological Cybernetics 59:291"
    mean: Tensor

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone | None = None,
        *,
        latent_dim: int = 16,
        weight_decay: float = 0.0,
    ) -> None:
        self.at_least(0, weight_decay=weight_decay)
        super().__init__(data, Linear(), latent_dim=latent_dim)
        self.weight_decay = weight_decay
        self.register_buffer("mean", torch.zeros(data.shape))

    @torch.no_grad()
    def initialise(self, batches: Iterable[Batch]) -> None:
        total, count = torch.zeros_like(self.mean), 0
        for batch in batches:
            total, count = total + batch.x.sum(0), count + len(batch.x)
        self.mean.copy_(total / count)
        self.maps[1].bias.copy_(self.mean.flatten())

    @property
    def maps(self) -> list[torch.nn.Linear]:
        """The affine map of the encoder, and that of the decoder."""
        return [m for m in self.modules() if isinstance(m, torch.nn.Linear)]

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.encoder(x - self.mean)

    def losses(self, batch: Batch) -> Terms:
        reconstruction = super().losses(batch)["loss"]
        penalty = 0.5 * torch.stack([m.weight.square().sum() for m in self.maps]).sum()
        loss = reconstruction + self.weight_decay * penalty
        return {"loss": loss, "reconstruction": reconstruction, "penalty": penalty}


class KMeans(ClosedForm):
    r"""k-means as an autoencoder: the code is the nearest of K centroids, the image its centroid.

    .. math:: \min_c \sum_i \min_k \lVert x_i - c_k \rVert^2

    Codes are one-hot, (B, K); any other is decoded as the cluster it has most of. Its prior draws
    a cluster as often as the training images fell into it. Lloyd 1982; MacQueen 1967.

    Args:
        clusters: K, the number of centroids.
        n_init: starts by k-means++, of which the best is kept.
        max_iter: the most iterations of one start.
    """

    name = "kmeans"
    sampler = "prior"
    discrete = True
    reference = "Lloyd 1982, IEEE Trans. Inf. Theory 28:129"
    centroids: Tensor
    shares: Tensor

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone | None = None,
        *,
        clusters: int = 10,
        n_init: int = 10,
        max_iter: int = 300,
    ) -> None:
        self.at_least(1, clusters=clusters, n_init=n_init, max_iter=max_iter)
        if clusters > data.size:
            raise InputError(f"model 'kmeans': {clusters} clusters of {data.size} training images")
        super().__init__(data, Linear(), latent_dim=clusters)
        self.n_init, self.max_iter = n_init, max_iter
        self.register_buffer("centroids", torch.zeros(clusters, self.pixels))
        self.register_buffer("shares", torch.full((clusters,), 1 / clusters))

    def fit(self, images: Tensor, seed: int) -> None:
        from sklearn.cluster import KMeans as Solver

        flat = images.flatten(1).cpu().numpy()
        solved = Solver(
            self.latent_dim, n_init=self.n_init, max_iter=self.max_iter, random_state=seed
        ).fit(flat)
        self.centroids.copy_(torch.as_tensor(solved.cluster_centers_))
        counts = torch.bincount(torch.as_tensor(solved.labels_), minlength=self.latent_dim)
        self.shares.copy_(counts / counts.sum())

    def symbols(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return torch.cdist(x.flatten(1), self.centroids).argmin(1, keepdim=True)

    @property
    def alphabet(self) -> int:
        return self.latent_dim

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return F.one_hot(self.symbols(x).squeeze(1), self.latent_dim).float()

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.centroids[z.argmax(1)].unflatten(1, self.data.shape)

    def sample_prior(self, n: int) -> Tensor:
        drawn = torch.multinomial(self.shares, n, replacement=True)
        return F.one_hot(drawn, self.latent_dim).float()


class SoftKMeans(ClosedForm):
    r"""Soft k-means: a mixture of K spherical Gaussians of one variance, fitted by EM.

    .. math::
        \max_{\pi, c, \sigma} \sum_i \log \sum_k \pi_k \mathcal N(x_i; c_k, \sigma^2 I), \quad
        z_{ik} = \frac{\pi_k e^{-\beta \lVert x_i - c_k \rVert^2}}
                     {\sum_j \pi_j e^{-\beta \lVert x_i - c_j \rVert^2}}, \quad
        \beta = \frac{1}{2 \sigma^2}

    Codes are the responsibilities z, (B, K) with rows that sum to one; the image of a code is
    Σ_k z_k c_k. What the mixture draws is one cluster, so its prior is over one-hot codes, each by
    its weight π_k. The likelihood of an image is exact: given an image the weights of
    :meth:`log_weights` are all log p(x), whichever cluster is drawn.

    It starts from k-means, to which it tends as the stiffness β does to infinity. MacKay's β, whose
    distance has a half, is 2β here, and his weights are all alike; here they are fitted. σ² is at
    least the variance of rounding to a byte, so that centroids on the images themselves are not
    infinitely likely. MacKay 2003, Information Theory, Inference, and Learning Algorithms, ch. 20.

    Args:
        clusters: K, the number of centroids.
        stiffness: β, in nats a squared pixel; None fits σ.
        n_init: starts of the k-means by k-means++, of which the best is kept.
        tolerance: stop when an iteration gains less than so many nats an image.
        max_iter: the most iterations of EM.
    """

    name = "soft_kmeans"
    sampler = "prior"
    reference = "MacKay 2003, Cambridge University Press, ch. 20"
    centroids: Tensor
    shares: Tensor
    variance: Tensor

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone | None = None,
        *,
        clusters: int = 10,
        stiffness: float | None = None,
        n_init: int = 10,
        tolerance: float = 1e-3,
        max_iter: int = 300,
    ) -> None:
        self.at_least(1, clusters=clusters, n_init=n_init, max_iter=max_iter)
        for name, number in (("stiffness", stiffness), ("tolerance", tolerance)):
            if number is not None and not (number > 0 and math.isfinite(number)):
                raise InputError(f"model 'soft_kmeans': {name} must be positive, not {number}")
        if clusters > data.size:
            raise InputError(
                f"model 'soft_kmeans': clusters must be at most {data.size}, the number of "
                f"training images, not {clusters}"
            )
        variance = 1.0 if stiffness is None else 1 / (2 * stiffness)
        super().__init__(data, Linear(), latent_dim=clusters, sigma=math.sqrt(variance))
        if stiffness is None:
            self.observation.label = "gaussian(sigma=fitted)"
        self.stiffness, self.n_init = stiffness, n_init
        self.tolerance, self.max_iter = tolerance, max_iter
        self.register_buffer("centroids", torch.zeros(clusters, self.pixels))
        self.register_buffer("shares", torch.full((clusters,), 1 / clusters))
        self.register_buffer("variance", torch.tensor(variance))

    def fit(self, images: Tensor, seed: int) -> None:
        from sklearn.cluster import KMeans as Solver

        flat = images.flatten(1)
        solved = Solver(self.latent_dim, n_init=self.n_init, random_state=seed)
        labels = torch.as_tensor(solved.fit_predict(flat.cpu().numpy()), device=flat.device)
        x, z = flat.double(), F.one_hot(labels.long(), self.latent_dim).double()
        before = -math.inf
        for _ in range(self.max_iter):
            mass = z.sum(0)
            self.shares, self.centroids = mass / len(x), z.T @ x / mass.clamp(min=1e-300)[:, None]
            if self.stiffness is None:
                error = (z * self.squares(x)).sum() / x.numel()
                self.variance = error.clamp(min=ROUNDING)
            joint = self.log_joint(x)
            z, likelihood = joint.softmax(1), float(joint.logsumexp(1).mean())
            if likelihood - before < self.tolerance:
                break
            before = likelihood
        self.float()

    def squares(self, x: Tensor) -> Tensor:
        """The squared distances of (B, D) to the centroids, in double precision: (B, K)."""
        x, c = x.double(), self.centroids.double()
        return (x.square().sum(1, keepdim=True) - 2 * x @ c.T + c.square().sum(1)).clamp(min=0)

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, k) of (B, D) in nats, in double precision: (B, K)."""
        variance = self.variance.double()
        constant = 0.5 * self.pixels * (2 * math.pi * variance).log()
        return self.shares.double().log() - self.squares(x) / (2 * variance) - constant

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.log_joint(x.flatten(1)).softmax(1).float()

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (z @ self.centroids).unflatten(1, self.data.shape)

    def sample_prior(self, n: int) -> Tensor:
        drawn = torch.multinomial(self.shares, n, replacement=True)
        return F.one_hot(drawn, self.latent_dim).float()

    def log_weights(self, x: Tensor, y: Tensor | None, samples: int) -> Tensor:
        return self.log_joint(x.flatten(1)).logsumexp(1).float().expand(samples, -1)
