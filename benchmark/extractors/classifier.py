"""A small network trained on the dataset itself: features where Inception knows nothing."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...datasets import Split
from ...plugins import InputError
from ...seeds import derive_seed
from ..cache import cached_tensors
from .base import Extractor, unit

VERSION = 1
"""Raised whenever the network or its training changes, so that old weights are not read."""
WIDTH = 64
IMAGES = 30_000
TEST_IMAGES = 10_000
STEPS = 1500
BATCH = 64
LR = 3e-3


class Net(nn.Module):
    """Strided convolutions down to at most 4 x 4, 64 features, and a linear head a target.

    Attributes:
        scale: what the features are divided by.

    Args:
        shape: (C, H, W) of an image.
        sizes: the number of values of each target.
    """

    scale: Tensor

    def __init__(self, shape: tuple[int, int, int], sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        channels, height, width = shape
        layers: list[nn.Module] = []
        while max(height, width) > 4:
            out = WIDTH if layers else WIDTH // 2
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.ReLU()]
            channels, height, width = out, math.ceil(height / 2), math.ceil(width / 2)
        layers += [nn.Flatten(), nn.Linear(channels * height * width, WIDTH), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, size) for size in sizes)

    def features(self, images: Tensor) -> Tensor:
        """Features (n, 64), 0 or more, of images (n, C, H, W): uint8, or floats in [0, 1]."""
        return self.body(unit(images)) / self.scale

    def maps(self, images: Tensor) -> list[Tensor]:
        """The maps (n, C, H, W) after every convolution, 0 or more, of images (n, C, H, W)."""
        x, found = unit(images), []
        for layer in self.body:
            x = layer(x)
            if x.ndim == 4 and isinstance(layer, nn.ReLU):
                found.append(x)
        return found or [unit(images)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """The logits (n, size) of each target."""
        hidden = self.body(unit(images))
        return [head(hidden) for head in self.heads]


class Classifier(Extractor):
    """The last hidden layer, 64 features, of a small network trained once on the dataset.

    It learns all ground-truth factors at once where there are any, the labels otherwise, from at
    most 30,000 training images, on one CPU thread whatever the device, so that the weights depend
    on the dataset alone. They are kept in the cache. One factor brings the features' mean square
    over training images to 1, so that distances do not depend on the size training happens to
    give them.
    """

    name = "classifier"
    description = "64 features of a small network trained on the dataset's factors or labels"

    def why_not(self) -> str:
        if self.sizes:
            return ""
        return "the dataset has neither labels nor factors to train the classifier: use inception"

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of values of each target; a factor of one value is none."""
        sizes = self.dataset.factor_sizes or (self.dataset.classes,)
        return tuple(size for size in sizes if size > 1)

    @cached_property
    def fingerprint(self) -> str:
        hashed = hashlib.sha256()
        for name, tensor in sorted(self._held.items()):
            hashed.update(f"{name} {tuple(tensor.shape)}".encode())
            hashed.update(tensor.numpy().tobytes())
        return hashed.hexdigest()

    @property
    def label(self) -> str:
        return f"classifier (test accuracy {self.accuracy:.3f})"

    @property
    def accuracy(self) -> float:
        """Its accuracy on at most 10,000 test images, the mean over factors where it has them."""
        return self._held["accuracy"].item()

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        return self._net.features(images)

    def why_no_logits(self) -> str:
        several = "the classifier has several targets" if len(self.sizes) > 1 else ""
        return super().why_no_logits() or several

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        if why := self.why_no_logits():
            raise InputError(why)
        return self._net(images)[0]

    def maps(self, images: Tensor) -> list[Tensor]:
        return self._net.maps(images)

    @cached_property
    def _net(self) -> Net:
        with torch.random.fork_rng(devices=[]):
            net = Net(self.dataset.shape, self.sizes)
        net.load_state_dict({k: v for k, v in self._held.items() if k != "accuracy"})
        return net.to(self.device).requires_grad_(False).eval()

    @cached_property
    def _held(self) -> dict[str, Tensor]:
        """The weights, and the accuracy under its name.

        Raises:
            InputError: the dataset has neither labels nor factors.
        """
        if why := self.why_not():
            raise InputError(why)
        settings = (IMAGES, TEST_IMAGES, STEPS, BATCH, LR, WIDTH)
        return cached_tensors(("classifier", VERSION, settings, self.dataset.hash), self._train)

    def _train(self) -> dict[str, Tensor]:
        # Features may be asked for without gradients, and ask for the training in turn.
        with one_thread(), torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(derive_seed("classifier", VERSION, self.dataset.hash))
            images, targets = self._data(self.dataset.split("train").take(slice(IMAGES)))
            net = Net(self.dataset.shape, self.sizes)
            optimizer = torch.optim.Adam(net.parameters(), lr=LR)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=STEPS)
            for index in batches(len(images), STEPS):
                optimizer.zero_grad()
                logits = net(images[index])
                losses = [F.cross_entropy(z, y) for z, y in zip(logits, targets[index].T)]
                torch.stack(losses).sum().backward()
                optimizer.step()
                schedule.step()
            with torch.no_grad():
                squares = [net.features(x).square().sum() for x in images.split(500)]
                rms = (torch.stack(squares).sum() / (len(images) * WIDTH)).sqrt()
                net.scale.copy_(rms.clamp(min=1e-6))
                images, targets = self._data(self.dataset.split("test").take(slice(TEST_IMAGES)))
                right = torch.zeros(len(self.sizes), dtype=torch.float64)
                for x, y in zip(images.split(500), targets.split(500)):
                    logits = net(x)
                    found = torch.stack([z.argmax(1) for z in logits], 1)
                    right += (found == y).sum(0)
        return net.state_dict() | {"accuracy": (right / len(images)).mean()}

    def _data(self, split: Split) -> tuple[Tensor, Tensor]:
        """The images, uint8 (n, C, H, W), and their targets, int64 (n, K), on the CPU."""
        split = split.to("cpu")
        if not self.dataset.factor_sizes:
            assert split.labels is not None
            return split.images(), split.labels[:, None]
        assert split.factors is not None
        vary = [i for i, size in enumerate(self.dataset.factor_sizes) if size > 1]
        return split.images(), split.factors[:, vary]


def batches(n: int, steps: int) -> Iterator[Tensor]:
    """``steps`` batches of indices below ``n``: each index once an epoch, a shorter last kept."""
    done = 0
    while True:
        for index in torch.randperm(n).split(BATCH):
            if done == steps:
                return
            yield index
            done += 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one CPU thread within: sums depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
