"""Stand-ins for tests of metrics. None states a name in its class, so none can be chosen."""

import os
from pathlib import Path
from typing import Any

import torch
from aebench.benchmark.extractors import Extractor
from aebench.benchmark.extractors.base import unit
from aebench.benchmark.families import FAMILIES
from aebench.benchmark.metrics import AcrossSeeds, Fitted, Metric, NotApplicable
from aebench.datasets import Dataset, Split
from aebench.models import VAE, Autoencoder, Batch, DataSpec, Sampler
from aebench.models.backbones import Backbone
from aebench.models.discrete import VQVAE
from aebench.models.samplers.prior import Prior
from torch import Tensor, nn

OURS = {
    name: cls
    for name, cls in Metric.choices().items()
    if cls.__module__.startswith("aebench.benchmark.metrics.")
}


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class Held(Dataset):
    """Images that are given, one third each split where one tensor is given for all."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        factors: Tensor | None = None,
        **limits: Any,
    ) -> None:
        super().__init__(**limits)
        self.name = "held"  # type: ignore[misc]
        self.factor_names = () if factors is None else tuple("abcdefg"[: factors.shape[1]])
        self.given = Split(images, labels, factors)

    def load(self) -> dict[Any, Split]:
        return {"train": self.given, "val": self.given, "test": self.given}


class Rendered(Held):
    """One pixel a factor, as bright as its value."""

    def __init__(self, sizes: tuple[int, ...], **limits: Any) -> None:
        every = torch.cartesian_prod(*[torch.arange(size) for size in sizes])
        super().__init__(self.render(every), None, every, **limits)

    def render(self, factors: Tensor) -> Tensor:
        return (factors * 20).to(torch.uint8)[:, None, None, :]


class Echo(Autoencoder):
    """The code is the image, flattened, and the image is the code."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data, Backbone.choose("linear")())
        self.held = nn.Parameter(torch.zeros(1))

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x.flatten(1)

    def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return z.unflatten(1, self.data.shape)


class Pixels(Extractor):
    """The features are the pixels, and so are the logits."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self.name = "pixels"  # type: ignore[misc]

    fingerprint = "pixels"

    def features(self, images: Tensor) -> Tensor:
        return unit(images).flatten(1)

    def logits(self, images: Tensor) -> Tensor:
        return self.features(images)


class Given(Sampler):
    """Gives the same codes every time."""

    def __init__(self, codes: Tensor) -> None:
        self.codes = codes

    def sample(self, model: Autoencoder, n: int) -> Tensor:
        return self.codes[:n]


def spec(dataset: Dataset) -> DataSpec:
    return DataSpec(dataset.shape, dataset.classes, len(dataset.split("train")))


def fitted_echo(images: Tensor, cls: type[Echo] = Echo, **kwargs: Any) -> Fitted:
    dataset = Held(images, kwargs.pop("labels", None), kwargs.pop("factors", None))
    return Fitted(cls(spec(dataset)), dataset, Pixels(dataset), **kwargs)


def noise_images(n: int, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)


def blobs(n: int, seed: int, noise: float = 4) -> tuple[Tensor, Tensor]:
    """Images 1 x 8 x 8 of four classes far apart, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(99)) * 200 + 20
    labels = torch.arange(n) % 4
    noisy = centres[labels] + noise * torch.randn(n, 1, 8, 8, generator=generator)
    return noisy.clamp(0, 255).to(torch.uint8), labels


FEW: dict[str, dict[str, Any]] = {
    "nll": {"samples": 20},
    "bits_per_dim": {"samples": 20},
    "kid": {"subsets": 3, "subset_size": 30},
    "smoothness": {"pairs": 10, "points": 5},
    "path_length": {"eps": 0.1},
    "lines": {"pairs": 10, "points": 5},
    "factor_vae": {"variance_points": 200, "train": 100, "evaluations": 100, "prune": 0.0},
    "beta_vae": {"train": 100, "evaluations": 100, "batch": 8},
    "mig": {"points": 300},
    "mig_sup": {"points": 300},
    "dcimig": {"points": 300},
    "modularity": {"points": 300},
    "irs": {"points": 300},
    "dci": {"train": 60, "test": 30},
    "sap": {"train": 200, "test": 100},
    "explicitness": {"train": 200, "test": 100},
}


class Everything(Rendered):
    """Factors, labels, every combination, and enough pixels for all metrics."""

    def __init__(self, **limits: Any) -> None:
        super().__init__((4, 3, 5, 2), **limits)
        given = self.given
        labels = given.factors[:, 0]
        order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
        self.given = Split(given.pixels, labels, given.factors).take(order)

    def load(self) -> dict[Any, Split]:
        return self.permuted(self.given, (0.4, 0.1))

    def render(self, factors: Tensor) -> Tensor:
        rows = (factors[:, None, :, None] * 40 + 10).to(torch.uint8)
        return rows.expand(-1, 1, 4, 4) // torch.arange(1, 5, dtype=torch.uint8)


class Shuffled(Everything):
    """The same images, each split in another order."""

    def load(self) -> dict[Any, Split]:
        splits = super().load()
        for name, split in splits.items():
            order = torch.randperm(len(split), generator=torch.Generator().manual_seed(7))
            splits[name] = split.take(order)
        return splits


def normed_vae(seed: int = 0, dataset: Dataset | None = None, **kwargs: Any) -> tuple[VAE, Dataset]:
    """An untrained VAE with a batch norm, which a forward pass in training mode would change."""
    dataset = dataset or Everything()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = VAE(spec(dataset), Backbone.choose("mlp")(), latent_dim=3, **kwargs)
    model.encoder = nn.Sequential(nn.BatchNorm2d(dataset.shape[0]), model.encoder)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(3)
    return model, dataset


def small_vq_vae(dataset: Dataset) -> VQVAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VQVAE(spec(dataset), Backbone.choose("mlp")(), codes=5, embedding_dim=2)
        model.initialise([Batch(torch.rand(50, *dataset.shape))])
    return model


def stages(cls: type[Everything] = Everything, **kwargs: Any) -> list[Fitted]:
    """Untrained models and datasets, of which one lacks nothing that a metric needs."""
    lines = Dataset.make("lines", {"train": 60, "val": 20, "test": 40})
    found = []
    for dataset in (cls(), cls(held_out=1), lines):
        vae, gaussian = (
            normed_vae(dataset=dataset, likelihood=likelihood)[0]
            for likelihood in ("bernoulli", "gaussian")
        )
        for model in (vae, gaussian, small_vq_vae(dataset)):
            samplers = {"prior": Prior()}
            found.append(Fitted(model, dataset, Pixels(dataset), samplers=samplers, **kwargs))
    return found


def suited(metric: Metric, fits: list[Fitted] | None = None) -> Fitted:
    """The first of ``fits`` that lacks nothing the metric needs."""
    return next(fitted for fitted in fits or stages() if not metric.lacks(fitted))


def values_of(metric: Metric, fitted: Fitted) -> dict[str, Any]:
    """What a metric gives, or why not; of one across seeds, beside the same model once more."""
    if isinstance(metric, AcrossSeeds):
        kept = metric.keep(fitted)
        found = metric.compare([kept, kept])[0]
    else:
        found = metric.compute(fitted, "prior" if metric.per_sampler else "")
    return {k: str(v) if isinstance(v, NotApplicable) else v for k, v in found.items()}


def scores(names: list[str], **kwargs: Any) -> dict[str, dict[str, Any]]:
    """The values of metrics by name, which share what they compute."""
    fits, found = stages(**kwargs), {}
    for name in names:
        metric = OURS[name](**FEW.get(name, {}))
        found[name] = values_of(metric, suited(metric, fits))
    return found


def every_metric() -> dict[str, Any]:
    """A small grid in which every metric has a model and a dataset that it can score."""
    return {
        "datasets": {
            "digits": {"train": 300, "val": 60, "test": 120, "held_out": 3},
            "sprites": {"size": 16, "train": 300, "val": 60, "test": 120},
            "lines": {"train": 300, "val": 60, "test": 120},
        },
        "models": {"vae": {}, "vq_vae": {"codes": 8, "embedding_dim": 2}},
        "backbones": {"mlp": {"hidden": [32]}},
        "hyperparameters": {"latent_dim": 4, "likelihood": "gaussian"},
        "training": {"epochs": 2, "batch_size": 50},
        "seeds": 2,
        "metrics": dict.fromkeys(FAMILIES) | {name: FEW[name] for name in FEW if name != "lines"},
    }
