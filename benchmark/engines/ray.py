"""Ray: cells as tasks of a cluster that the user has, or of one started here."""

import atexit
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...plugins import InputError, load_file
from ..grid import Cell
from ..provenance import versions
from ..store import Store, Unwritable, unlinked
from .base import Engine, Event, Job, OnEvent, Slot, Work, failed, refuse_other, refuse_packing
from .local import cores

Files = Mapping[str, bytes]
"""The contents of a folder's files, by their paths in it."""

OF_A_TRAINING = ("cell.json", "history.json", "checkpoint.pt")
"""The files of a finished cell that spare another one its training."""
POLL = 0.25
"""Seconds between two looks at what the cells are at."""
PROGRESS = 1.0
"""Seconds between two words of a cell on its progress."""
REACH = 5.0
"""Seconds to wait for a cluster's address to answer, and for cells that are cancelled to end."""


class Ray(Engine):
    """The nodes of a cluster run the cells; what they finish comes back to the store of this one.

    Each cell is a task that asks for its threads, or its GPUs. Where its worker or node dies, Ray
    runs it once more. The nodes need aebench in the same version. They need not see the store, nor
    the files of datasets that are held in memory: those come through the cluster, a copy a node.

    Args:
        address: the cluster: auto, HOST:PORT or ray://HOST:PORT; without it, one is started here.
    """

    name = "ray"

    def __init__(self, *, address: str | None = None) -> None:
        self.address = address or os.environ.get("RAY_ADDRESS")
        self.per_device = 1
        self.capped = False

    def slots(
        self, device: str, devices: int, per_device: int | None, workers: int | None, threads: int
    ) -> tuple[Slot, ...]:
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"--device {device}: Ray chooses which one; valid: auto, cpu, cuda")
        nodes = self.nodes()
        gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
        kind = "cuda" if device == "cuda" or (device == "auto" and gpus) else "cpu"
        refuse_packing(kind, per_device)
        if per_device is not None and devices > 1:
            raise InputError("--per-device is for cells of one device: Ray lends others whole GPUs")
        self.per_device, self.capped = per_device or 1, workers is not None
        count = workers or room(nodes, needs(kind, devices, threads, self.per_device))
        return ((kind,) * devices,) * count

    def nodes(self) -> list[dict[str, float]]:
        """The resources of each node of the cluster, or of this machine."""
        if self.address or imported().is_initialized():
            with connected(self.address) as ray:
                return [node["Resources"] for node in ray.nodes() if node["Alive"]]
        import torch

        return [{"CPU": cores(), "GPU": torch.cuda.device_count()}]

    def run(self, cells: list[Cell], job: Job, on_event: OnEvent) -> None:
        kind, count = job.slots[0][0], len(job.slots)
        queue = deque((cell, needs_of(cell, kind, self.per_device)) for cell in cells)
        most = max(need["num_cpus"] for _, need in queue)
        # Some wait at the cluster, so that no worker waits for us, unless it has room for too many.
        window = count if self.capped else 2 * count
        with connected(self.address, max(cores(), int(most * count))) as ray:
            for need in [] if self.capped else {str(need): need for _, need in queue}.values():
                room(self.nodes(), need)  # refused now, or it would wait for ever
            tasks = Tasks(ray, job, on_event)
            try:
                tasks.run(queue, window)
            finally:
                tasks.cancel()


def needs(kind: str, devices: int, threads: int, per_device: int) -> dict[str, float]:
    """What a cell asks of Ray."""
    if kind == "cuda":
        return {"num_cpus": 0, "num_gpus": devices / per_device}
    return {"num_cpus": devices * threads}


def needs_of(cell: Cell, kind: str, per_device: int) -> dict[str, float]:
    from ..train import Budget

    budget = Budget.of(cell.spec["training"])
    return needs(kind, budget.devices, budget.threads, per_device)


def room(nodes: list[dict[str, float]], need: dict[str, float]) -> int:
    """How many cells with the same ``need`` fit on the nodes at once.

    Raises:
        InputError: none does.
    """
    resource, amount = "CPU", need["num_cpus"]
    if "num_gpus" in need:
        resource, amount = "GPU", need["num_gpus"]
    count = sum(int(node.get(resource, 0) / amount + 1e-6) for node in nodes)
    if not count:
        raise InputError(
            f"no node of the cluster has the {amount:g} {resource} that a cell needs; where nodes "
            "are started on demand, --workers N says how many cells at once"
        )
    return count


def imported() -> Any:
    """Ray.

    Raises:
        InputError: it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray needs Ray: pip install 'aebench[ray]'") from None
    return ray


@contextmanager
def connected(address: str | None, cpus: int | None = None) -> Iterator[Any]:
    """Ray, connected to a cluster while the context lasts, unless it is already.

    Args:
        address: of the cluster; None starts one here, which ends with the context.
        cpus: how many that one has.

    Raises:
        InputError: Ray is not installed, or there is no cluster of this version at ``address``.
    """
    os.environ.setdefault("RAY_task_oom_retries", "1")  # without end otherwise
    if not address:
        # This environment is that of the workers already.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    ray = imported()
    if ray.is_initialized():
        yield ray
        return
    how: dict[str, Any] = {"address": address}
    if not address:
        how = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
    elif address != "auto":
        refuse_unreachable(address)
    on_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**how, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        if not address:
            raise InputError(f"Ray cannot be started: {last}") from None
        raise InputError(
            f"--ray-address {address}: {last} (the cluster must have Ray {ray.__version__}; if it "
            "asks for a token, set RAY_AUTH_MODE=token)"
        ) from None
    finally:
        if on_main:
            signal.signal(signal.SIGTERM, before)  # Ray's own ends the process with code 15
    try:
        yield ray
    finally:
        ray.shutdown()


def refuse_unreachable(address: str) -> None:
    """Ray itself would wait for minutes.

    Raises:
        InputError: nothing answers at ``address``, or it is none.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise InputError(
            f"--ray-address {address}: valid: auto, HOST:PORT (6379 unless the cluster says "
            "otherwise) or ray://HOST:PORT (10001)"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--ray-address {address}: no cluster answers: {error}") from None


class Tasks:
    """The cells under way on a cluster. Their claims are held here, as nodes may see no store."""

    def __init__(self, ray: Any, job: Job, on_event: OnEvent) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.ray, self.job, self.on_event = ray, job, on_event
        self.store = Store(job.store)
        self.task = ray.remote(max_calls=0, max_retries=1, retry_exceptions=False)(work)
        self.files = ray.put([user_file(path) for path in job.files])
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        actor = ray.remote(num_cpus=0)(Mailbox).options(scheduling_strategy=here)
        self.mailbox = actor.remote()
        self.datasets: dict[str, list[Any]] = {}
        self.under_way: dict[Any, tuple[Cell, ExitStack]] = {}
        self.started: set[str] = set()

    def run(self, queue: deque[tuple[Cell, dict[str, float]]], window: int) -> None:
        """Run every cell of ``queue`` with what it needs, ``window`` of them at the cluster."""
        put_off: deque[tuple[Cell, dict[str, float]]] = deque()
        letters = self.mailbox.take.remote()
        while queue or put_off or self.under_way:
            while queue and len(self.under_way) < window:
                turn = queue.popleft()
                if not self.submit(*turn):
                    self.on_event(Event("elsewhere", turn[0]))
                    put_off.append(turn)
            for _ in range(0 if queue else min(len(put_off), window - len(self.under_way))):
                turn = put_off.popleft()
                if not self.submit(*turn):
                    put_off.append(turn)
            refs = [*self.under_way, *([letters] if letters else [])]
            if not refs:
                time.sleep(POLL)
                continue
            self.ray.wait(refs, timeout=POLL)
            ready, _ = self.ray.wait(refs, num_returns=len(refs), timeout=0)
            if letters in ready:
                letters = self.read(letters)
            for ref in ready:
                if ref in self.under_way:
                    self.finish(ref)

    def submit(self, cell: Cell, need: dict[str, float]) -> bool:
        """Give a cell to the cluster; False where another run is at it."""
        with ExitStack() as claim:
            try:
                if not claim.enter_context(self.store.claimed(cell)):
                    return False
            except Unwritable as error:
                self.on_event(Event("failed", cell, str(error), unwritable=True))
                return True
            if self.store.has(cell):
                self.on_event(Event("done", cell))
                return True
            kind, held = self.job.slots[0][0], trained_before(cell, self.store)
            data = self.dataset(cell)
            given = (cell, kind, self.job.work, self.files, versions(), data, held, self.mailbox)
            ref = self.task.options(**need, name=cell.title).remote(*given)
            self.under_way[ref] = (cell, claim.pop_all())
        return True

    def dataset(self, cell: Cell) -> list[Any]:
        """Where the cluster has the dataset of ``cell``: one copy a node, which its tasks share.

        Nowhere where each node reads its own: what is mapped from files, and kinds of the user's,
        which are not known yet where it would arrive.
        """
        from ...datasets.shared import views
        from ..cell import choice_of, held_dataset

        choice = choice_of(cell.spec)
        if choice not in self.datasets:
            dataset = held_dataset(choice)
            is_ours = type(dataset).__module__.startswith("aebench.")
            held = views(dataset) if is_ours else None
            self.datasets[choice] = [] if held is None else [self.ray.put(held)]
        return self.datasets[choice]

    def read(self, letters: Any) -> Any:
        """Pass on what cells under way have said; returns where they say more, None if nowhere."""
        try:
            events = self.ray.get(letters)
        except self.ray.exceptions.RayError:
            return None  # the cells go on without it
        known = {cell.key for cell, _ in self.under_way.values()}
        for event in events:
            if event.cell.key in known:
                self.started.add(event.cell.key)
                self.on_event(event)
        return self.mailbox.take.remote()

    def finish(self, ref: Any) -> None:
        """Take back what became of a cell."""
        cell, claim = self.under_way.pop(ref)
        with claim:
            try:
                event, files = self.ray.get(ref)
                if event.kind == "done":
                    put(files, self.store)
                else:
                    event = failed(cell, self.store, event.phase)
            except Unwritable as error:
                event = Event("failed", cell, str(error), unwritable=True)
            except Exception as error:
                event = failed(cell, self.store, why(error))
        if cell.key not in self.started:
            self.on_event(Event("started", cell))
        self.on_event(event)

    def cancel(self) -> None:
        """Abandon the cells under way."""
        refs = [*self.under_way]
        for ref in refs:
            self.ray.cancel(ref)
        if refs:
            self.ray.wait(refs, num_returns=len(refs), timeout=REACH)
        for ref in refs:
            self.ray.cancel(ref, force=True)
            self.under_way.pop(ref)[1].close()
        self.ray.kill(self.mailbox)


def why(error: Exception) -> str:
    """What ended a task, in a line."""
    from ray import exceptions

    again = "at the second attempt too"
    if isinstance(error, exceptions.OutOfMemoryError):
        return f"its worker was killed, {again}: its node ran out of memory"
    if isinstance(error, exceptions.WorkerCrashedError):
        return f"its worker died, {again} (killed, or out of memory?)"
    if isinstance(error, exceptions.NodeDiedError):
        return f"its node died, {again}"
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {cause}"


class Mailbox:
    """What the cells say of themselves, until it is fetched."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def put(self, event: Event) -> None:
        self.events.append(event)

    async def take(self) -> list[Event]:
        """What came since the last time, a little later."""
        import asyncio

        await asyncio.sleep(POLL)
        taken, self.events = self.events, []
        return taken


def work(
    cell: Cell,
    kind: str,
    do: Work,
    files: list[tuple[str, Files]],
    ours: dict[str, str],
    data: list[Any],
    trained: Files,
    mailbox: Any,
) -> tuple[Event, Files]:
    """A task: run a cell in a store of its own, and hand back the cell's folder.

    Args:
        cell: the cell.
        kind: of the devices to train it on, ``cpu`` or ``cuda``.
        do: what runs it.
        files: the user's own files, as of :func:`user_file`.
        ours: the versions of the machine that asks.
        data: as of :meth:`Tasks.dataset`.
        trained: an earlier cell that shares its training, or nothing.
        mailbox: who is told of progress.
    """
    import ray

    from ...datasets.shared import share
    from ..cell import choice_of, dataset_of, shared
    from ..train import Budget

    slot = devices_here(kind, Budget.of(cell.spec["training"]).devices)
    mailbox.put.remote(Event("started", cell))
    said = -PROGRESS

    def on_event(event: Event) -> None:
        nonlocal said
        if time.monotonic() - said >= PROGRESS:
            said = time.monotonic()
            mailbox.put.remote(event)

    for path, held in files:
        load(path, tuple(held.items()))
    shared.clear()  # or the node would keep every dataset that it ever had
    shared.update({choice_of(cell.spec): held for held in ray.get(data)})
    try:
        refuse_other(cell, ours)
    except InputError as error:
        raise InputError(f"on {socket.gethostname()}: {error}") from None
    with tempfile.TemporaryDirectory(prefix="aebench-") as folder:
        store = Store(folder, create=True)
        if trained:
            put(trained, store)
        if len(slot) > 1:  # its processes map a file
            shared[choice_of(cell.spec)] = share(dataset_of(cell.spec), Path(folder))
        event = do(cell, store, slot, on_event, True)
        event = replace(event, unwritable=False)  # that is of this store alone
        return event, contents(store.folder(cell)) if event.kind == "done" else {}


def devices_here(kind: str, count: int) -> Slot:
    """The devices of the task that asks.

    A process that has begun to use CUDA no longer reads ``CUDA_VISIBLE_DEVICES``, by which Ray
    tells every task, so a worker sees all GPUs and takes those of its task by their numbers.
    """
    if kind == "cpu":
        return ("cpu",) * count
    import ray

    numbers = sorted(map(str, ray.get_gpu_ids()))
    if not all(number.isdigit() for number in numbers):  # named by UUID
        return tuple(f"cuda:{i}" for i in range(count))
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    return tuple(f"cuda:{number}" for number in numbers)


def trained_before(cell: Cell, store: Store) -> Files:
    """What spares ``cell`` its training; nothing where ``store`` has no other of the same."""
    from ..cell import training_key_of

    with suppress(OSError, InputError):
        folder = store.of_training(training_key_of(cell.spec))
        return {file: unlinked(folder / file).read_bytes() for file in OF_A_TRAINING}
    return {}


def contents(folder: Path) -> Files:
    """The files of a folder and of those in it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write(files: Files, folder: Path) -> None:
    """Write files by their paths in ``folder``, which need not exist.

    Raises:
        ValueError: a path leads out of it; nothing was written then.
    """
    for name in files:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name!r} leads out of the cell's folder")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def put(files: Files, store: Store) -> None:
    """Put a finished cell into a store, whole or not at all. It must be claimed there.

    Raises:
        Unwritable: the system refuses.
    """
    about = json.loads(files["cell.json"])
    cell = Cell(about["spec"], about["key"])
    name = store.folder(cell).name
    with store.part(name) as part:
        write(files, part)
        store.settle(part, cell)
    store.name_trained(about["provenance"]["training_key"], name)


def user_file(path: str) -> tuple[str, Files]:
    """A user's own file: its path, its content, and that of the modules beside it."""
    file = Path(path)
    places = {Path(str(getattr(module, "__file__", None))) for module in list(sys.modules.values())}
    beside = {place for place in places if place.parent == file.parent and place.is_file()}
    return path, {place.name: place.read_bytes() for place in sorted({file, *beside})}


@lru_cache
def load(path: str, files: tuple[tuple[str, bytes], ...]) -> None:
    """Load a user's file: the one at ``path`` if it is the same here, or else a copy."""
    here = Path(path)
    with suppress(OSError):
        if all((here.parent / name).read_bytes() == content for name, content in files):
            load_file(here)
            return
    folder = Path(tempfile.mkdtemp(prefix="aebench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write(dict(files), folder)
    sys.path.append(str(folder))
    load_file(folder / here.name)
