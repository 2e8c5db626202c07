"""What the commands on results do, from the published ones."""

import csv
import io
import re
import sys
from pathlib import Path

import pytest
from aebench.benchmark.cli import main, names

RESULTS = Path(__file__).resolve().parent.parent / "results"
QUICK = str(RESULTS / "quick")


def aebench(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["aebench", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_names_are_parted_by_commas_outside_brackets() -> None:
    assert names("a, b(size=32,train=1),c[x,y]") == ["a", "b(size=32,train=1)", "c[x,y]"]
    assert names(None) is None


def test_a_table_of_chosen_datasets_and_metrics(monkeypatch, capsys) -> None:
    given = ["--datasets", "digits", "--metric", "fid,mse", "--format", "csv"]
    assert aebench(monkeypatch, "table", QUICK, *given) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {line["dataset"] for line in lines} == {"digits"}
    means = [float(line["fid[classifier]"]) for line in lines]
    assert means == sorted(means)
    assert "mse_ci95" in lines[0]
    assert "psnr" not in lines[0]


@pytest.mark.parametrize("format", ["text", "md", "csv", "latex", "html", "svg"])
def test_the_ranking_in_every_format(monkeypatch, capsys, format: str) -> None:
    assert aebench(monkeypatch, "table", QUICK, "--rank", "--format", format) == 0
    said = capsys.readouterr().out
    assert "vae" in said
    assert "sprites" in said


@pytest.mark.parametrize("format", ["text", "md", "csv", "latex", "html", "svg"])
def test_a_comparison_in_every_format(monkeypatch, capsys, format: str) -> None:
    given = ["--model", "vae", "--baseline", "ae,pca", "--metric", "fid", "--format", format]
    assert aebench(monkeypatch, "compare", QUICK, *given) == 0
    assert "pca" in capsys.readouterr().out


def test_the_page_is_written_where_it_is_wanted(monkeypatch, capsys, tmp_path) -> None:
    out = tmp_path / "page.html"
    planar = str(RESULTS / "paper" / "planar_mnist")
    assert aebench(monkeypatch, "report", planar, "--out", str(out)) == 0
    assert capsys.readouterr().out == f"written: {out}\n"
    assert "planar_vae" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["table", QUICK, "--datasets", "digit"], "no dataset 'digit'.*digits"),
        (["table", QUICK, "--metric", "nothing"], "no metric 'nothing'.*generation"),
        (["table", QUICK, "--format", "pdf"], "pdf"),
        (["compare", QUICK, "--model", "va"], "no model 'va'.*vae"),
        (["compare", QUICK, "--model", "vae", "--baseline", "vae"], "'vae' is the model itself"),
        (["compare", QUICK], "--model"),
        (["report", QUICK, "--out", "/nowhere/page.html"], "/nowhere/page.html cannot be written"),
        (["report", str(RESULTS)], "is not a folder of results"),
        (["merge", QUICK], "--out"),
        (["merge", QUICK, "--out", "OUT"], "is not a folder of results of a run"),
    ],
)
def test_bad_input_gets_one_line(monkeypatch, capsys, tmp_path, arguments, says) -> None:
    given = [str(tmp_path / "out") if word == "OUT" else word for word in arguments]
    assert aebench(monkeypatch, *given) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.strip().splitlines()
    assert re.search(says, line), line
