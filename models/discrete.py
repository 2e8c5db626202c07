"""Autoencoders with discrete codes."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..plugins import InputError
from .backbones import Backbone
from .base import Autoencoder, Batch, DataSpec, Terms


class VQVAE(Autoencoder):
    r"""Vector-quantised VAE: a grid of codes, each the nearest of K codebook vectors.

    .. math::
        -\log p(x|e) + \lVert \mathrm{sg}[z] - e \rVert^2
        + \beta \lVert z - \mathrm{sg}[e] \rVert^2

    z = f(x) and its nearest vectors e are (B, D, h, w), a quarter of the image each way; the
    gradient of e passes straight to z. All three terms are summed over an image and averaged over
    the batch, so their balance does not depend on the batch size. With a ``decay`` the codebook
    follows moving averages of the vectors assigned to it, which replaces the second term (the
    paper's appendix A.1). The codebook starts from encoder outputs of training images, not from
    noise, so that fewer codes are dead from the first step on.

    During training the prior is uniform over codes; that is what ``prior`` draws here.
    Van den Oord et al. 2017, arXiv:1711.00937.

    Args:
        codes: K, the size of the codebook.
        embedding_dim: D, the dimension of a codebook vector.
        commitment: β, the weight of the commitment term.
        decay: the moving averages' decay; None trains the codebook by gradients.
    """

    name = "vq_vae"
    sampler = "prior"
    discrete = True
    reference = "van den Oord et al. 2017, arXiv:1711.00937"
    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        codes: int = 512,
        embedding_dim: int = 64,
        commitment: float = 0.25,
        decay: float | None = 0.99,
        sigma: float = 1.0,
    ) -> None:
        self.at_least(1, codes=codes, embedding_dim=embedding_dim)
        self.at_least(0, commitment=commitment)
        if decay is not None and not 0 <= decay < 1:
            raise InputError(f"model 'vq_vae': decay must be in [0, 1), not {decay}")
        super().__init__(data, backbone, latent_dim=embedding_dim, sigma=sigma)
        self.commitment, self.decay = commitment, decay
        self.map_size = backbone.map_size(data.shape)
        self.encoder: nn.Module = backbone.map_encoder(data.shape, embedding_dim)
        self.decoder: nn.Module = backbone.map_decoder(embedding_dim, data.shape)
        codebook = torch.empty(codes, embedding_dim).uniform_(-1 / codes, 1 / codes)
        if decay is None:
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
            self.register_buffer("counts", torch.ones(codes))
            self.register_buffer("sums", codebook.clone())

    @torch.no_grad()
    def initialise(self, batches: Iterable[Batch]) -> None:
        found = []
        for batch in batches:
            found.append(self.encoder(batch.x).movedim(1, -1).flatten(0, -2))
            if sum(map(len, found)) >= 16 * len(self.codebook):
                break
        vectors = torch.cat(found)
        drawn = vectors[torch.randint(len(vectors), (len(self.codebook),), device=self.device)]
        self.codebook.copy_(drawn)
        if self.decay is not None:
            self.sums.copy_(drawn)

    def nearest(self, z: Tensor) -> Tensor:
        """The index of the codebook vector nearest to each of (B, D, h, w): int64 (B, h, w)."""
        flat = z.movedim(1, -1).flatten(0, -2)
        squares = self.codebook.square().sum(1) - 2 * flat @ self.codebook.T
        return squares.argmin(1).unflatten(0, (len(z), *z.shape[2:]))

    def vectors(self, index: Tensor) -> Tensor:
        """The codebook vectors of int64 (B, h, w): (B, D, h, w)."""
        return F.embedding(index, self.codebook).movedim(-1, 1)

    def symbols(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.nearest(self.encoder(x))

    @property
    def alphabet(self) -> int:
        return len(self.codebook)

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.vectors(self.symbols(x))

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.decoder(self.vectors(self.nearest(z)))

    def sample_prior(self, n: int) -> Tensor:
        index = torch.randint(len(self.codebook), (n, *self.map_size), device=self.device)
        return self.vectors(index)

    def losses(self, batch: Batch) -> Terms:
        z = self.encoder(batch.x)
        index = self.nearest(z)
        e = self.vectors(index)
        reconstruction = self.reconstruction_loss(self.decoder(z + (e - z).detach()), batch.x)
        commitment = (z - e.detach()).square().flatten(1).sum(1).mean()
        loss = reconstruction + self.commitment * commitment
        if self.decay is None:
            loss = loss + (z.detach() - e).square().flatten(1).sum(1).mean()
        elif self.training:
            self.follow(z.detach(), index)
        usage = self.times(index.flatten()) / index.numel()
        perplexity = torch.special.entr(usage).sum().exp()
        return {
            "loss": loss,
            "reconstruction": reconstruction,
            "commitment": commitment,
            "perplexity": perplexity,
        }

    def times(self, index: Tensor) -> Tensor:
        """How often each code is in an index (n,): (K,)."""
        # Not bincount, which waits for the device to tell the largest index.
        ones = torch.ones_like(index, dtype=self.codebook.dtype)
        return torch.zeros_like(self.codebook[:, 0]).index_add_(0, index, ones)

    @torch.no_grad()
    def follow(self, z: Tensor, index: Tensor) -> None:
        """Move the codebook towards the averages of the vectors assigned to it."""
        assert self.decay is not None
        flat, chosen = z.movedim(1, -1).flatten(0, -2), index.flatten()
        counts = self.times(chosen)
        sums = torch.zeros_like(self.sums).index_add_(0, chosen, flat)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        # Codes that nothing is assigned to keep their direction while their count decays.
        self.codebook.copy_(self.sums / self.counts.clamp(min=1e-5).unsqueeze(1))
