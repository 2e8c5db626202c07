"""How times are taken and shown. The times themselves are no test's business."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from aebench.benchmark import speed
from aebench.benchmark.grid import read_grid, specs
from aebench.benchmark.speed import bare, evaluation, grid, scaling, start, step
from aebench.benchmark.speed import tables as of_tables
from aebench.benchmark.speed.__main__ import main
from aebench.benchmark.speed.base import Table, alternate, in_turn, ratios, spread
from aebench.models import Batch
from aebench.plugins import InputError
from small import batch, make
from torch import Tensor, nn

DIGITS = {"train": 200, "val": 50, "test": 50}
SMALL = grid.Size(
    dataset={"digits": DIGITS},
    networks=(grid.Network("MLP", {"mlp": {"hidden": [16]}}, 2),),
    seeds=2,
    batch_size=50,
    latent_dim=2,
)


def test_work_is_done_in_turn() -> None:
    done: list[str] = []
    found = in_turn({"a": lambda: done.append("a"), "b": lambda: len(done)}, 3)
    assert done == ["a"] * 3
    assert found == {"a": [None] * 3, "b": [1, 2, 3]}


def test_work_is_timed_in_turn() -> None:
    done: list[str] = []
    work = {"a": lambda: done.append("a"), "b": lambda: done.append("b")}
    seconds = alternate(work, 3)
    assert done == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert all(value >= 0 for values in seconds.values() for value in values)


def test_a_spread_is_the_median_and_the_range() -> None:
    assert spread([3.0, 1.0, 2.0]) == "2.00 s (1.00 to 3.00)"
    assert spread([0.12345]) == "0.123 s"
    assert spread([148.7, 1270.4, 999.4], "ms") == "999 ms (149 to 1,270)"


def test_ratios_are_taken_pair_by_pair() -> None:
    assert ratios([4.0, 9.0, 10.0], [2.0, 3.0, 1.0]) == "3.00 × (2.00 to 10.0)"


def test_a_table_as_markdown() -> None:
    table = Table("Times", ("work", "time"), (("fid", "2 s"),), ("One thread.",))
    lines = table.markdown().splitlines()
    assert lines[0] == "### Times"
    assert lines[2:5] == ["| work | time |", "| --- | --- |", "| fid | 2 s |"]
    assert "One thread." in lines[6]


def test_a_measurement_may_have_several_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Table(name, ("work",), ()) for name in ("one", "two")]
    monkeypatch.setattr(of_tables, "measure", lambda pairs: tuple(found))
    main(["tables"])
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("#")] == ["### one", "### two"]


def test_an_unknown_table_is_refused() -> None:
    command = [sys.executable, "-m", "aebench.benchmark.speed", "nothing"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.splitlines() == [
        "aebench: no table 'nothing'; valid: browser, dci, disentanglement, evaluation, fid, grid, "
        "planning, scaling, start, step, tables"
    ]


def test_the_bare_loop_keeps_the_weights_of_its_best_epoch() -> None:
    """A rate this high overshoots the optimum, which is the mean image."""
    images = torch.full((20, 1, 2, 2), 51, dtype=torch.uint8)
    weight = nn.Parameter(torch.zeros(()))
    validated: list[float] = []

    def loss(x: Tensor) -> Tensor:
        found = (x - weight).square().mean()
        if not torch.is_grad_enabled():
            validated.append(float(found))
        return found

    best = bare.fit(loss, [weight], images, images[:5], 4, 10, 0.08)
    assert len(validated) == 4
    assert best == pytest.approx(min(validated)) and best < validated[-1]
    assert float((weight.detach() - 0.2) ** 2) == pytest.approx(best, rel=1e-5)


def test_the_bare_loop_takes_every_whole_batch_of_an_epoch() -> None:
    images = torch.arange(11, dtype=torch.uint8).view(11, 1, 1, 1)
    weight, seen = nn.Parameter(torch.zeros(())), []

    def loss(x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            seen.append([round(255 * v) for v in x.flatten().tolist()])
        return (x * weight).mean()

    bare.fit(loss, [weight], images, images, 2, 4, 0.1)
    assert [len(some) for some in seen] == [4] * 4
    epochs = [sorted(seen[0] + seen[1]), sorted(seen[2] + seen[3])]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert seen[:2] != seen[2:]


@pytest.mark.parametrize("name", grid.MODELS)
def test_the_bare_loss_is_the_models(name: str) -> None:
    """Without the constant of the Gaussian observation model."""
    shape, beta = (1, 8, 8), grid.MODELS[name]
    held = {"beta": beta} if name == "beta_vae" else {}
    model = make(name, shape, latent_dim=3, likelihood="gaussian", **held)
    images = batch(shape, 6)
    torch.manual_seed(0)
    expected = model.losses(Batch(images.x))["loss"]
    torch.manual_seed(0)
    found = bare.autoencoding(model.encoder, model.decoder, beta)(images.x)
    constant = 0.5 * math.prod(shape) * math.log(2 * math.pi)
    assert found.item() == pytest.approx(expected.item() - constant, rel=1e-4)
    torch.manual_seed(0)
    mixed = bare.autoencoding(model.encoder, model.decoder, beta, "bf16-mixed")(images.x)
    assert mixed.dtype == torch.float32
    assert mixed.item() != found.item()
    assert mixed.item() == pytest.approx(found.item(), rel=0.02)


@pytest.fixture
def as_before() -> Iterator[None]:
    """What a script sets for its process is set back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def test_the_shares_of_the_limit_are_the_grid(tmp_path: Path, as_before: None) -> None:
    work = grid.Work.make(tmp_path, SMALL, SMALL.networks[0])
    assert work.images == len(grid.MODELS) * 2 * 2 * 200
    wanted = specs(read_grid(tmp_path / "grid.yaml")[1], "cpu")
    for share in range(2):
        bare.main(tmp_path, share, 2, "32")
    losses = work.left_by("bare")
    assert set(losses) == {grid.file_of(spec) for spec in wanted}
    assert all(0 < loss < 64 for loss in losses.values())
    assert work.left_by("bare") == {}


def test_losses_are_shown_by_model_over_its_seeds() -> None:
    losses = {"vae-0.pt": 1.0, "vae-1.pt": 3.0, "beta_vae-0.pt": 9.0}
    row = grid.loss_row("MLP", "vae", {grid.OURS: losses})
    assert row == ("MLP", "vae", "", "2.00 ± 1.41", "", "", "")
    assert grid.loss_row("MLP", "beta_vae", {grid.LIMIT: losses})[4] == "9.00"


def test_a_python_without_pythae_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for python in (str(tmp_path / "python"), "/bin/true"):
        monkeypatch.setenv("PYTHAE_PYTHON", python)
        with pytest.raises(InputError, match=f"PYTHAE_PYTHON={python} has no Pythae 0.1.2"):
            grid.pythae_python(tmp_path)


def test_a_failed_command_says_why() -> None:
    code = "import sys; sys.exit('no such thing')"
    with pytest.raises(RuntimeError, match="no such thing"):
        grid.together([[sys.executable, "-c", "pass"], [sys.executable, "-c", code]])


@pytest.mark.slow
def test_every_way_trains_the_same_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pythae's is one of them where ``PYTHAE_PYTHON`` names one that has it."""
    if not os.environ.get("PYTHAE_PYTHON"):
        monkeypatch.setattr(grid, "pythae_python", lambda folder: None)
    times, mixed, losses = grid.measure(1, SMALL)
    assert [len(table.rows) for table in (times, mixed, losses)] == [1, 1, 3]
    for row in losses.rows:
        found = [float(cell.partition(" ")[0]) for cell in row[2:] if cell]
        assert len(found) == 4 + bool(os.environ.get("PYTHAE_PYTHON"))
        assert max(found) < 1.1 * min(found)


def test_a_step_is_timed_every_way() -> None:
    networks = {"MLP": {"name": "mlp", "parameters": {"hidden": (8,)}}}
    size = step.Size({"name": "digits", "parameters": DIGITS}, networks, 1, 50)
    table = step.measure(1, size)[0]
    assert [row[0] for row in table.rows] == ["ae, MLP", "vae, MLP"]
    assert all(cell.endswith("ms") for row in table.rows for cell in row[1:4])
    assert len(table.columns) == len(table.rows[0])


@pytest.fixture
def few(tmp_path: Path) -> str:
    """A grid of few metrics."""
    file = tmp_path / "few.yaml"
    settings = {
        "datasets": {"digits": DIGITS},
        "models": ["vae"],
        "training": {"epochs": 1000, "batch_size": 50},
        "metrics": {"mse": {}, "elbo": {"samples": 1}, "knn": {}},
    }
    file.write_text(yaml.safe_dump(settings))
    return str(file)


def test_a_cell_is_timed_by_family(few: str) -> None:
    table = evaluation.measure(1, [few])
    parts = [row[0] for row in table.rows]
    assert parts[:3] == ["training", "reconstruction", "likelihood"]
    assert parts[-3:] == ["pictures and writing", "all but training", "its share"]
    shares = [float(row[1].rpartition(",")[2].strip(" %")) for row in table.rows[:-2]]
    assert sum(shares) == pytest.approx(100, abs=len(shares))


def test_a_training_counts_as_long_as_its_budget_is(few: str) -> None:
    """Two of its thousand epochs are trained."""
    (spec,) = evaluation.wanted([few]).values()
    start = time.perf_counter()
    held = evaluation.parts_of(spec)
    assert held["training"] > 5 * (time.perf_counter() - start)


def test_datasets_that_cannot_be_had_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"models": ["vae"], "datasets": {"digits": DIGITS, "folder": {"path": "/none"}}}
    monkeypatch.setattr(evaluation, "read_grid", lambda name: (name, read_grid(settings)[1]))
    assert list(evaluation.wanted(["some"])) == ["digits, some"]
    del settings["datasets"]["digits"]
    with pytest.raises(InputError, match="/none"):
        evaluation.wanted(["some"])


def test_a_slot_sleeps_its_cells_one_after_another() -> None:
    table = scaling.slot_table(1, scaling.Size(sleeps=((0.02, 3),), slots=(1,)))
    ((slots, cells, ideal, took, overhead, _),) = table.rows
    assert (slots, cells, ideal) == ("1", "3 × 0.02 s", "0.06 s")
    assert float(took.split()[0]) >= 0.06
    assert overhead.endswith("%")


@pytest.mark.slow
def test_slots_and_workers_share_the_cells() -> None:
    settings = scaling.Size().grid | {
        "datasets": {"digits": DIGITS},
        "training": {"epochs": 2, "batch_size": 50},
        "seeds": 2,
    }
    workers, slots = scaling.measure(1, scaling.Size(settings, ((0.5, 2),), (1, 2)))
    assert workers.rows[0][0] == "1"
    seconds = [float(row[3].split()[0]) for row in slots.rows]
    assert all(1 <= found < 2 for found in seconds)  # one after another, two slots take 2 s


@pytest.mark.slow
def test_starting_is_timed() -> None:
    names = [row[0] for row in start.measure(1).rows]
    assert names[2:4] == ["`aebench --help`", "`aebench list models`"]


@pytest.mark.parametrize("script", ["bare", "with_pythae"])
def test_scripts_of_other_processes_import_nothing_of_ours(script: str) -> None:
    """What they import would count as their seconds."""
    text = (Path(speed.__path__[0]) / f"{script}.py").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    assert lines
    assert not [line for line in lines if "aebench" in line or line.startswith("from .")]


def test_the_work_of_a_grid_is_what_the_others_read(tmp_path: Path) -> None:
    grid.Work.make(tmp_path, SMALL, SMALL.networks[0])
    work = json.loads((tmp_path / "work.json").read_text())
    assert [work[name] for name in ("epochs", "batch_size", "lr", "latent_dim")] == [2, 50, 1e-3, 2]
    assert {(cell["model"], cell["beta"]) for cell in work["cells"]} == set(grid.MODELS.items())
    images = torch.load(tmp_path / "images.pt")
    assert {name: (held.dtype, len(held)) for name, held in images.items()} == {
        "train": (torch.uint8, 200),
        "val": (torch.uint8, 50),
    }
    assert os.path.getsize(tmp_path / "images.pt") < 64 * 250 + 10_000
