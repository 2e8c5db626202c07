"""The page of reproductions: what it finds, what it says of a run, and that it is up to date."""

import csv
import json
import math
from pathlib import Path

import pytest
import yaml
from aebench.benchmark import run
from aebench.benchmark.grid import read_grid, shipped, specs
from aebench.benchmark.reproductions import natural, page, reproductions
from aebench.benchmark.rows import COLUMNS
from aebench.benchmark.runner import changed
from aebench.benchmark.statistics import interval
from aebench.benchmark.store import Store
from aebench.plugins import InputError

ROOT = Path(__file__).resolve().parent.parent
FIGURE = {"dataset": "digits", "source": "Somebody 2000"}
GRID = {
    "description": "As somebody did it.",
    "takes": "a second",
    "datasets": ["digits"],
    "models": {"vae": {"latent_dim": [2, 10]}, "ae": {"latent_dim": 2}},
    "training": {"epochs": 50, "milestones": [4]},
    "seeds": 2,
    "metrics": {"nll": {"samples": 7}, "sse": {}, "fid": {}},
    "published": [
        {**FIGURE, "model": {"vae": {"latent_dim": 10}}, "metric": "nll", "value": 90.1},
        {**FIGURE, "model": {"vae": {"latent_dim": 2}}, "metric": "nll", "value": 120},
        {
            **FIGURE,
            "model": "ae",
            "metric": "fid[classifier]",
            "sampler": "gmm",
            "value": 9.253,
            "spread": 0.1,
            "note": "by | hand",
        },
    ],
}


def written(root: Path, cells: dict[str, tuple[dict, list[dict]]]) -> None:
    """A folder of tables as a run leaves it: cells by name, each a specification and its rows."""
    folder = root / "paper" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "specs.json").write_text(json.dumps({k: spec for k, (spec, _) in cells.items()}))
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for name, (_, rows) in cells.items():
            writer.writerows({**row, "cell": name} for row in rows)


def cells(*assignments: str, **values: float) -> dict[str, tuple[dict, list[dict]]]:
    """Cells of the grid, changed; of each model so many seeds as ``values`` has of it."""
    settings = changed(read_grid(GRID)[1], None, None, None, assignments, ())
    found = {}
    for spec in specs(settings, "cpu"):
        name, d = spec["model"]["name"], spec["model"]["hyperparameters"]["latent_dim"]
        key = f"{name}{d}_{spec['seed']}"
        if key in values:
            nll = {"metric": "nll[bernoulli]", "value": repr(values[key])}
            fid = {"metric": "fid[classifier]", "sampler": "gmm", "value": repr(values[key])}
            other = {"metric": "fid[classifier]", "sampler": "prior", "value": "1000.0"}
            sse = {"metric": "sse", "value": "2000.0"}
            text = " ".join(assignments) or "whole"
            found[f"{text} {key}"] = (spec, [nll if name == "vae" else fid, other, sse])
    return found


def lines(root: Path) -> dict[str, list[list[str]]]:
    """The cells of the page's table, by model."""
    text = page(reproductions(root, {"paper/tiny": GRID}))
    found: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        if line.startswith("|"):
            model, *others = [cell.strip() for cell in line.replace(r"\|", "¦").split("|")[1:-1]]
            found.setdefault(model, []).append(others)
    assert "`paper/tiny`: As somebody did it." in text
    return found


def test_a_grid_that_was_not_run_says_so(tmp_path) -> None:
    found = lines(tmp_path)
    assert list(found)[2:] == ["ae", "vae(latent_dim=2)", "vae(latent_dim=10)"]
    assert found["ae"] == [
        [
            "digits",
            "fid[classifier], gmm",
            "9.253 ± 0.100",
            "–",
            "not run yet (a second)",
            "Somebody 2000; by ¦ hand",
            "`aebench run paper/tiny`",
        ]
    ]
    assert len({len(row) for rows in found.values() for row in rows}) == 1


def test_a_whole_run_stands_beside_the_published_figure(tmp_path) -> None:
    written(tmp_path, cells(vae10_0=90.0, vae10_1=91.0, vae2_0=120.5, vae2_1=121.5, ae2_0=9.0))
    found = lines(tmp_path)
    mean, half = interval([90.0, 91.0])
    assert found["vae(latent_dim=10)"][0][2:5] == [
        "90.1",
        f"{mean:.1f} ± {half:.1f} (2 seeds)",
        "whole",
    ]
    assert found["vae(latent_dim=2)"][0][2:4] == ["120", f"121 ± {half:.0f} (2 seeds)"]
    # The published digits are kept, the other sampler's value is another line's.
    assert found["ae"][0][2:5] == ["9.253 ± 0.100", "9.000 (1 seed)", "1 of 2 seeds"]


def test_a_run_that_departs_from_its_grid_says_how(tmp_path) -> None:
    small = ("training.epochs=5", "datasets.digits.train=100", "metrics.nll.samples=3")
    written(
        tmp_path,
        {
            **cells(*small, vae10_0=95.0, vae10_1=97.0),
            **cells(vae10_0=90.0, vae10_1=91.0),
            **cells("training.threads=2", "metrics.fid.samples=3", vae2_0=120.0, vae2_1=120.0),
        },
    )
    whole, less = lines(tmp_path)["vae(latent_dim=10)"]
    assert whole[4] == "whole"
    assert less[3].startswith("96.0 ± ")
    assert less[4] == ("nll.samples=3 (grid: 7); train=100 (grid: null); 5 of 50 epochs (10 %)")
    (line,) = lines(tmp_path)["vae(latent_dim=2)"]
    assert line[4] == "whole", "threads and another metric's samples do not matter"
    first = page(reproductions(tmp_path, {"paper/tiny": GRID}))
    assert page(reproductions(tmp_path, {"paper/tiny": GRID})) == first


def test_values_that_do_not_apply_are_not_averaged(tmp_path) -> None:
    held = cells(vae10_0=90.0, vae10_1=math.nan)
    for spec, rows in held.values():
        if spec["seed"] == 1:
            rows[0]["value"] = "n/a"
    written(tmp_path, held)
    assert lines(tmp_path)["vae(latent_dim=10)"][0][3:5] == ["90.0 (1 seed)", "1 of 2 seeds"]
    for _, rows in held.values():
        rows[0]["value"] = "n/a"
    written(tmp_path, held)
    assert lines(tmp_path)["vae(latent_dim=10)"][0][3:5] == ["n/a", "0 of 2 seeds"]


def test_rows_without_specifications_are_refused(tmp_path) -> None:
    written(tmp_path, cells(vae10_0=90.0))
    (tmp_path / "paper" / "tiny" / "specs.json").unlink()
    with pytest.raises(InputError, match=r"specs\.json cannot be read"):
        lines(tmp_path)


def test_a_figure_of_no_cell_is_refused(tmp_path) -> None:
    published = [{**FIGURE, "model": {"ae": {"latent_dim": 3}}, "metric": "sse", "value": 1}]
    with pytest.raises(InputError, match=r"paper/tiny: published: no cell .* ae\(latent_dim=3\)"):
        reproductions(tmp_path, {"paper/tiny": {**GRID, "published": published}})


def test_numbers_within_names_sort_by_size() -> None:
    assert sorted(["a10", "a9", "b1", "a"], key=natural) == ["a", "a9", "a10", "b1"]


def test_a_runs_own_tables_are_read(tmp_path) -> None:
    """From a run of a grid to the page, and what the run's rows say of samplers."""
    grid = tmp_path / "tiny.yaml"
    grid.write_text(
        yaml.safe_dump(
            {
                **GRID,
                "datasets": {"digits": {"train": 100, "val": 20, "test": 40}},
                "training": {"epochs": 1},
            }
        )
    )
    out = tmp_path / "paper" / "tiny"
    rows = run(grid, out=out, settings=["seeds=1"], workers=1, device="cpu")
    fid = rows[rows.metric == "fid[classifier]"]
    marked = {(r.model, r.sampler): r.own for r in fid.itertuples()}
    assert marked == {("vae", "prior"): True, ("vae", "gmm"): False, ("ae", "gmm"): True}
    assert not rows[rows.sampler == ""].own.any()
    with (out / "rows.csv").open(newline="") as file:
        kept = {(r["model"], r["sampler"]): r["own"] for r in csv.DictReader(file) if r["sampler"]}
    assert kept == {key: str(value) for key, value in marked.items()}
    held = json.loads((out / "specs.json").read_text())
    assert set(held) == set(rows.cell)
    assert all(spec["training"]["epochs"] == 1 for spec in held.values())
    found = reproductions(tmp_path, {"paper/tiny": grid})
    assert [r.runs[0].departures for r in found] == [("1 of 2 seeds",)] * 3
    value = fid[(fid.model == "ae")].value.item()
    assert found[0].runs[0].score.mean == value
    for path in out.glob("cells/*/metrics.json"):  # as an older store has them
        older = [
            {k: v for k, v in row.items() if k != "own"} for row in json.loads(path.read_text())
        ]
        path.write_text(json.dumps(older))
    assert Store(out).rows().own.eq(False).all()


def test_the_published_page_is_up_to_date() -> None:
    text = (ROOT / "results" / "reproductions.md").read_text(encoding="utf-8")
    assert page(reproductions(ROOT / "results")) == text, "make docs"
    for name in shipped():
        assert (f"`aebench run {name}`" in text) == bool(read_grid(name)[1]["published"])
