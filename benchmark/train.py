"""One training: a model, a dataset and a budget in, the model of the best epoch out."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, ReduceLROnPlateau

from ..datasets import Dataset, as_float
from ..models import Autoencoder, ClosedForm
from ..models.base import Reduce
from ..plugins import InputError, checked, suggestion
from ..seeds import derive_seed, seeded
from .loader import Loader
from .steps import Means, Steps

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # slow to import, and for distributed trainings alone

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
        if budget.batch_size % budget.devices:
            raise InputError(
                f"training: batch_size must be a multiple of devices ({budget.devices}), "
                f"not {budget.batch_size}"
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

    def make_optimizer(
        self, device: torch.device | str = "cpu"
    ) -> Callable[..., torch.optim.Optimizer]:
        """What makes an optimiser of parameters on ``device`` and an ``lr``."""
        held: dict[str, Any] = {"eps": self.eps}
        cls: Callable[..., torch.optim.Optimizer] = torch.optim.Adam
        if self.optimizer == "rmsprop":
            cls, held["centered"] = torch.optim.RMSprop, True
        else:
            held |= {"betas": self.betas, "fused": True}
        if torch.device(device).type != "cuda":
            return partial(cls, **held)
        # A captured step reads the rate from the device, so that schedules reach it.
        held["capturable"] = True
        return lambda parameters, lr: cls(parameters, lr=torch.tensor(lr, device=device), **held)

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
        uncaptured: why its steps were not captured in a CUDA graph; empty where they were, and on
            the CPU.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0
    seconds: float = 0.0
    peak_memory: float = 0.0
    uncaptured: str = ""


class Record:
    """The history of a training, and the weights of its best epoch."""

    def __init__(self, model: Autoencoder) -> None:
        self.model, self.trained = model, Trained()
        self.best, self.best_state = math.inf, state_of(model)

    def add(self, epoch: int, record: dict[str, float]) -> float:
        """Take in the terms of an epoch; gives the one that the variant selects by.

        Raises:
            TrainingFailed: a term is not finite.
        """
        self.trained.history.append({"epoch": epoch, **record})
        for name, value in record.items():
            if not math.isfinite(value):
                raise TrainingFailed(f"{name} became {value} in epoch {epoch}")
        chosen = record[f"val/{self.model.selection}"]
        if chosen < self.best:
            self.best, self.best_state = chosen, state_of(self.model)
            self.trained.best_epoch = epoch
        return chosen


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
    capture: bool = True,
    fabric: "Fabric | None" = None,
) -> Trained:
    """Fit ``model`` to the training split; the validation split picks the epoch that is kept.

    The host waits for the device once an epoch. The model is left on ``device``, in evaluation
    mode.

    Args:
        model: untrained.
        dataset: read by its train and val splits alone.
        budget: epochs, batch size, optimiser and schedules.
        names: what every random stream of this training is derived from.
        device: where to train.
        on_epoch: told of progress.
        capture: whether to replay steps from a CUDA graph where they can be captured.
        fabric: the processes that share each batch, of which this is one; None for one alone.

    Raises:
        TrainingFailed: a term of the loss is not finite.
        KeyboardInterrupt: the user stopped it.
    """
    device = torch.device(device)
    start = time.perf_counter()
    model.to(device)
    rank, parts = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    split = dataset.split("train")
    torch.manual_seed(derive_seed(*names, "train"))
    if isinstance(model, ClosedForm):
        model.fit(as_float(split.images().to(device)), derive_seed(*names, "fit"))
        if not all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()):
            raise TrainingFailed("the fit is not finite")
        model.eval()
        return Trained(seconds=time.perf_counter() - start)
    size = budget.batch_size
    loader = Loader(split, size, derive_seed(*names, "order"), device, (rank, parts))
    val = Loader(dataset.split("val"), 500, device=device)
    model.lr, model.make_optimizer = budget.lr, budget.make_optimizer(device)
    model.steps, model.steps_done = budget.epochs * len(loader), 0
    model.train()
    model.initialise(Loader(split, size, derive_seed(*names, "initialise"), device))
    if rank:  # the noise of each part of a batch is its own
        torch.manual_seed(derive_seed(*names, "train", rank))
    optimizers = model.configure_optimizers()
    schedulers = budget.schedulers(optimizers)
    record, seen, validated = Record(model), Means(), Means()
    reduce = averaging(fabric) if fabric else None
    steps = Steps(model, loader, optimizers, seen, capture, reduce)
    with precision(model, budget.precision):
        for epoch in range(1, budget.epochs + 1):
            model.train()
            for item in loader.items():
                steps.take(*item)
            model.eval()
            # The same numbers every epoch, which leave the training's where they were.
            with torch.no_grad(), seeded(derive_seed(*names, "validation"), device):
                for batch in val:
                    validated.add(model.terms(batch), len(batch.x))
            found = {f"train/{name}": mean for name, mean in seen.read().items()}
            found |= {f"val/{name}": mean for name, mean in validated.read().items()}
            if fabric:
                found = fabric.broadcast(found)
            chosen = record.add(epoch, found)
            for scheduler in schedulers:
                if isinstance(scheduler, ReduceLROnPlateau):
                    scheduler.step(chosen)
                else:
                    scheduler.step()
            on_epoch(epoch, budget.epochs)
            if budget.patience and epoch - record.trained.best_epoch >= budget.patience:
                break
    model.load_state_dict(record.best_state)
    trained = record.trained
    trained.steps, trained.seconds = steps.taken, time.perf_counter() - start
    trained.uncaptured = steps.uncaptured if device.type == "cuda" else ""
    return trained


@contextmanager
def precision(model: Autoencoder, chosen: int | str) -> Iterator[None]:
    """Within, the model's networks compute in bfloat16 if it is chosen, and return float32.

    So losses, which sum over many pixels and take logarithms, are computed in float32.
    """
    if chosen == 32:
        yield
        return
    networks = list(outermost(model))
    for network in networks:
        network.forward = in_bfloat16(network.forward, model.device.type)
    try:
        yield
    finally:
        for network in networks:
            del network.forward  # the class's own is seen again


def outermost(module: nn.Module) -> Iterator[nn.Module]:
    """The networks of a module that are called as a whole."""
    for child in module.children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from outermost(child)
        else:
            yield child


def in_bfloat16(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    def computed(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            found = forward(*args, **kwargs)
        return in_float32(found)

    return computed


def in_float32(found: Any) -> Any:
    if isinstance(found, Tensor):
        return found.float() if found.dtype == torch.bfloat16 else found
    if type(found) in (list, tuple):
        return type(found)(map(in_float32, found))
    return found


def averaging(fabric: "Fabric") -> Reduce:
    """What gives the means of tensors over the processes of ``fabric``, sent as one."""

    def reduce(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        if not tensors:
            return tensors
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        mean = fabric.all_reduce(flat, reduce_op="mean")
        assert isinstance(mean, Tensor)
        parts = mean.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor).to(tensor.dtype) for tensor, part in zip(tensors, parts)]

    return reduce
