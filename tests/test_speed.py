"""How times are taken and shown. The times themselves are no test's business."""

import subprocess
import sys

from aebench.benchmark.speed.base import Table, alternate, ratios, spread


def test_work_is_timed_in_turn() -> None:
    done: list[str] = []
    work = {"a": lambda: done.append("a"), "b": lambda: done.append("b")}
    seconds = alternate(work, 3)
    assert done == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert all(value >= 0 for values in seconds.values() for value in values)


def test_a_spread_is_the_median_and_the_range() -> None:
    assert spread([3.0, 1.0, 2.0]) == "2 s (1 to 3)"
    assert spread([0.12345]) == "0.123 s"


def test_ratios_are_taken_pair_by_pair() -> None:
    assert ratios([4.0, 9.0, 10.0], [2.0, 3.0, 1.0]) == "3 × (2 to 10)"


def test_a_table_as_markdown() -> None:
    table = Table("Times", ("work", "time"), (("fid", "2 s"),), ("One thread.",))
    lines = table.markdown().splitlines()
    assert lines[0] == "### Times"
    assert lines[2:5] == ["| work | time |", "| --- | --- |", "| fid | 2 s |"]
    assert "One thread." in lines[6]


def test_an_unknown_table_is_refused() -> None:
    command = [sys.executable, "-m", "aebench.benchmark.speed", "nothing"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.splitlines() == [
        "aebench: no table 'nothing'; valid: browser, dci, disentanglement, fid, tables"
    ]
