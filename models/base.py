"""What a model is: the contract of every variant, and the one training step they share."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..plugins import InputError, Plugin
from .backbones import Backbone, Shape
from .observation import Bernoulli, Gaussian, Observation

Terms = dict[str, Tensor]
Reduce = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Tensors to their means over the processes that share a training."""


class Posterior(Protocol):
    """A distribution q(z|x) over codes (B, d)."""

    @property
    def mean(self) -> Tensor:
        """(B, d)."""
        ...

    def sample(self, *samples: int) -> Tensor:
        """Draws, (\\*samples, B, d)."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats of codes (…, B, d), broadcast over leading dimensions: (…, B)."""
        ...


class Batch(NamedTuple):
    """Images float32 (B, C, H, W) in [0, 1], and labels int64 (B,) where the data has them."""

    x: Tensor
    y: Tensor | None = None


@dataclass(frozen=True)
class DataSpec:
    """What a model may know of the data before it sees any.

    Attributes:
        shape: (C, H, W) of an image.
        classes: the number of classes; 0 without labels.
        size: the number of training images.
    """

    shape: Shape
    classes: int = 0
    size: int = 1


@dataclass(frozen=True)
class Objective:
    """A loss and the parameters that it trains, which nothing else in it may reach.

    Attributes:
        name: how the loss is logged.
        terms: the loss hook, Batch → named terms; "loss" is what is minimised.
        networks: the modules whose parameters this objective steps.
        lr_scale: the learning rate as a multiple of the training budget's.
    """

    name: str
    terms: Callable[[Batch], Terms]
    networks: Iterable[nn.Module]
    lr_scale: float = 1.0
    parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        found = [p for network in self.networks for p in network.parameters() if p.requires_grad]
        object.__setattr__(self, "parameters", found)


class Autoencoder(Plugin, nn.Module, kind="model"):
    r"""An autoencoder variant. Its hyper-parameters are its constructor's keyword arguments.

    A variant states a ``name``, builds its networks from the backbone in its constructor, and
    implements :meth:`code`, :meth:`raw` and :meth:`losses`. What else it offers it implements too:
    :meth:`sample_prior`, :meth:`log_weights`, :meth:`posterior`, :meth:`log_prior`, :meth:`kl`,
    :meth:`symbols` with :attr:`alphabet`. A metric that needs what a variant lacks is n/a.

    Every loss is in nats an image, or in squared pixels an image where there is no likelihood:
    summed over pixels, averaged over the batch.

    Args:
        data: the shape of the images, the number of classes and of training images.
        backbone: the maker of the networks.
        latent_dim: d, the dimension of the code.
        likelihood: the observation model p(x|z).
        sigma: the standard deviation of the Gaussian observation model, in pixels of [0, 1].

    Attributes:
        lr: the learning rate, which a training sets.
        make_optimizer: what makes an optimiser of parameters and an ``lr``; a training sets it too.
        steps: how many training steps there are in all; 0 where it is not known.
        selection: the validation term whose minimum picks the checkpoint.
        sampler: the name of the sampler that the variant's paper uses, or the nearest to it here.
        given: what the decoder is given of an image beside its code: ``label``, which the encoder
            then reads too; pixels, which decoded images then show, such as ``2 quadrants``; or
            nothing.
        perceives: whether its loss compares feature maps, which :meth:`perceive` hands it.
        discrete: whether codes come from a finite set, so that no density can be fitted to them.
        uses_backbone: whether the backbone matters; where it does not, a grid trains one cell.
        reference: the paper, for the table of models.
    """

    selection: ClassVar[str] = "loss"
    sampler: ClassVar[str] = "gmm"
    given: str = ""
    perceives: ClassVar[bool] = False
    discrete: ClassVar[bool] = False
    uses_backbone: ClassVar[bool] = True
    reference: ClassVar[str] = ""
    share_done: Tensor

    def __init__(
        self,
        data: DataSpec,
        backbone: Backbone,
        *,
        latent_dim: int = 16,
        likelihood: Literal["gaussian", "bernoulli"] = "gaussian",
        sigma: float = 1.0,
    ) -> None:
        super().__init__()
        if latent_dim < 1:
            raise InputError(f"latent_dim must be 1 or more, not {latent_dim}")
        if self.given == "label" and not data.classes:
            raise InputError(f"model {self.name!r} needs a dataset with labels")
        self.data, self.latent_dim, self.lr = data, latent_dim, 1e-3
        self.make_optimizer: Callable[..., torch.optim.Optimizer] = partial(
            torch.optim.Adam, fused=True
        )
        self.register_buffer("share_done", torch.zeros(()), persistent=False)
        self.steps = self.steps_done = 0
        gaussian = Gaussian(sigma, backbone.squash)  # it refuses a sigma that the other ignores
        self.observation: Observation = Bernoulli() if likelihood == "bernoulli" else gaussian
        self._objectives: tuple[Objective, ...] = ()

    # What a variant implements.

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The deterministic code of images (B, C, H, W): (B, …), a posterior's mean."""
        raise NotImplementedError

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The decoder's raw output (B, C, H, W) for codes (B, …) and their :meth:`condition`."""
        raise NotImplementedError

    def losses(self, batch: Batch) -> Terms:
        """The terms of the objective by name, each a scalar; "loss" is what is minimised."""
        raise NotImplementedError

    def initialise(self, batches: Iterable[Batch]) -> None:
        """Start weights from training images, or pre-train them, once before the first step.

        Args:
            batches: the training split; every pass over it is an epoch in another order.
        """

    def condition(self, x: Tensor, y: Tensor | None = None) -> Tensor | None:
        """What the decoder reads of images (B, C, H, W) beside their codes, (B, …).

        The label by default, which only a conditional variant reads.
        """
        return y

    def perceive(self, maps: Callable[[Tensor], list[Tensor]]) -> None:
        """Compare images by these feature maps from now on, where :attr:`perceives`.

        Args:
            maps: images (B, C, H, W) in [0, 1] to maps (B, C', H', W'), with gradients.
        """

    def objectives(self) -> tuple[Objective, ...]:
        """Every loss with the networks it trains, in the order of the steps.

        One by default, :meth:`losses` over all parameters. An adversarial variant returns several.
        """
        return (Objective("loss", self.losses, [self]),)

    def sample_prior(self, n: int) -> Tensor:
        """``n`` codes drawn from the model's own prior, (n, …)."""
        raise NotImplementedError

    def log_weights(self, x: Tensor, y: Tensor | None, samples: int) -> Tensor:
        """log p(x|z) + log p(z) - log q(z|x) of z ~ q(z|x), in nats: (samples, B).

        Their mean over samples is the ELBO; logsumexp less log(samples) the importance-weighted
        bound (Burda et al. 2016, arXiv:1509.00519).
        """
        raise NotImplementedError

    def posterior(self, x: Tensor, y: Tensor | None = None) -> Posterior:
        """q(z|x) of images (B, C, H, W), over codes (B, d)."""
        raise NotImplementedError

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) of codes (…, d) in nats: (…)."""
        raise NotImplementedError

    def kl(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """KL(q(z_j|x) ‖ p(z_j)) of images (B, C, H, W) in nats a dimension: (B, d).

        Only where both are products over dimensions.
        """
        raise NotImplementedError

    def symbols(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The discrete code of images (B, C, H, W) as int64 (B, …) in [0, :attr:`alphabet`)."""
        raise NotImplementedError

    @property
    def alphabet(self) -> int:
        """The number of values of each of :meth:`symbols`."""
        raise NotImplementedError

    # What follows from it.

    def embed(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The embedding that metrics read: the deterministic code, flattened to (B, d)."""
        return self.code(x, y).flatten(1)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean images of codes (B, …) and their :meth:`condition`, in [0, 1], (B, C, H, W)."""
        return self.observation.mean(self.raw(z, y)).clamp(0, 1)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean images of the deterministic codes of ``x``, in [0, 1], (B, C, H, W)."""
        return self.decode(self.code(x, y), self.condition(x, y))

    @classmethod
    def offers(cls, method: str) -> bool:
        """Whether this variant implements an optional method, such as ``sample_prior``."""
        return getattr(cls, method) is not getattr(Autoencoder, method)

    @property
    def device(self) -> torch.device:
        """Where the model is, as a whole."""
        return self.share_done.device

    @property
    def pixels(self) -> int:
        """D, the number of values of an image."""
        return math.prod(self.data.shape)

    def log_likelihood(self, raw: Tensor, x: Tensor) -> Tensor:
        """log p(x|z) in nats of images (B, C, H, W) at raw outputs (…, B, C, H, W): (…, B)."""
        return self.observation.log_prob(raw, x)

    def reconstruction_loss(self, raw: Tensor, x: Tensor) -> Tensor:
        """-log p(x|z) in nats an image, averaged over the batch: a scalar."""
        return -self.log_likelihood(raw, x).mean()

    @property
    def steps_done(self) -> int:
        """How many of the :attr:`steps` are done."""
        return self._steps_done

    @steps_done.setter
    def steps_done(self, done: int) -> None:
        self._steps_done = done
        if self.steps:
            self.share_done.fill_(done / self.steps)

    def risen(self, warmup: float, start: float = 0.0) -> Tensor | float:
        """How far a weight is that rises to 1 in the first ``warmup`` of the training.

        A share t of the training after its start that is min(1, ``start`` + t / ``warmup``), on the
        device, where a captured step reads it. It is 1 in evaluation, so that every epoch is
        validated on the final objective.
        """
        if not (self.training and self.steps and warmup):
            return 1.0
        return (start + self.share_done / warmup).clamp(max=1)

    # The training step: one for all variants.

    def terms(self, batch: Batch) -> Terms:
        """The terms of every objective by name, without a step: what validation averages."""
        found: Terms = {}
        for objective in self.objectives():
            found |= named(objective, objective.terms(batch))
        return found

    def step(
        self,
        batch: Batch,
        optimizers: Sequence[torch.optim.Optimizer],
        reduce: Reduce | None = None,
    ) -> Terms:
        """Step every objective's networks with the gradients of its own loss alone.

        The gradients are asked for by parameter, so no loss can leave one in another's network.

        Args:
            batch: the images.
            optimizers: one an objective, as :meth:`configure_optimizers` gives them.
            reduce: averages gradients, statistics that follow the batches, and terms over the
                processes that each have a part of the batch.
        """
        if not self._objectives:
            self._objectives = self.objectives()
        found: Terms = {}
        for objective, optimizer in zip(self._objectives, optimizers, strict=True):
            for parameter in objective.parameters:
                parameter.grad = None  # its memory, still in the cache, is used again
            terms = objective.terms(batch)
            gradients = torch.autograd.grad(terms["loss"], objective.parameters)
            if reduce:
                gradients = tuple(reduce(gradients))
            for parameter, gradient in zip(objective.parameters, gradients):
                parameter.grad = gradient
            optimizer.step()
            found |= named(objective, terms)
        found = {name: term.detach() for name, term in found.items()}
        if reduce:
            statistics = [held for held in self.buffers() if held.is_floating_point()]
            for held, mean in zip(statistics, reduce(statistics)):
                held.copy_(mean)
            found = dict(zip(found, reduce([*found.values()])))
        return found

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimiser an objective, at ``lr`` times its ``lr_scale``."""
        return [
            self.make_optimizer(o.parameters, lr=self.lr * o.lr_scale) for o in self.objectives()
        ]


def named(objective: Objective, terms: Terms) -> Terms:
    """``terms`` with the total under the objective's name."""
    return {objective.name if name == "loss" else name: term for name, term in terms.items()}


class ClosedForm(Autoencoder):
    """A model that is fitted to all training images at once, without gradients.

    A variant implements :meth:`fit` and keeps what it fits in buffers of their final shape.
    """

    uses_backbone: ClassVar[bool] = False

    def fit(self, images: Tensor, seed: int) -> None:
        """Fit to images float32 (N, C, H, W) in [0, 1]; ``seed`` names the random stream."""
        raise NotImplementedError

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return []


def model_from(
    name: str, hyperparameters: dict[str, Any] | None, data: DataSpec, backbone: Backbone | None
) -> Autoencoder:
    """The untrained model called ``name``, with its hyper-parameters checked.

    Raises:
        InputError: unknown name or hyper-parameter, or a value that the model refuses.
    """
    cls = Autoencoder.choose(name)
    # A model that needs no backbone takes None; the others were given one.
    return cls(data, backbone, **cls.complete(hyperparameters))  # type: ignore[arg-type]
