"""A second VAE over draws of the first one's codes."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...plugins import InputError
from ..backbones.base import widths
from ..vae import LOG_2PI, DiagonalNormal
from .base import Sampler, training

if TYPE_CHECKING:
    from ..base import Autoencoder, Batch

LEAST_GAMMA = 1e-3
"""The least γ of the decoder, in deviations of the codes."""
GAMMA_LR = 2.0
"""The learning rate of log γ as a multiple of the networks': it has far to go in a short budget,
and where it goes faster the second VAE's codes u are the farther from N(0, I)."""


class SkipMLP(nn.Module):
    """ReLU layers whose output goes with their input to a last, linear one: (…, n_in) → (…, n_out).

    Args:
        n_in: the size of the input.
        hidden: the widths of the layers.
        n_out: the size of the output.
    """

    def __init__(self, n_in: int, hidden: tuple[int, ...], n_out: int) -> None:
        super().__init__()
        sizes = [n_in, *hidden]
        pairs = [(nn.Linear(a, b), nn.ReLU()) for a, b in zip(sizes, sizes[1:])]
        self.body = nn.Sequential(*(layer for pair in pairs for layer in pair))
        self.head = nn.Linear(n_in + sizes[-1], n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([x, self.body(x)], dim=-1))


class SecondVAE(nn.Module):
    r"""A VAE of codes (B, d) with codes (B, d), whose decoder's deviation γ is learned.

    .. math::
        \frac{\lVert z - \hat z(u) \rVert^2}{2\gamma^2} + \frac d2 \log 2\pi\gamma^2
        + \mathrm{KL}(q(u|z)\,\Vert\,\mathcal N(0, I))
    """

    def __init__(self, d: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.decoder = SkipMLP(d, hidden, 2 * d), SkipMLP(d, hidden, d)
        self.log_gamma = nn.Parameter(torch.zeros(()))

    @property
    def gamma(self) -> Tensor:
        """γ, the deviation of the decoder's noise."""
        return LEAST_GAMMA + self.log_gamma.exp()

    def loss(self, z: Tensor) -> Tensor:
        """The negative ELBO of codes (B, d) in nats a code."""
        posterior = DiagonalNormal(*self.encoder(z).chunk(2, dim=1))
        squares = (z - self.decoder(posterior.sample())).square() / self.gamma.square()
        nll = 0.5 * (squares + LOG_2PI) + self.gamma.log()
        return (nll + posterior.kl_to_standard()).sum(1).mean()


class TwoStage(Sampler):
    r"""A second VAE fitted to draws z ~ q(z|x) of training images, of as many dimensions.

    .. math:: u \sim \mathcal N(0, I), \quad z \sim \mathcal N(\hat z(u), \gamma^2 I)

    γ is learned with the networks, and a draw has its noise. The draws of z are made anew every
    epoch; for a model without a posterior they are its codes. The learning rate halves after 3/8
    and 6/8 of the steps, as the authors' after 300 and 600 of 800 epochs. Codes are centred, and
    scaled by one number, their root mean square deviation, which the paper needs not: an
    autoencoder's codes have any scale.

    Dai and Wipf 2019, arXiv:1903.05789. Their 800 epochs of 3 x 1024 units at batches of 64 and a
    rate of 1e-4 are for a GPU; the defaults here are for seconds on a CPU.

    Args:
        hidden: the widths of the ReLU layers of encoder and decoder.
        steps: training steps.
        batch_size: codes a step.
        lr: Adam's first learning rate.
        codes: at most so many training images are drawn from.
        max_dim: codes of more dimensions are refused, for what they would cost.
    """

    name = "two_stage"
    description = "second VAE over draws of the training images' codes"
    reads_images = True

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (256, 256, 256),
        steps: int = 3000,
        batch_size: int = 128,
        lr: float = 1e-3,
        codes: int = 20_000,
        max_dim: int = 512,
    ) -> None:
        self.at_least(1, steps=steps, batch_size=batch_size, codes=codes, max_dim=max_dim)
        if not lr > 0:
            raise InputError(f"sampler 'two_stage': lr must be positive, not {lr}")
        self.hidden = widths(hidden, "sampler 'two_stage': hidden")
        self.steps, self.batch_size, self.lr = steps, batch_size, lr
        self.codes, self.max_dim = codes, max_dim

    def why_not(self, model: "Autoencoder") -> str:
        return "the codes are discrete" if model.discrete else ""

    def fit_images(self, model: "Autoencoder", batches: "Iterable[Batch]", seed: int) -> None:
        draw = drawer(model, batches, self.codes)
        with training(seed, model.device):
            first = draw()
            self.shape = first.shape[1:]
            # One draw of few images says little of how far draws spread.
            flat = torch.cat([first, *(draw() for _ in range(1000 // len(first)))]).flatten(1)
            d = flat.shape[1]
            if d > self.max_dim:
                raise InputError(f"sampler 'two_stage': codes of {d} > {self.max_dim} dimensions")
            self.mean = flat.mean(0)
            self.scale = flat.var(0, correction=0).mean().sqrt().clamp(min=1e-6)
            self.vae = SecondVAE(d, self.hidden).to(flat.device)
            self.minimise(lambda: (draw().flatten(1) - self.mean) / self.scale)

    def minimise(self, draw: Callable[[], Tensor]) -> None:
        """Fit the second VAE to batches of what ``draw`` gives every epoch, (N, d)."""
        networks = [*self.vae.encoder.parameters(), *self.vae.decoder.parameters()]
        optimizer = torch.optim.Adam(networks, self.lr)
        optimizer.add_param_group({"params": [self.vae.log_gamma], "lr": GAMMA_LR * self.lr})
        halving = torch.optim.lr_scheduler.StepLR(optimizer, max(1, self.steps * 3 // 8), 0.5)
        done = 0
        while done < self.steps:
            codes = draw()
            order = torch.randperm(len(codes), device=codes.device)
            for chosen in order.split(self.batch_size)[: self.steps - done]:
                optimizer.zero_grad()
                self.vae.loss(codes[chosen]).backward()
                optimizer.step()
                halving.step()
                done += 1

    def sample(self, model: "Autoencoder", n: int) -> Tensor:
        u = torch.randn(n, len(self.mean), device=self.mean.device)
        scaled = self.vae.decoder(u) + self.vae.gamma * torch.randn_like(u)
        drawn = self.mean + self.scale * scaled
        return drawn.detach().unflatten(1, self.shape).to(model.device)


@torch.no_grad()
def drawer(model: "Autoencoder", batches: "Iterable[Batch]", limit: int) -> Callable[[], Tensor]:
    """What draws z ~ q(z|x) of each of the first ``limit`` images, (N, …), anew at every call."""
    posteriors, codes, found = [], [], 0
    for x, y in batches:
        x, y = x[: limit - found], None if y is None else y[: limit - found]
        if model.offers("posterior"):
            posteriors.append(model.posterior(x, y))
        else:
            codes.append(model.code(x, y).float())
        found += len(x)
        if found == limit:
            break
    if posteriors:
        return torch.no_grad()(lambda: torch.cat([p.sample() for p in posteriors]).float())
    whole = torch.cat(codes)
    return lambda: whole
