"""Autoregressive flows fitted to the training codes after the fact."""

import copy
from typing import TYPE_CHECKING, Any

import torch
import zuko
from torch import Tensor, nn

from ...plugins import InputError
from ..backbones.base import widths
from ..vae import standard_normal_log_prob
from .base import Sampler, training

if TYPE_CHECKING:
    from ..base import Autoencoder

NOISE = 1e-3
"""The deviation of the noise on codes, as a share of their root mean square deviation."""
CHECK = 50
"""Steps between two looks at the held-out codes."""


class MAF(Sampler):
    r"""A masked autoregressive flow over the flattened training codes.

    .. math:: \log p(z) = \log \mathcal N(g(z); 0, I) + \log|\det \partial g / \partial z|

    g is a chain of maps, each scaling and shifting a dimension by what a masked network says of
    those before it, in an order that is reversed between maps. A density is one pass; a draw takes
    d passes a map. Papamakarios et al. 2017, arXiv:1705.07057, without their batch normalisation.

    Fitted by maximum likelihood with Adam to standardised codes, in nats a code; a tenth of them is
    held out, and the flow that they fit best is kept. Noise of a thousandth of the codes' deviation
    is added in training, so that the density stays bounded where codes fill a subspace only, such
    as that of the dimensions that a model uses.

    Args:
        flows: the number of maps.
        hidden: the widths of a masked network's hidden layers.
        steps: training steps at most.
        patience: looks at the held-out codes, 50 steps apart, without a better one before it stops.
        batch_size: codes a step.
        lr: Adam's learning rate.
        codes: at most so many training codes are fitted to.
        max_dim: codes of more dimensions are refused, for what they would cost.
    """

    name = "maf"
    description = "masked autoregressive flow over training codes"

    def __init__(
        self,
        *,
        flows: int = 5,
        hidden: tuple[int, ...] = (128, 128),
        steps: int = 1500,
        patience: int = 10,
        batch_size: int = 256,
        lr: float = 3e-3,
        codes: int = 20_000,
        max_dim: int = 256,
    ) -> None:
        self.at_least(1, flows=flows, steps=steps, patience=patience, batch_size=batch_size)
        self.at_least(1, codes=codes, max_dim=max_dim)
        if not lr > 0:
            raise InputError(f"sampler {self.name!r}: lr must be positive, not {lr}")
        self.flows, self.hidden = flows, widths(hidden, f"sampler {self.name!r}: hidden")
        self.steps, self.patience, self.batch_size, self.lr = steps, patience, batch_size, lr
        self.codes, self.max_dim = codes, max_dim

    def why_not(self, model: "Autoencoder") -> str:
        return "the codes are discrete" if model.discrete else ""

    def to_noise(self) -> Any:
        """g, from standardised codes (…, d) to noise, as a transform of zuko."""
        return self.flow()

    def log_prob(self, codes: Tensor) -> Tensor:
        """log p(z) in nats of codes (N, …): (N,)."""
        scaled = (codes.flatten(1) - self.mean) / self.scale
        return self.log_density(scaled) - self.scale.log().sum()

    def log_density(self, scaled: Tensor) -> Tensor:
        """The log-density in nats of standardised codes (…, d): (…)."""
        noise, log_det = self.to_noise().call_and_ladj(scaled)
        return standard_normal_log_prob(noise) + log_det

    def fit(self, model: "Autoencoder", codes: Tensor, seed: int) -> None:
        flat = codes[: self.codes].flatten(1).float()
        d = flat.shape[1]
        if d > self.max_dim:
            raise InputError(f"sampler {self.name!r}: codes of {d} > {self.max_dim} dimensions")
        self.shape = codes.shape[1:]
        variance = flat.var(0, correction=0)
        noise = max(NOISE * float(variance.mean().sqrt()), 1e-6)
        self.mean, self.scale = flat.mean(0), (variance + noise**2).sqrt()
        with training(seed, codes.device):
            self.flow = self.untrained(d).to(codes.device)
            self.maximise((flat - self.mean) / self.scale, noise / self.scale)

    def untrained(self, d: int) -> nn.Module:
        """A flow of d dimensions; called without arguments, it gives its transform."""
        flow = zuko.flows.MAF(d, transforms=self.flows, hidden_features=self.hidden)
        transform: nn.Module = flow.transform
        return transform

    def maximise(self, scaled: Tensor, noise: Tensor) -> None:
        """Fit the flow to standardised codes (N, d) with noise of deviations (d,)."""
        scaled = scaled[torch.randperm(len(scaled), device=scaled.device)]
        held_out, fitted = scaled.tensor_split([len(scaled) // 10])
        held_out = held_out if len(held_out) else fitted
        held_out = held_out + noise * torch.randn_like(held_out)
        optimizer = torch.optim.Adam(self.flow.parameters(), self.lr)
        best, kept, since = float("inf"), copy.deepcopy(self.flow.state_dict()), 0
        for step in range(1, self.steps + 1):
            some = fitted[torch.randint(len(fitted), (self.batch_size,), device=fitted.device)]
            loss = -self.log_density(some + noise * torch.randn_like(some)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % CHECK and step < self.steps:
                continue
            with torch.no_grad():
                found = float(-self.log_density(held_out).mean())
            since += 1
            if found < best:
                best, kept, since = found, copy.deepcopy(self.flow.state_dict()), 0
            if since == self.patience:
                break
        self.flow.load_state_dict(kept)

    def sample(self, model: "Autoencoder", n: int) -> Tensor:
        noise = torch.randn(n, len(self.mean), device=self.mean.device)
        scaled = self.to_noise().inv(noise)
        return (self.mean + self.scale * scaled).unflatten(1, self.shape).to(model.device)


class IAF(MAF):
    r"""An inverse autoregressive flow over the flattened training codes.

    .. math:: \log p(z) = \log \mathcal N(g(z); 0, I) + \log|\det \partial g / \partial z|

    The masked flow the other way round: each map scales and shifts a dimension by what a network
    says of the *noise* before it. A draw is one pass; a density, and so a training step, takes d
    passes a map, which is why its defaults are smaller. Fitted as :class:`MAF` is. Kingma et al.
    2016, arXiv:1606.04934, who use it as a posterior.

    Args:
        flows: the number of maps.
        hidden: the widths of a masked network's hidden layers.
        steps: training steps at most.
        lr: Adam's learning rate.
        max_dim: codes of more dimensions are refused, for what they would cost.
    """

    name = "iaf"
    description = "inverse autoregressive flow over training codes"

    def __init__(
        self,
        *,
        flows: int = 2,
        hidden: tuple[int, ...] = (64, 64),
        steps: int = 600,
        lr: float = 5e-3,
        max_dim: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(flows=flows, hidden=hidden, steps=steps, lr=lr, max_dim=max_dim, **kwargs)

    def to_noise(self) -> Any:
        return self.flow().inv
