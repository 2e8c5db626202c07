"""What a metric is, and the view of a fitted model and a dataset that it is given."""

import hashlib
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...datasets import Dataset, Split, SplitName, as_float
from ...datasets.base import parts
from ...models import Autoencoder, Batch, Sampler
from ...plugins import InputError, Plugin
from ...seeds import derive_seed, seeded
from ..extractors import Extractor

Direction = Literal["higher", "lower", ""]
T = TypeVar("T")


class NotApplicable(Exception):
    """The model or the dataset lacks what a metric needs: its rows say n/a and why."""


@dataclass(frozen=True)
class Quantity:
    """One number that a metric gives.

    Attributes:
        name: its name in rows, such as ``fid``.
        better: the direction in which it is better; empty where neither is.
        unit: its unit; empty for a bare number.
        low: the least value it can take, None where there is none.
        high: the greatest.
        ranked: whether it counts in the rank and stands in every table. What says the same as
            another (such as the squared error of an image beside that of a pixel), or only helps
            to read another, is reported in rows and shown when it is asked for.
    """

    name: str
    better: Direction
    unit: str = ""
    low: float | None = None
    high: float | None = None
    ranked: bool = True


Values = Mapping[str, float | NotApplicable]
"""Values by quantity. ``name[part]``, such as ``factor_probe[shape]``, is a part of a quantity and
has a row of its own beside it."""

Kept = Mapping[str, NDArray[Any]]
"""Arrays by name that a cell keeps for a comparison of seeds."""


class Metric(Plugin, kind="metric"):
    """Scores a fitted model on a dataset: reads, never trains, never writes.

    The constructor's keyword arguments are the estimator's parameters. A metric computes all its
    quantities at once. It may raise :class:`NotApplicable`, or give one as the value of a quantity
    where the others apply. It depends neither on the order of the images nor on the batch size.

    Attributes:
        family: one of ``FAMILIES``, or a new one, which tables show after them.
        quantities: what it gives, in order.
        source: the definition's paper.
        description: one line for the table of metrics.
        needs: optional methods of the model that it calls; without them the rows are n/a.
        needs_labels: whether it needs a dataset with labels.
        needs_factors: whether it needs a dataset with ground-truth factors.
        reads_codes: whether it asks what the codes say of labels or factors; n/a for a model whose
            encoder was told the label.
        per_sampler: whether it scores each sampler of the model, not the model itself.
    """

    family: ClassVar[str]
    quantities: ClassVar[tuple[Quantity, ...]]
    source: ClassVar[str] = ""
    description: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    needs_labels: ClassVar[bool] = False
    needs_factors: ClassVar[bool] = False
    reads_codes: ClassVar[bool] = False
    per_sampler: ClassVar[bool] = False

    def compute(self, fitted: "Fitted", sampler: str = "") -> Values:
        """The value of every quantity by name, a :class:`NotApplicable` where there is none.

        Args:
            fitted: the model and the dataset.
            sampler: the sampler to score, where :attr:`per_sampler`.
        """
        raise NotImplementedError

    def qualifier(self, fitted: "Fitted") -> str:
        """What two values must share to stand in one column, such as the extractor's name.

        It follows the quantity's name in rows: ``fid[classifier]``. Empty for most metrics.
        """
        return ""

    def estimator(self, fitted: "Fitted") -> str:
        """How the numbers were estimated, in words: split, number of samples, bins, extractor."""
        return ""

    def lacks(self, fitted: "Fitted") -> str:
        """Why this metric cannot score ``fitted``; empty where it can."""
        model, dataset = fitted.model, fitted.dataset
        if self.needs_labels and not dataset.classes:
            return "the dataset has no labels"
        if self.needs_factors and not dataset.factor_sizes:
            return "the dataset has no ground-truth factors"
        if self.reads_codes and model.given == "label":
            return "the encoder reads the label"
        missing = [method for method in self.needs if not model.offers(method)]
        return f"the model has no {missing[0]}" if missing else ""


class AcrossSeeds(Metric):
    """Compares trainings of one model under several seeds: every cell keeps what is compared.

    The values are computed when the rows of a store are read, of all seeds that it has.
    """

    def keep(self, fitted: "Fitted") -> Kept:
        """What a cell keeps for the comparison, small arrays by name."""
        raise NotImplementedError

    def compare(self, kept: list[Kept]) -> list[Values]:
        """The values of each of two or more seeds, in order, from what their cells kept."""
        raise NotImplementedError

    def compared(self, seeds: int) -> str:
        """How the numbers were estimated, in words, from so many seeds."""
        return ""


class Fitted:
    """A fitted model and its dataset, as metrics see them.

    Embeddings, reconstructions, samples and features are computed once and shared. Everything is
    computed in evaluation mode, without gradients, in batches of a fixed size, and random numbers
    are drawn only inside :meth:`random`, from a stream named by its purpose: no metric depends on
    which others run, nor changes the global random state. The images of a split come in an order
    of their own (:func:`canonical_order`), so that no metric depends on that of the dataset.

    Args:
        model: the fitted model; it is put in evaluation mode.
        dataset: the dataset it was trained on.
        extractor: the feature extractor of FID and its like.
        seed: what every stream of this evaluation is derived from.
        samplers: the samplers to score by name, not yet fitted.
        batch_size: images at a time.
    """

    def __init__(
        self,
        model: Autoencoder,
        dataset: Dataset,
        extractor: Extractor,
        seed: int = 0,
        samplers: dict[str, Sampler] | None = None,
        batch_size: int = 500,
    ) -> None:
        self.model, self.dataset, self.extractor = model.eval(), dataset, extractor
        self.seed, self.samplers, self.batch_size = seed, samplers or {}, batch_size
        self._held: dict[Hashable, Any] = {}
        self._ready: set[str] = set()

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def shown(self) -> str:
        """The pixels of an image that its decoded copies show as they are; empty for none.

        Rows that read decoded images name them: a model that is shown more errs on less.
        """
        given = self.model.given
        return "" if given == "label" else given

    @contextmanager
    def random(self, *purpose: object) -> Iterator[int]:
        """Torch's global stream, seeded by ``purpose`` within and restored after; gives the seed.

        For numpy and scikit-learn pass the seed on as ``random_state``.
        """
        seed = derive_seed(self.seed, *purpose)
        with seeded(seed, self.device):
            yield seed

    def split(self, name: SplitName) -> Split:
        """The split in its canonical order, its images given on the model's device."""

        def compute() -> Split:
            order = canonical_order(self.dataset, name)
            return self.dataset.split(name).take(order).on(self.device)

        return self.once(("split", name), compute)

    def batches(
        self, name: SplitName, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The first ``limit`` images of a split, float32 (b, C, H, W) in [0, 1], and labels."""
        for images, labels in self.split(name).take(slice(limit)).batches(self.batch_size):
            yield as_float(images), labels

    @torch.no_grad()
    def codes(self, name: SplitName, limit: int | None = None) -> Tensor:
        """The deterministic codes of a split's first ``limit`` images, (n, …), on the device.

        Raises:
            NotApplicable: a code is not finite.
        """

        def compute() -> Tensor:
            codes = [self.model.code(x, y) for x, y in self.batches(name, limit)]
            return finite(torch.cat(codes), "codes")

        limit = min(limit or len(self.split(name)), len(self.split(name)))
        return self.once(("codes", name, limit), compute)

    def embeddings(self, name: SplitName, limit: int | None = None) -> Tensor:
        """The embeddings of a split's first ``limit`` images, float32 (n, d), on the CPU."""
        return self.codes(name, limit).flatten(1).float().cpu()

    def labels(self, name: SplitName, limit: int | None = None) -> Tensor:
        """The labels of a split's first ``limit`` images, int64 (n,), on the CPU."""
        labels = self.split(name).labels
        assert labels is not None, "a metric that reads labels says needs_labels"
        return labels[:limit].cpu()

    def factors(self, name: SplitName, limit: int | None = None) -> Tensor:
        """The factors of a split's first ``limit`` images, int64 (n, K), on the CPU."""
        factors = self.split(name).factors
        assert factors is not None, "a metric that reads factors says needs_factors"
        return factors[:limit].cpu()

    @torch.no_grad()
    def reconstructions(self, name: SplitName = "test") -> Tensor:
        """The reconstructions of a split, float32 (n, C, H, W) in [0, 1], on the CPU.

        Raises:
            NotApplicable: a pixel is not finite.
        """

        def compute() -> Tensor:
            images = [self.model.reconstruct(x, y).cpu() for x, y in self.batches(name)]
            return finite(torch.cat(images), "reconstructions")

        return self.once(("reconstructions", name), compute)

    @torch.no_grad()
    def represent(self, factors: Tensor) -> Tensor:
        """The embeddings of any factors int64 (n, K), float32 (n, d), on the CPU.

        Raises:
            NotApplicable: the dataset does not have every combination of factors, or a code is
                not finite.
        """
        if not self.dataset.renders:
            raise NotApplicable("the dataset does not have every combination of its factors")
        parts = []
        for some in factors.to(self.device).split(self.batch_size):
            parts.append(self.model.embed(as_float(self.dataset.render(some)), None).float().cpu())
        return finite(torch.cat(parts), "codes")

    @torch.no_grad()
    def mean_images(self, codes: Tensor, given: Tensor | None = None) -> Iterator[Tensor]:
        """The images of codes (n, …) in batches: float32 (b, C, H, W) in [0, 1], on the device.

        Args:
            codes: the codes.
            given: what the model's decoder reads beside them (n, …), such as their labels.

        Raises:
            NotApplicable: a pixel is not finite.
        """
        for start in range(0, len(codes), self.batch_size):
            some = slice(start, start + self.batch_size)
            y = None if given is None else given[some].to(self.device)
            yield finite(self.model.decode(codes[some].to(self.device), y), "decoded images")

    def decode(self, codes: Tensor, given: Tensor | None = None) -> Tensor:
        """What :meth:`mean_images` gives as uint8 (n, C, H, W), on the CPU."""
        return torch.cat([as_uint8(some).cpu() for some in self.mean_images(codes, given)])

    def conditions(self, name: SplitName, index: Tensor) -> Tensor | None:
        """What the model's decoder is given beside the codes of a split's images at ``index``."""
        if not self.model.given:
            return None
        chosen = self.split(name).take(index)
        found = [self.model.condition(as_float(x), y) for x, y in chosen.batches(self.batch_size)]
        return torch.cat([some for some in found if some is not None])

    def samples(self, sampler: str, n: int) -> Tensor:
        """``n`` images drawn by a sampler, uint8 (n, C, H, W), on the CPU.

        What its decoder is given beside the codes is that of training images drawn at random.

        Raises:
            NotApplicable: the sampler cannot serve this model.
        """

        def compute() -> Tensor:
            chosen = self.samplers[sampler]
            if why := chosen.why_not(self.model):
                raise NotApplicable(why)
            if sampler not in self._ready:
                with self.random("sampler", sampler, "fit") as seed, torch.no_grad():
                    try:
                        if chosen.reads_images:
                            images = (Batch(x, y) for x, y in self.batches("train"))
                            chosen.fit_images(self.model, images, seed)
                        else:
                            chosen.fit(self.model, self.codes("train"), seed)
                    except InputError as reason:  # it refuses such codes
                        raise NotApplicable(str(reason)) from None
                self._ready.add(sampler)
            with self.random("sampler", sampler, "sample"), torch.no_grad():
                codes = chosen.sample(self.model, n)
                of = torch.randint(len(self.split("train")), (n,))
                return self.decode(codes, self.conditions("train", of))

        return self.once(("samples", sampler, n), compute)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The extractor's features of images uint8 (n, C, H, W): float64 (n, k), on the CPU."""
        parts = [
            self.extractor.features(some.to(self.device)).double().cpu()
            for some in images.split(self.batch_size)
        ]
        return torch.cat(parts)

    def real_features(self, name: SplitName, limit: int | None = None) -> Tensor:
        """The features of a split's first ``limit`` images, computed once a dataset."""

        def compute() -> Tensor:
            split = self.split(name).take(slice(limit))
            return torch.cat([self.features(x) for x, _ in split.batches(self.batch_size)])

        return self.extractor.cached(f"{name}-{limit}-canonical", compute)

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What ``compute`` gives, computed once for ``key``: metrics share work by it."""
        if key not in self._held:
            self._held[key] = compute()
        return self._held[key]

    @cached_property
    def generated(self) -> int:
        """How many images a generation metric draws: as many as test has, at most 10,000."""
        return min(10_000, len(self.dataset.split("test")))


_orders: weakref.WeakKeyDictionary[Dataset, dict[str, Tensor]] = weakref.WeakKeyDictionary()


def canonical_order(dataset: Dataset, name: SplitName) -> Tensor:
    """An order of a split's images that depends on their content alone: int64 (n,).

    By a hash of the pixels (of the factors, where images are drawn on demand), the label and the
    factors: the first n are a random sample, the same one however the dataset is stored.
    """
    held = _orders.setdefault(dataset, {})
    if name not in held:
        split = dataset.split(name)
        few = [values for values in (split.labels, split.factors) if values is not None]
        columns: list[Iterable[NDArray[Any]]] = [values.cpu().numpy() for values in few]
        if split.pixels is not None:
            pieces = parts(split.pixels, split.order)
            columns.insert(0, (row for piece in pieces for row in piece.cpu().numpy()))
        keys = b"".join(
            hashlib.blake2b(b"".join(value.tobytes() for value in row), digest_size=8).digest()
            for row in zip(*columns)
        )
        held[name] = torch.from_numpy(np.frombuffer(keys, ">u8").argsort(kind="stable"))
    return held[name]


def as_uint8(images: Tensor) -> Tensor:
    """Float images as uint8: clamped to [0, 1], then rounded, once and alike for all."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)


def finite(values: Tensor, what: str) -> Tensor:
    """``values``, none of which may be infinite or NaN: a score of them would mean nothing.

    Raises:
        NotApplicable: one is.
    """
    if not bool(values.isfinite().all()):
        raise NotApplicable(f"the {what} are not finite")
    return values
