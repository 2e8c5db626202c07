"""Autoencoders fitted in closed form or by scikit-learn, without gradients."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..plugins import InputError
from .backbones import Backbone
from .backbones.linear import Linear
from .base import ClosedForm, DataSpec


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
        for name, value in (("clusters", clusters), ("n_init", n_init), ("max_iter", max_iter)):
            if value < 1:
                raise InputError(f"model 'kmeans': {name} must be 1 or more, not {value}")
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
