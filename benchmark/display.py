"""What a person sees of a run: one live display, or plain lines where there is no terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from .engines import Event
from .grid import Cell
from .runner import Plan


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar while something is counted: what is yielded is called with how many of how many."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class Display:
    """Cells done and left, what each worker is at, and the time left."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.plan: Plan | None = None
        self.done = 0
        self.failures: list[tuple[Cell, str]] = []
        self.notes: list[str] = []
        self.started: dict[str, float] = {}
        self.begun = time.monotonic()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[phase]}"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.tasks: dict[str, TaskID] = {}
        self.whole: TaskID | None = None
        self.live = Live(self.progress, console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Display":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.live.stop()

    def on_plan(self, plan: Plan) -> None:
        self.plan = plan
        total, missing = len(plan.cells), len(plan.missing)
        devices = dict.fromkeys(device for slot in plan.slots for device in slot)
        self.say(
            f"{plan.grid}: {total} cells, {total - missing} done already, {missing} to do, "
            f"{len(plan.slots)} at once on {', '.join(devices)}, into {plan.store.path}"
        )
        if missing and self.console.is_terminal:
            self.whole = self.progress.add_task("cells", total=missing, phase="")
            self.live.start()

    def on_event(self, event: Event) -> None:
        key = event.cell.key
        if event.kind == "progress":
            if key in self.tasks:
                self.progress.update(
                    self.tasks[key], completed=event.done, total=event.total, phase=event.phase
                )
            return
        if key in self.tasks:
            self.progress.remove_task(self.tasks.pop(key))
        if event.kind == "started":
            self.started[key] = time.monotonic()
            if self.whole is not None:
                self.tasks[key] = self.progress.add_task(event.cell.title, total=None, phase="")
        elif event.kind in ("done", "failed"):
            self.finished(event)

    def finished(self, event: Event) -> None:
        key = event.cell.key
        self.done += event.kind == "done"
        if event.kind == "failed":
            self.failures.append((event.cell, event.phase))
        if self.whole is not None:
            self.progress.advance(self.whole)
        assert self.plan is not None
        count = self.done + len(self.failures)
        seconds = time.monotonic() - self.started.get(key, self.begun)
        outcome = "done" if event.kind == "done" else f"FAILED: {event.phase}"
        line = f"[{count}/{len(self.plan.missing)}] {event.cell.title}  {outcome}"
        left = (time.monotonic() - self.begun) / count * (len(self.plan.missing) - count)
        self.say(f"{line} ({seconds:.0f} s; {left / 60:.0f} min left)")

    def say(self, line: str) -> None:
        # Text, so that brackets of hostile names are not taken for markup.
        self.console.print(Text(" ".join(line.split())), soft_wrap=True, highlight=False)

    def summary(self) -> str:
        """What the run came to, a line for each failed cell."""
        if self.plan is None:
            return "Nothing was run."
        finished = len(self.plan.cells) - len(self.plan.missing) + self.done
        lines = [f"{finished} of {len(self.plan.cells)} cells are done, in {self.plan.store.path}"]
        if self.failures:
            lines.append(f"{len(self.failures)} failed; the same command tries them again:")
            lines += [f"  {cell.title}: {error}" for cell, error in self.failures]
        lines += self.notes
        return "\n".join(lines)
