"""Runs of the command line: their numbers, their processes, and stopping them by a signal."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

CLI = [str(Path(sys.executable).with_name("aebench"))]
COSTS = ("train_seconds", "evaluate_seconds", "peak_memory")


def numbers(out: Path) -> list[list[str]]:
    """The lines of rows.csv that must repeat to the last bit: all but what a cell cost."""
    with (out / "rows.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    metric = rows[0].index("metric")
    return [row for row in rows if row[metric] not in COSTS]


def members(session: int) -> list[str]:
    """The processes of a session that have not ended, as lines of /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            line = path.read_text()
            state, _, _, number = line.rpartition(")")[2].split()[:4]
            if int(number) == session and state not in "ZX":
                found.append(line)
    return found


def helped(words: list[str], unwanted: set[str]) -> str:
    """The help that ``words`` of the command line ask for; it imports nothing ``unwanted``."""
    code = (
        f"import sys; sys.argv = {['aebench', *words]}\n"
        "from aebench.benchmark.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        f"found = {unwanted} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stopped(
    command: list[str],
    number: signal.Signals,
    ready: Callable[[], object],
    patience: float = 120,
    env: Mapping[str, str] | None = None,
) -> tuple["subprocess.Popen[str]", str]:
    """A run that a signal has ended once it was ``ready``, and what it said on stderr.

    SIGINT reaches its whole group, as Ctrl-C does, another signal the run alone.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=env,
        # A job in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and not ready():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    return process, said
