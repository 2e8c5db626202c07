"""The local engine: real processes, with cells that sleep, die or train."""

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import pytest
from aebench.benchmark.cell import cells_of
from aebench.benchmark.display import Display
from aebench.benchmark.engines import Event, Job, OnEvent, Slot, attempt
from aebench.benchmark.engines import local as engine
from aebench.benchmark.engines.base import refuse_other
from aebench.benchmark.engines.local import Local
from aebench.benchmark.grid import Cell, read_grid, specs
from aebench.benchmark.provenance import versions
from aebench.benchmark.runner import Plan, planned
from aebench.benchmark.store import Store
from aebench.plugins import InputError
from rich.console import Console

DIGITS = {"name": "digits", "parameters": {"train": 20, "val": 10, "test": 10}}
CPU: Slot = ("cpu",)
ENDS = ("done", "failed")


def cell(name: str, **settings: object) -> Cell:
    """A cell that one of the functions below is made for; its key is its name."""
    spec = {"dataset": DIGITS, "model": {"name": name}, "backbone": None, "seed": 0}
    return Cell({**spec, **settings}, name)


def say(on_event: OnEvent, of: Cell, text: str) -> None:
    on_event(Event("progress", of, text))


def nap(of: Cell, store: Store, slot: Slot, on_event: OnEvent, wait: bool) -> Event:
    """Sleep as long as the cell says."""
    time.sleep(of.spec.get("seconds", 0))
    return Event("done", of)


def die(of: Cell, store: Store, slot: Slot, on_event: OnEvent, wait: bool) -> Event:
    """End as the cell says: by one of its signals at each attempt, or with a code."""
    past = store.path / f"{of.key}.attempts"
    attempts = int(past.read_text()) if past.exists() else 0
    past.write_text(str(attempts + 1))
    ways = of.spec.get("ways", [])
    if attempts < len(ways):
        way = ways[attempts]
        os.kill(os.getpid(), way) if way < signal.NSIG else os._exit(way - signal.NSIG)
    return Event("done", of)


def look(of: Cell, store: Store, slot: Slot, on_event: OnEvent, wait: bool) -> Event:
    """Tell of the process: its number, its slot, its environment, what it was forked with."""
    print("a worker prints")
    os.system("echo a worker prints")
    from aebench.benchmark.cell import dataset_of, shared

    say(on_event, of, f"pid {os.getpid()}")
    say(on_event, of, f"slot {slot}")
    say(on_event, of, f"probe {os.environ.get('AEBENCH_PROBE')}")
    say(on_event, of, f"argument {sys.argv[-1]} main {hasattr(sys.modules['__main__'], 'ran')}")
    images = dataset_of(of.spec).split("train").images()
    mapped = any(str(file) in Path("/proc/self/maps").read_text() for file in shared.values())
    say(on_event, of, f"dataset {len(images)} {mapped}")
    return Event("done", of)


def with_child(of: Cell, store: Store, slot: Slot, on_event: OnEvent, wait: bool) -> Event:
    """Hold the claim with a forked child that sleeps, and say both numbers; then wait for death."""
    with store.claimed(of, wait) as mine:
        if not mine:
            return Event("elsewhere", of)
        if wait or (store.path / "once").exists():
            return Event("done", of)
        (store.path / "once").touch()
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        say(on_event, of, f"{os.getpid()} {child.pid}")
        time.sleep(600)
    raise AssertionError


def run(
    cells: list[Cell],
    work: Callable[..., Event],
    out: Path,
    workers: int = 2,
    listen: OnEvent = lambda event: None,
    files: tuple[str, ...] = (),
) -> list[Event]:
    """What is told of ``cells``."""
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        listen(event)

    store = Store(out, create=True)
    Local().run(cells, Job(store.path, files, (CPU,) * workers, work), on_event)
    ended = Counter(event.cell.key for event in events if event.kind in ENDS)
    assert ended == Counter(cell.key for cell in cells), "every cell ends once"
    return events


def said(events: list[Event], of: str | None = None) -> list[str]:
    held = [e for e in events if of is None or e.cell.key == of]
    return [e.kind + (f" {e.phase}" if e.phase else "") for e in held]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(*pids: int) -> bool:
    """Whether these processes have ended, soon."""
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(alive, pids))


@pytest.mark.parametrize("workers", [1, 2])
def test_cells_are_begun_in_the_order_given(workers: int, tmp_path) -> None:
    """The other worker does all the short ones while one is at the long one."""
    names = ["long", "a", "c", "b", "e", "d"]
    cells = [cell(name, seconds=1.0 if name == "long" else 0.01) for name in names]
    events = run(cells, nap, tmp_path, workers)
    started = [e.cell.key for e in events if e.kind == "started" and e.cell.key != "long"]
    assert started == names[1:]
    last = [e.cell.key for e in events if e.kind == "done"][-1]
    assert last == ("long" if workers == 2 else "d")


def test_a_cell_is_tried_once_more_when_its_worker_dies(tmp_path) -> None:
    kill, term, code = int(signal.SIGKILL), int(signal.SIGTERM), signal.NSIG + 3
    cells = [
        cell("once", ways=[kill]),
        cell("twice", ways=[kill, kill, kill]),
        cell("otherwise", ways=[term, code]),
        cell("never"),
    ]
    events = run(cells, die, tmp_path)
    assert said(events, "once") == ["started", "started", "done"]
    assert said(events, "never") == ["started", "done"]
    killed = "its worker was killed by SIGKILL (out of memory?), twice"
    assert said(events, "twice") == ["started", "started", f"failed {killed}"]
    terminated = "its worker was killed by SIGTERM, then it ended with 3"
    assert said(events, "otherwise") == ["started", "started", f"failed {terminated}"]
    store = Store(tmp_path)
    assert killed in store.failure(cells[1]).read_text()
    assert not store.failure(cells[0]).exists()


def test_workers_fork_from_one_process_with_this_runs_environment(
    tmp_path, monkeypatch, capfd
) -> None:
    main = tmp_path / "main.py"
    main.write_text(f"open({str(tmp_path / 'ran')!r}, 'w'); ran = True")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(main), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    servers, pids = [], []
    for probe in ("one", None, "two"):
        if probe is None:
            monkeypatch.delenv("AEBENCH_PROBE")
        else:
            monkeypatch.setenv("AEBENCH_PROBE", probe)
        cells = [cell(str(n)) for n in range(4)]
        events = run(cells, look, tmp_path / str(probe))
        for n in range(4):
            kinds = said(events, str(n))
            assert kinds[2:4] == [f"progress slot {CPU}", f"progress probe {probe}"]
            assert kinds[4] == f"progress argument {sys.argv[-1]} main False"
            assert kinds[5] == "progress dataset 20 True"
        numbers = {int(e.phase.split()[1]) for e in events if e.phase.startswith("pid ")}
        assert os.getpid() not in numbers
        assert 1 <= len(numbers) <= 2, "workers live on from cell to cell"
        assert gone(*numbers)
        pids += numbers
        servers.append(forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]
    assert len(set(servers)) == 1
    assert len(set(pids)) >= 3
    assert not (tmp_path / "ran").exists(), "a worker ran the user's script"
    assert sys.modules["__main__"].__file__ == str(main)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_what_workers_are_forked_with_is_one_thread() -> None:
    """A fork copies one thread alone, and no CUDA context."""
    code = (
        "import aebench.benchmark.preload, gc, os, sys, torch\n"
        "assert len(os.listdir('/proc/self/task')) == 1, os.listdir('/proc/self/task')\n"
        "assert not torch.cuda.is_initialized()\n"
        "assert {'aebench.benchmark.cell', 'sklearn.cluster'} <= set(sys.modules)\n"
        "assert gc.get_freeze_count()\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_what_a_worker_has_started_ends_with_it(tmp_path) -> None:
    """A worker is terminated alone; the child that has its claim's descriptor must not keep it."""
    numbers: list[int] = []

    def kill(event: Event) -> None:
        if event.kind == "progress" and " " in event.phase and not numbers:
            numbers.extend(map(int, event.phase.split()))
            assert all(map(alive, numbers))
            os.kill(numbers[0], signal.SIGTERM)

    events = run([cell("a"), cell("a2", seconds=0)], with_child, tmp_path, listen=kill)
    assert {e.cell.key for e in events if e.kind == "done"} == {"a", "a2"}
    assert len(numbers) == 2
    assert gone(*numbers)


def test_nothing_lives_on_when_the_listener_raises(tmp_path) -> None:
    numbers: list[int] = []

    def stop(event: Event) -> None:
        if event.kind == "progress":
            numbers.extend(map(int, event.phase.split()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([cell("a"), cell("b")], with_child, tmp_path, listen=stop)
    assert len(numbers) == 2
    assert gone(*numbers)
    with Store(tmp_path).claimed(cell("a")) as free:
        assert free


@pytest.fixture(scope="module")
def pca(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Three cells that train within a fraction of a second."""
    _, settings = read_grid("smoke")
    settings |= {"models": {"pca": {}}, "metrics": {"mse": {}}, "seeds": 3}
    return planned("pca", settings, tmp_path_factory.mktemp("pca"), (CPU,) * 2)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("finishes", [True, False])
def test_a_cell_of_another_run_is_put_off_and_waited_for(
    pca: Plan, workers: int, finishes: bool, tmp_path
) -> None:
    """The other run finishes it, or is killed."""
    store = Store(tmp_path, create=True)
    theirs, *ours = pca.missing
    other = store.claimed(theirs)
    assert other.__enter__()
    ended: list[str] = []

    def listen(event: Event) -> None:
        ended.extend([event.cell.key] * (event.kind in ENDS))
        if len(ended) == len(ours) and event.kind in ENDS and event.cell != theirs:
            if finishes:
                store.folder(theirs).mkdir()
            other.__exit__(None, None, None)

    events = run(pca.missing, attempt, tmp_path, workers, listen)
    assert ended[-1] == theirs.key
    kinds = [e.kind for e in events if e.cell == theirs]
    assert kinds[:3] == ["started", "elsewhere", "started"]
    assert kinds[-1] == "done"
    assert "progress waiting for another run" in said(events, theirs.key)
    assert ("progress training" in said(events, theirs.key)) is False
    assert (store.folder(theirs) / "metrics.json").exists() is not finishes
    assert all((store.folder(cell) / "metrics.json").exists() for cell in ours)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("import nothing_like_it", "no worker can start: InputError: .*mine.py cannot be imported"),
        ("import os; os._exit(3)", "no worker can start: the last one ended with 3"),
    ],
)
def test_workers_that_cannot_start_end_the_run(content: str, says: str, tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(content)
    with pytest.raises(InputError, match=says):
        run([cell("a"), cell("b")], nap, tmp_path / "out", files=(str(file),))


def test_a_fork_server_that_cannot_start_ends_the_run(tmp_path, monkeypatch) -> None:
    def fail() -> None:
        raise EOFError

    monkeypatch.setattr(engine, "start_fork_server", fail)
    with pytest.raises(InputError, match="no worker can start: the fork server died"):
        run([cell("a"), cell("b")], nap, tmp_path)


def test_the_fork_server_may_die(tmp_path) -> None:
    """Its workers are replaced, by those of another."""

    def kill(event: Event) -> None:
        if event.kind == "started" and not killed:
            killed.append(forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]
            os.kill(killed[0], signal.SIGKILL)

    killed: list[int] = []
    events = run([cell("a", seconds=0.5), cell("b", seconds=0.5)], nap, tmp_path, listen=kill)
    assert [e.kind for e in events].count("done") == 2
    assert forkserver._forkserver._forkserver_pid != killed[0]  # type: ignore[attr-defined]


def test_another_environment_is_refused_by_its_difference() -> None:
    held = read_grid("smoke")[1] | {"models": {"pca": {}}, "seeds": 1}
    (pca,) = cells_of(specs(held, "cpu"))
    here = versions()
    refuse_other(pca, {})
    other = Cell(pca.spec, pca.key[::-1])
    with pytest.raises(InputError, match="the code or the data is not what it was"):
        refuse_other(other, here)
    with pytest.raises(InputError, match=rf"torch is {here['torch'][:4]}.*, not 0.1"):
        refuse_other(other, {**here, "torch": "0.1"})


def test_the_slots_of_a_machine(monkeypatch) -> None:
    slots = Local().slots
    monkeypatch.setattr(engine, "cores", lambda: 6)
    monkeypatch.setattr(engine, "devices_of", lambda device: CPU)
    assert slots("cpu", 1, None, None, 1) == (CPU,) * 6
    assert slots("cpu", 1, None, None, 4) == (CPU,)
    assert slots("cpu", 2, None, None, 1) == (CPU * 2,) * 3
    assert slots("cpu", 1, None, 9, 1) == (CPU,) * 9
    with pytest.raises(InputError, match="--per-device is for GPUs"):
        slots("cpu", 1, 2, None, 1)
    three = ("cuda:0", "cuda:1", "cuda:2")
    monkeypatch.setattr(engine, "devices_of", lambda device: three)
    assert slots("cuda", 1, None, None, 1) == tuple((name,) for name in three)
    assert Counter(slots("cuda", 1, 2, None, 1)) == {(name,): 2 for name in three}
    assert slots("cuda", 2, None, None, 1) == (three[:2],)
    assert slots("cuda", 1, None, 2, 1) == (three[:1], three[1:2])
    with pytest.raises(InputError, match=r"--devices 4: there are 3: cuda:0, cuda:1, cuda:2"):
        slots("cuda", 4, None, None, 1)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_display_counts_a_cell_once(pca: Plan, terminal: bool) -> None:
    first, second, third = pca.missing
    display = Display()
    written = io.StringIO()
    display.console = display.progress.live.console = Console(
        file=written, force_terminal=terminal, width=120
    )
    with display:
        display.on_plan(pca)
        for event in (
            Event("started", first),
            Event("elsewhere", first),
            Event("started", second),
            Event("started", second),  # its worker died
            Event("progress", second, "training", 1, 2),
            Event("done", second),
            Event("started", first),
        ):
            display.on_event(event)
        assert list(display.tasks) == ([first.key] if terminal else [])
        for event in (Event("done", first), Event("failed", third, "a reason")):
            display.on_event(event)
        assert not display.tasks
        assert len(display.progress.tasks) == terminal
    lines = [line for line in written.getvalue().splitlines() if "min left" in line]
    assert ["[1/3]" in lines[0], "[2/3]" in lines[1], "[3/3]" in lines[2]] == [True] * 3
    assert len(lines) == 3
    assert display.summary().startswith("2 of 3 cells are done")
