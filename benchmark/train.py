"""One training: a model, a dataset and a budget in, the model of the best epoch out."""

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, ReduceLROnPlateau

from ..datasets import Dataset, Split, as_float
from ..models import Autoencoder, Batch, ClosedForm
from ..plugins import InputError, checked, suggestion
from ..seeds import derive_seed

OnEpoch = Callable[[int, int], None]
"""Called with the number of epochs done and the number in all."""


class TrainingFailed(Exception):
    """The training cannot go on: its loss is not finite."""


def names_of(spec: dict[str, Any]) -> tuple[object, ...]:
    """What a cell's random streams are derived from."""
    return (spec["dataset"]["name"], spec["model"]["name"], spec["seed"])


@contextmanager
def arithmetic(threads: int) -> Iterator[None]:
    """The CPU's arithmetic as a cell's numbers depend on it, whatever this process had before.

    So many threads, and denormal numbers as zero: gradients of saturated pixels are denormal, and
    an autoencoder of mostly black images trains at half the speed with them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Budget:
    """What a training may spend, and how: the same for every variant unless a grid says otherwise.

    An epoch is better where the validation term that the variant names is lower than in every epoch
    before. Every optimiser of an adversarial variant follows the same schedule.

    Attributes:
        epochs: passes over the training split, at most.
        batch_size: images a step; a last, smaller batch is left out, a new one every epoch.
        lr: the learning rate.
        threads: CPU threads; they are part of the specification because sums depend on them.
        optimizer: Adam, or RMSprop centred by the mean gradient, with torch's averages over 100
            steps.
        betas: how much Adam's averages of the gradient and of its square keep of a step before.
        eps: what is added to the root of the average square.
        milestones: the epochs after which the learning rate is multiplied by ``gamma``; those that
            are never reached do nothing.
        plateau: multiply it by ``gamma`` after so many epochs in a row without a better one.
        gamma: the factor of both.
        patience: stop after so many epochs in a row without a better one.
        precision: ``32``, or ``bf16-mixed``: the networks compute in bfloat16 while they are
            trained; weights, what networks return, the loss and all scores are float32.
        devices: on how many devices each batch is shared out.
    """

    epochs: int = 50
    batch_size: int = 100
    lr: float = 1e-3
    threads: int = 1
    optimizer: Literal["adam", "rmsprop"] = "adam"
    betas: tuple[float, ...] = (0.9, 0.999)
    eps: float = 1e-8
    milestones: tuple[int, ...] = ()
    plateau: int | None = None
    gamma: float = 0.1
    patience: int | None = None
    precision: Literal[32, "bf16-mixed"] = 32
    devices: int = 1

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Budget":
        """The budget that a grid states, checked.

        Raises:
            InputError: an unknown key, or a value of the wrong type or out of range.
        """
        known = {f.name: f.type for f in fields(cls)}
        for key in given:
            if key not in known:
                raise InputError(f"unknown training setting {key!r}{suggestion(key, known)}")
        budget = cls(**{k: checked(v, known[k], f"training: {k}") for k, v in given.items()})
        for key, value in vars(budget).items():
            if isinstance(value, (int, float)) and not (value > 0 and math.isfinite(value)):
                raise InputError(f"training: {key} must be positive, not {value}")
        if len(budget.betas) != 2 or not all(0 <= beta < 1 for beta in budget.betas):
            raise InputError(
                f"training: betas must be two numbers from 0 to below 1, not {list(budget.betas)}"
            )
        steps = (0, *budget.milestones)
        if any(later <= earlier for earlier, later in zip(steps, steps[1:])):
            raise InputError(
                f"training: milestones must be rising epochs above 0, not {list(budget.milestones)}"
            )
        return budget

    @property
    def stated(self) -> dict[str, Any]:
        """The budget as a specification states it: what differs from Adam at a constant rate.

        Epochs, batch size, learning rate and threads are always in it; what has no effect never is.
        """
        always, plain = ("epochs", "batch_size", "lr", "threads"), Budget()
        idle = set() if self.milestones or self.plateau else {"gamma"}
        idle |= set() if self.optimizer == "adam" else {"betas"}
        return {
            key: value
            for key, value in vars(self).items()
            if key in always or (value != getattr(plain, key) and key not in idle)
        }

    def make_optimizer(self) -> Callable[..., torch.optim.Optimizer]:
        """What makes an optimiser of parameters and an ``lr``."""
        if self.optimizer == "rmsprop":
            return partial(torch.optim.RMSprop, eps=self.eps, centered=True)
        first, second = self.betas
        return partial(torch.optim.Adam, betas=(first, second), eps=self.eps, fused=True)

    def schedulers(self, optimizers: list[torch.optim.Optimizer]) -> list[LRScheduler]:
        """What changes the learning rates of ``optimizers``, stepped once an epoch."""
        made: list[LRScheduler] = []
        for optimizer in optimizers:
            if self.milestones:
                made.append(MultiStepLR(optimizer, list(self.milestones), self.gamma))
            if self.plateau:
                # Torch's patience is one epoch longer; better means lower here, by however little.
                made.append(
                    ReduceLROnPlateau(
                        optimizer, factor=self.gamma, patience=self.plateau - 1, threshold=0
                    )
                )
        return made


@dataclass
class Trained:
    """What a training leaves beside the fitted model.

    Attributes:
        history: a dict an epoch: ``epoch``, every term as ``train/<term>`` and ``val/<term>``.
        best_epoch: the epoch whose weights were kept, from 1; 0 for a closed form.
        steps: the number of batches trained on.
        seconds: wall time.
        peak_memory: of the process or the device until its end, in MiB.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0
    seconds: float = 0.0
    peak_memory: float = 0.0


class Loader:
    """Batches of a split that lives on the device as uint8, converted there.

    Args:
        split: the images.
        batch_size: images a batch.
        seed: shuffles anew every epoch and drops a last, smaller batch; None keeps the order and
            every image.
    """

    def __init__(self, split: Split, batch_size: int, seed: int | None = None) -> None:
        self.split, self.batch_size = split, min(batch_size, len(split))
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.split), self.batch_size)
        return whole + (self.generator is None and rest > 0)

    def __iter__(self) -> Iterator[Batch]:
        if self.generator is None:
            for images, labels in self.split.batches(self.batch_size):
                yield Batch(as_float(images), labels)
            return
        held = self.split.pixels if self.split.pixels is not None else self.split.factors
        assert held is not None
        order = torch.randperm(len(self.split), generator=self.generator).to(held.device)
        for index in order.split(self.batch_size)[: len(self)]:
            labels = None if self.split.labels is None else self.split.labels[index]
            yield Batch(as_float(self.split.training_images(index)), labels)


class Watch(Callback):
    """Averages the terms of every epoch, keeps the best weights, and reports progress.

    At the end of an epoch it steps the budget's schedules, and stops the training whose patience is
    at an end.

    Terms are summed on the device and read once an epoch. Validation draws from a stream of its
    own, the same every epoch, so that it neither shifts the training's nor favours an epoch.
    """

    def __init__(self, model: Autoencoder, budget: Budget, seed: int, on_epoch: OnEpoch) -> None:
        self.model, self.budget, self.seed, self.on_epoch = model, budget, seed, on_epoch
        self.trained = Trained()
        self.best, self.best_state = math.inf, state_of(model)
        self.sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, prefix: str, terms: Any, batch: Batch) -> None:
        n = len(batch.x)
        for name, term in terms.items():
            total, count = self.sums.get(f"{prefix}/{name}", (0.0, 0))
            self.sums[f"{prefix}/{name}"] = (total + n * term.detach(), count + n)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.schedulers = self.budget.schedulers(trainer.optimizers)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.add("train", outputs, batch)
        self.trained.steps += 1

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.stream = torch.random.fork_rng(
            devices=[module.device] if module.device.type == "cuda" else []
        )
        self.stream.__enter__()
        torch.manual_seed(self.seed)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.stream.__exit__(None, None, None)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.add("val", outputs, batch)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        means = torch.stack([total / count for total, count in self.sums.values()]).tolist()
        record = dict(zip(self.sums, means))
        self.sums = {}
        self.trained.history.append({"epoch": epoch, **record})
        for name, value in record.items():
            if not math.isfinite(value):
                raise TrainingFailed(f"{name} became {value} in epoch {epoch}")
        chosen = record[f"val/{self.model.selection}"]
        if chosen < self.best:
            self.best, self.best_state = chosen, state_of(self.model)
            self.trained.best_epoch = epoch
        for scheduler in self.schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(chosen)
            else:
                scheduler.step()
        if self.budget.patience and epoch - self.trained.best_epoch >= self.budget.patience:
            trainer.should_stop = True
        self.on_epoch(epoch, trainer.max_epochs or epoch)


def state_of(model: Autoencoder) -> dict[str, Tensor]:
    """A copy of the model's weights and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def train(
    model: Autoencoder,
    dataset: Dataset,
    budget: Budget,
    names: tuple[object, ...],
    device: torch.device | str = "cpu",
    on_epoch: OnEpoch = lambda done, total: None,
) -> Trained:
    """Fit ``model`` to the training split; the validation split picks the epoch that is kept.

    The model is left on ``device``, in evaluation mode.

    Args:
        model: untrained.
        dataset: read by its train and val splits alone.
        budget: epochs, batch size, optimiser and schedules.
        names: what every random stream of this training is derived from.
        device: where to train.
        on_epoch: told of progress.

    Raises:
        TrainingFailed: a term of the loss is not finite.
        KeyboardInterrupt: the user stopped it.
    """
    device = torch.device(device)
    start = time.perf_counter()
    model.to(device)
    train_split = dataset.split("train").to(device)
    torch.manual_seed(derive_seed(*names, "train"))
    if isinstance(model, ClosedForm):
        model.fit(as_float(train_split.images()), derive_seed(*names, "fit"))
        if not all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()):
            raise TrainingFailed("the fit is not finite")
        model.eval()
        return Trained(seconds=time.perf_counter() - start)
    loader = Loader(train_split, budget.batch_size, derive_seed(*names, "order"))
    model.lr, model.make_optimizer = budget.lr, budget.make_optimizer()
    model.steps = budget.epochs * len(loader)
    model.initialise(Loader(train_split, budget.batch_size, derive_seed(*names, "initialise")))
    watch = Watch(model, budget, derive_seed(*names, "validation"), on_epoch)
    with quiet():
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index or 0] if device.type == "cuda" else 1,
            max_epochs=budget.epochs,
            callbacks=[watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(model, loader, Loader(dataset.split("val").to(device), 500))
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
    model.load_state_dict(watch.best_state)
    model.to(device).eval()
    watch.trained.seconds = time.perf_counter() - start
    return watch.trained


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning from printing: only the CLI prints."""
    loggers = [logging.getLogger(f"{n}.pytorch") for n in ("lightning", "pytorch_lightning")]
    loggers += [logging.getLogger("pytorch_lightning"), logging.getLogger("lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)
