"""Weights & Biases by its real client: offline, against a stand-in for its server, and without."""

import gzip
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aebench.benchmark.grid import Cell
from aebench.benchmark.leaderboard import leaderboard
from aebench.benchmark.report import tracking
from aebench.benchmark.report.tracking import Logged, WandbLog, log_results
from aebench.benchmark.results import Results, read
from aebench.benchmark.rows import Row
from aebench.benchmark.runner import write_tables
from aebench.benchmark.store import Store, hyperparameters, read_json
from aebench.benchmark.train import Trained
from aebench.plugins import InputError
from aebench.seeds import digest
from scipy.stats import t

wandb = pytest.importorskip("wandb")
wr = pytest.importorskip("wandb_workspaces.reports.v2")

SPRITES = {"name": "sprites", "parameters": {"size": 32, "train": 6000}}
DIGITS = {"name": "digits", "parameters": {}}
MODELS = (
    ("vae", {"beta": 1}, {"name": "mlp", "parameters": {}}),
    ("vae", {"beta": 4}, {"name": "mlp", "parameters": {}}),
    ("vae", {"beta": 4}, {"name": "conv", "parameters": {}}),
    ("pca", {}, None),
)


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A client that knows no account and leaves nothing behind."""
    folder = tmp_path_factory.mktemp("client")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("NETRC", str(folder / "netrc"))
        for name in ("CACHE", "DATA", "CONFIG"):
            patch.setenv(f"WANDB_{name}_DIR", str(folder / name))
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        yield
        wandb.teardown()


@pytest.fixture(autouse=True)
def none_but_ours(alone: None) -> None:
    """Every test runs with that client."""


@pytest.fixture
def client() -> Iterator[None]:
    """A client that reads its environment anew, for this test."""
    wandb.teardown()
    yield
    wandb.teardown()


def write_cell(store: Store, dataset: dict, model: tuple, seed: int, value: float) -> Cell:
    """A finished cell, with values that follow from ``value``."""
    name, given, backbone = model
    spec = {
        "dataset": dataset,
        "model": {"name": name, "hyperparameters": given},
        "backbone": backbone,
        "training": {"epochs": 2},
        "evaluation": {},
        "seed": seed,
        "device": "cpu",
    }
    cell = Cell(spec, digest(spec))
    about = {"family": "reconstruction", "better": "lower", "ranked": True}
    rows = [
        Row("mse", value, **about),
        Row("fid[classifier]", 10 * value, family="generation", better="lower", ranked=True,
            sampler="prior", own=True),
        Row("mig", math.nan, family="disentanglement", better="higher", note="no factors"),
        Row("train_seconds", 1.0, "s", family="cost"),
    ]  # fmt: skip
    losses = [
        {"epoch": epoch, "train/loss": 2 * value / epoch, "val/loss": value / epoch}
        for epoch in (1, 2)
    ]
    trained = Trained([] if backbone is None else losses, 2, 20, 1.0, 100.0)
    rng = np.random.default_rng(int(cell.key[:8], 16))
    pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    pictures = {"reconstructions": pixels, "samples-prior": pixels[::-1]}
    store.write(cell, rows, {}, trained, {}, pictures, {"training_key": cell.key})
    return cell


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of four models on two datasets; one seed is missing."""
    store = Store(tmp_path_factory.mktemp("stores") / "tiny", create=True)
    rng = np.random.default_rng(0)
    for dataset in (DIGITS, SPRITES):
        for n, model in enumerate(MODELS):
            for seed in (0, 1):
                if (dataset, n, seed) != (DIGITS, 3, 1):
                    write_cell(store, dataset, model, seed, n + 1 + rng.uniform())
    return store.path


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Results:
    return few(read(shutil.copytree(made, tmp_path / "tiny")))


def few(results: Results) -> Results:
    """The results of two cells."""
    names = list(results.cells)[:2]
    rows = results.rows[results.rows["cell"].isin(names)]
    cells = {name: results.cells[name] for name in names}
    return Results(results.path, rows, results.specs, cells, results.store)


@dataclass(frozen=True)
class Case:
    """The whole store, logged offline."""

    results: Results
    logged: Logged
    told: list[tuple[int, int]]

    @cached_property
    def runs(self) -> dict[str, "Run"]:
        return offline_runs(self.results.path)

    @property
    def folder(self) -> Path:
        return self.results.path / "wandb"


@pytest.fixture(scope="session")
def case(made: Path, alone: None, tmp_path_factory: pytest.TempPathFactory) -> Case:
    results = read(shutil.copytree(made, tmp_path_factory.mktemp("logged") / "tiny"))
    told: list[tuple[int, int]] = []
    logged = log_results(results, "ours/aebench", lambda *progress: told.append(progress))
    return Case(results, logged, told)


# What an offline run is read back from: records of Protocol Buffers in the format of LevelDB's log.


def records(folder: Path) -> list[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("*.wandb")
    for _ in range(200):  # the client's process writes the last of them after it said so
        found = [Record.FromString(part) for part in parts(file.read_bytes())]
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        time.sleep(0.05)
    raise AssertionError(f"{file} has no end")


def parts(data: bytes) -> Iterator[bytes]:
    at, held = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # what is left of a block has no room for a header
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        if at + 7 + size > len(data):  # it is being written
            return
        held += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield held
            held = b""


class Run:
    """What a server would know of an offline run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        for record in records(folder):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self.config = self.items(record.run.config.update)
            elif kind == "summary":
                self.summary |= self.items(record.summary.update)
            elif kind == "history":
                self.history.append(self.items(record.history.item))

    @staticmethod
    def items(updates: Any) -> dict[str, Any]:
        return {
            "|".join(u.nested_key) if u.nested_key else u.key: json.loads(u.value_json)
            for u in updates
        }

    def table(self, name: str) -> list[dict[str, Any]]:
        file = self.folder / "files" / self.summary[f"{name}|path"]
        held = json.loads(file.read_text())
        return [dict(zip(held["columns"], row)) for row in held["data"]]


def offline_runs(folder: Path) -> dict[str, Run]:
    found = [Run(path) for path in sorted(folder.glob("wandb/offline-run-*"))]
    by_id = {run.run.run_id: run for run in found}
    assert len(by_id) == len(found)
    return by_id


def the_leaderboard(runs: dict[str, Run]) -> Run:
    (run,) = [run for run_id, run in runs.items() if run_id.startswith("leaderboard")]
    return run


def spec_of(folder: Path) -> dict[str, Any]:
    return read_json(folder / "wandb" / "report.json")["spec"]


def grids(spec: dict[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Every grid of panels of a Report: its only run set, and the panels."""
    found = []
    for block in spec["blocks"]:
        if block["type"] == "panel-grid":
            (runs,) = block["metadata"]["runSets"]
            found.append((runs, block["metadata"]["panelBankSectionConfig"]["panels"]))
    return found


def picked(runset: dict[str, Any], runs: dict[str, Run]) -> list[Run]:
    """The runs that a run set's filters let through."""
    rules = runset["filters"]["filters"]
    assert rules
    assert all((rule["key"]["section"], rule["op"]) == ("config", "=") for rule in rules)
    return [
        run
        for run in runs.values()
        if all(run.config.get(rule["key"]["name"]) == rule["value"] for rule in rules)
    ]


# Offline.


def test_progress_and_what_was_logged(case: Case) -> None:
    assert case.told == [(n, 17) for n in range(18)]
    assert (case.logged.project, case.logged.mode) == ("ours/aebench", "offline")
    assert case.logged.cells == len(case.results.cells) == 15
    assert case.logged.report == str(case.folder / "report.json")


def test_a_cell_is_a_run(case: Case) -> None:
    results, runs = case.results, case.runs
    assert len(runs) == 16
    for name, folder in results.cells.items():
        about = results.about(name)
        run, cell = runs[about["key"]], Cell(about["spec"], about["key"])
        assert (run.run.entity, run.run.project, run.run.run_group) == ("ours", "aebench", "tiny")
        assert (run.run.job_type, run.run.display_name) == (cell.dataset, name)
        assert set(run.run.tags) == {cell.spec["dataset"]["name"], cell.model}
        for key in ("dataset", "model", "backbone", "seed"):
            assert run.config[key] == getattr(cell, key)
        assert (run.config["grid"], run.config["spec"]) == ("tiny", cell.spec)
        rows = {row["metric"]: row["value"] for row in read_json(folder / "metrics.json")}
        assert run.summary["mse"] == rows["mse"]
        assert run.summary["fid[classifier]/prior"] == rows["fid[classifier]"]
        assert "mig" not in run.summary
        history = results.history(name)
        for held, kept in zip(run.history, history, strict=bool(history)):
            assert held["_step"] == kept["epoch"]
            assert kept.items() <= held.items()
        for title, path in results.pictures(name).items():
            image = run.folder / "files" / run.summary[f"pictures/{title}|path"]
            assert image.read_bytes() == path.read_bytes()


def test_curves_are_told_apart_by_what_varies(case: Case) -> None:
    found = {
        (run.config["label"], run.config["line"])
        for run in case.runs.values()
        if "label" in run.config
    }
    assert found == {
        ("vae(beta=1)", "vae(beta=1)"),
        ("vae(beta=4)", "vae(beta=4) · mlp"),
        ("vae(beta=4)", "vae(beta=4) · conv"),
        ("pca", "pca"),
    }


def test_tables_have_our_intervals(case: Case) -> None:
    run, whole = the_leaderboard(case.runs), leaderboard(case.results.rows)
    for board in whole.boards:
        slug = board.dataset.replace("(", "-").replace("=", "-").replace(",", "-").strip(")")
        wide, long = run.table(f"leaderboard/{slug}"), run.table(f"scores/{slug}")
        assert [row["label"] for row in wide] == [line.label for line in board.lines]
        for line, row in zip(board.lines, wide):
            score = line.scores["mse"]
            values = list(score.values.values())
            several = len(values) == 2
            half = t.ppf(0.975, 1) * np.std(values, ddof=1) / 2**0.5 if several else None
            assert row["rank"] == line.rank
            assert (row["mse"], row["mse_n"], row["mse_na"]) == (score.mean, len(values), 0)
            assert row["mse_ci95"] == (pytest.approx(half, rel=1e-9) if several else None)
            for metric, held in line.scores.items():
                (entry,) = [
                    e
                    for e in long
                    if (e["label"], e["backbone"], e["sampler"], e["metric"])
                    == (line.label, line.backbone, line.sampler or "none", metric)
                ]
                assert (entry["n"], entry["na"]) == (held.n, held.missing)
                for key, value in (("mean", held.mean), ("ci95", held.half)):
                    assert entry[key] == (None if math.isnan(value) else value)
    ranking = whole.ranking
    assert [row["mean_rank"] for row in run.table("ranking")] == [p.mean for p in ranking.places]
    assert len(run.table("pairs")) == math.comb(len(ranking.places), 2)


def test_large_tables_are_cut(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client drops the rows after the ten-thousandth."""
    assert tracking.MOST_ROWS == wandb.Table.MAX_ROWS
    whole = tracking.tables_of(leaderboard(case.results.rows))
    monkeypatch.setattr(tracking, "MOST_ROWS", 9)
    parts = tracking.tables_of(leaderboard(case.results.rows))
    cut = [name for name in parts if name.startswith("scores/digits")]
    assert cut == ["scores/digits", "scores/digits/2"]
    assert sum(len(parts[name]) for name in cut) == len(whole["scores/digits"]) == 16
    assert max(len(parts[name]) for name in cut) == 9


def test_logging_again_replaces(results: Results) -> None:
    first = log_results(results, "aebench")
    before = offline_runs(results.path)
    report = (results.path / "wandb" / "report.json").read_bytes()
    assert log_results(results, "aebench") == first
    assert offline_runs(results.path).keys() == before.keys()  # each of them once
    assert (results.path / "wandb" / "report.json").read_bytes() == report


def test_offline_nothing_is_asked_of_a_server(
    results: Results, server: "Server", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even telemetry, which the client sends when its process ends."""
    monkeypatch.delenv("WANDB_ERROR_REPORTING")
    script = f"""
from aebench.benchmark.report.tracking import WandbLog
from aebench.benchmark.store import Store
store = Store({str(results.path)!r})
cell, folder = next(store.finished())
log = WandbLog("tiny", store.path)
log.cell(folder, cell)
assert log.mode == "offline"
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert len(offline_runs(results.path)) == 1
    assert server.asked == []


def test_offline_a_person_is_told_how_to_send_it(results: Results) -> None:
    logged = log_results(results, "aebench")
    assert logged.sync_command == f"wandb sync {results.path}/wandb/offline-run-*"
    assert any(f"wandb login && {logged.sync_command}" in note for note in logged.notes)
    again = f"wandb login && aebench report {results.path} --wandb aebench"
    assert any("only a server" in note and note.endswith(again) for note in logged.notes)


def test_disabled(results: Results, client: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logged = log_results(results, "aebench")
    assert (logged.mode, logged.sync_command) == ("disabled", "")
    assert any("nothing was logged" in note for note in logged.notes)
    assert {path.name for path in (results.path / "wandb").iterdir()} == {
        "report.json",
        "report.md",
    }


def test_a_published_folder_has_no_cells(made: Path, tmp_path: Path) -> None:
    store = Store(shutil.copytree(made, tmp_path / "store"))
    write_tables(store)
    folder = tmp_path / "published"
    folder.mkdir()
    for name in ("rows.csv", "specs.json", "details.json"):
        shutil.copy(store.path / name, folder / name)
    logged = log_results(read(folder), "aebench")
    assert logged.cells == 0
    assert any("no learning curves, no pictures" in note for note in logged.notes)
    runs = offline_runs(folder)
    assert len(runs) == 1
    assert len(the_leaderboard(runs).table("leaderboard/digits")) == 4
    panels = [panel["viewType"] for _, held in grids(spec_of(folder)) for panel in held]
    assert set(panels) == {"Weave"}
    assert "numbers alone" in (folder / "wandb" / "report.md").read_text()


# The Report.


def test_every_panel_shows_what_was_logged(case: Case) -> None:
    runs = case.runs
    seen = {"Weave": 0, "Run History Line Plot": 0, "Media Browser": 0}
    for runset, panels in grids(spec_of(case.results.path)):
        chosen = picked(runset, runs)
        for panel in panels:
            kind, config = panel["viewType"], panel["config"]
            seen[kind] += 1
            if kind == "Weave":
                (run,) = chosen
                name = config["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"]
                assert run.table(name)
            elif kind == "Run History Line Plot":
                assert len(chosen) == (7 if chosen[0].config["dataset"] == "digits" else 8)
                assert runset["grouping"] == [{"section": "config", "name": "line.value"}]
                assert (config["groupBy"], config["groupAgg"]) == ("line.value", "mean")
                assert (config["groupArea"], config["xAxis"]) == ("stddev", "epoch")
                (term,) = config["metrics"]
                with_history = [run for run in chosen if run.config["model"] == "vae"]
                assert all(term in h and "epoch" in h for r in with_history for h in r.history)
            else:
                assert {run.config["seed"] for run in chosen} == {0}
                assert len(chosen) == len({run.config["line"] for run in chosen}) == 4
                (key,) = config["mediaKeys"]
                assert all(f"{key}|path" in run.summary for run in chosen)
    assert seen == {"Weave": 6, "Run History Line Plot": 4, "Media Browser": 4}


def test_the_report_is_one_of_wandb_workspaces(case: Case) -> None:
    kept = read_json(case.folder / "report.json")
    model = wr.interface.internal.ReportViewspec.model_validate(
        {
            "displayName": kept["displayName"],
            "description": kept["description"],
            "project": {"name": kept["projectName"], "entityName": kept["entityName"]},
            "spec": kept["spec"],
        }
    )
    report = wr.Report._from_model(model)
    assert (report.entity, report.project) == ("ours", "aebench")
    headings = [block.text for block in report.blocks if isinstance(block, wr.H1)]
    assert headings == [
        "How to read the numbers",
        "Over datasets",
        "digits",
        "sprites(size=32,train=6000)",
    ]
    plots = [
        panel
        for block in report.blocks
        if isinstance(block, wr.PanelGrid)
        for panel in block.panels
        if isinstance(panel, wr.LinePlot)
    ]
    assert {tuple(metric.name for metric in plot.y) for plot in plots} == {
        ("train/loss",),
        ("val/loss",),
    }
    assert all(plot.groupby == wr.Config("line") for plot in plots)


def test_a_report_can_be_read_without_a_server(case: Case) -> None:
    text = (case.folder / "report.md").read_text()
    for board in leaderboard(case.results.rows).boards:
        for line in board.lines:
            assert f"| {line.label} | {line.backbone} |" in text
    assert "Student" in text or "t(n − 1, 0.975)" in text
    assert "*On Weights & Biases: curves of train/loss; curves of val/loss.*" in text


HOSTILE = "<script>alert(1)</script>'\"\\ a/../../b = 1 > 0\n" + 300 * "x"


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    store = Store(tmp_path / "a = 'b' & \"c\"", create=True)
    dataset = {"name": HOSTILE, "parameters": {}}
    model = (HOSTILE, {"beta": HOSTILE}, {"name": "mlp", "parameters": {}})
    cell = write_cell(store, dataset, model, 0, 1.0)
    write_cell(store, {"name": f"{HOSTILE}y", "parameters": {}}, model, 0, 1.0)
    before = {path for path in tmp_path.rglob("*") if store.path not in path.parents}
    log_results(read(store.path), "aebench")
    runs = offline_runs(store.path)
    assert runs[cell.key].config["dataset"] == runs[cell.key].config["model"] == HOSTILE
    assert max(len(tag) for run in runs.values() for tag in run.run.tags) <= 64
    assert max(len(run.run.job_type) for run in runs.values()) <= 64
    for runset, panels in grids(spec_of(store.path)):
        assert len(picked(runset, runs)) == 1
        for panel in panels:
            if panel["viewType"] == "Weave":
                name = panel["config"]["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"]
                assert the_leaderboard(runs).table(name)
    assert "<script>" not in (store.path / "wandb" / "report.md").read_text()
    after = {path for path in tmp_path.rglob("*") if store.path not in path.parents}
    assert {p for p in after - before if tmp_path / "wandb" not in (p, *p.parents)} == set()


# A server.


class Server(ThreadingHTTPServer):
    """A stand-in for the server: it answers what the client asks for, and remembers what that was.

    It shows what is sent; what the real one makes of it, it cannot show.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.reports = True

    def of(self, name: str) -> list[dict[str, Any]]:
        return [variables for query, variables in self.asked if f"{name}(" in query]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none."""

    def reply(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": given.get("project"), "entity": {"id": "e", "name": "ours"}}
        if "upsertBucket(" in query:
            bucket = {"id": "b", "name": given["name"], "displayName": "", "project": project}
            return {"upsertBucket": {"bucket": bucket | {"config": "{}"}, "inserted": True}}
        if "createRunFiles(" in query:
            files = [{"name": f, "uploadUrl": f"{self.url}/{f}"} for f in given["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if "createArtifact(" in query:
            sequence = {"id": "s", "latestArtifact": None}
            artifact = {"id": "QQ==", "state": "COMMITTED", "artifactSequence": sequence}
            return {"createArtifact": {"artifact": artifact}}
        if "upsertView(" in query:
            view = {key: given[key] for key in ("name", "displayName", "description", "spec")}
            owner = {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}
            return {"upsertView": {"view": view | {"id": "Vg==", "project": owner}}}
        pages = {"endCursor": None, "hasNextPage": False}
        return {
            "viewer": {"id": "u", "entity": "ours", "username": "ours", "flags": "{}"},
            "serverInfo": {"cliVersionInfo": {}, "features": []},
            "model": {"bucket": None},
            "models": {"edges": [], "pageInfo": pages},
            "project": None,
        }


class Answer(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def answer(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        status, body = 200, {}
        if self.path == "/graphql":
            held = json.loads(data)
            given = held.get("variables") or {}
            self.server.asked.append((held["query"], given))
            body = {"data": self.server.reply(held["query"], given)}
            if "upsertView(" in held["query"] and not self.server.reports:
                status, body = 400, {"errors": [{"message": "no reports here"}]}
        else:
            self.server.asked.append((self.path, {}))
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST = answer


@pytest.fixture
def server(client: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server()
    threading.Thread(target=found.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", found.url)
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")


def test_online_the_server_gets_runs_and_the_report(
    results: Results,
    server: Server,
    logged_in: None,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged = log_results(results, "aebench")
    assert capfd.readouterr() == ("", "")
    assert (logged.project, logged.mode, logged.sync_command) == ("ours/aebench", "online", "")
    keys = {results.about(name)["key"] for name in results.cells}
    sent = {given["name"] for given in server.of("upsertBucket")}
    assert keys < sent
    continued = [given["name"] for query, given in server.asked if "RunResumeStatus" in query]
    assert set(continued) == sent
    assert len(sent) == 3
    files = {file for given in server.of("createRunFiles") for file in given["files"]}
    assert any("reconstructions" in file for file in files)
    (report,) = server.of("upsertView")
    kept = read_json(results.path / "wandb" / "report.json")
    assert json.loads(report["spec"]) == kept["spec"]
    assert (report["entityName"], report["projectName"]) == ("ours", "aebench")
    assert kept["id"] == "Vg=="
    assert logged.report.endswith("/ours/aebench/reports/aebench:-tiny--Vg==")
    assert any(logged.report in note for note in logged.notes)
    assert report["id"] is None
    log_results(results, "aebench")
    assert server.of("upsertView")[1]["id"] == "Vg=="  # the same Report, brought up to date
    monkeypatch.setenv("WANDB_MODE", "offline")
    log_results(results, "aebench")
    kept = read_json(results.path / "wandb" / "report.json")
    assert (kept["id"], kept["entityName"]) == ("Vg==", "ours")  # known when it is online again


def test_a_report_that_a_server_refuses_is_kept(
    results: Results, server: Server, logged_in: None
) -> None:
    server.reports = False
    logged = log_results(results, "aebench")
    assert logged.mode == "online"
    assert logged.report == str(results.path / "wandb" / "report.json")
    assert Path(logged.report).is_file()
    assert all("\n" not in note for note in logged.notes)
    assert any("made no Report" in note for note in logged.notes)


def test_a_server_that_is_gone_costs_one_line(
    results: Results, server: Server, logged_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.shutdown()
    server.server_close()
    monkeypatch.setattr(tracking, "PATIENCE", 1)
    logged = log_results(results, "aebench")
    assert logged.mode == "offline"
    assert len(offline_runs(results.path)) == 3
    assert [note for note in logged.notes if "server could not be used" in note]
    assert all("\n" not in note for note in logged.notes)


def test_what_a_server_does_not_take_is_logged_offline(
    results: Results, server: Server, logged_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's process dies of an answer that it does not expect."""
    reply = server.reply

    def strange(query: str, given: dict[str, Any]) -> dict[str, Any]:
        return {} if "createRunFiles(" in query else reply(query, given)

    monkeypatch.setattr(server, "reply", strange)
    monkeypatch.setattr(tracking, "PATIENCE", 5)
    logged = log_results(results, "aebench")
    assert logged.mode == "offline"
    assert len(offline_runs(results.path)) == 3


# Names and settings.


@pytest.mark.parametrize(
    "name",
    ["", "/", "a/", "/a", "a/b/c", "a#b", "a?", "50%", "a:b", "a\\b", "a\nb", 129 * "a", "a:b/c"],
)
def test_refused_projects(name: str, results: Results) -> None:
    with pytest.raises(InputError) as error:
        log_results(results, name)
    assert "\n" not in str(error.value)
    assert not (results.path / "wandb").exists()


@pytest.mark.parametrize(
    ("name", "parts"), [("a b", ("", "a b")), ("team/a-b_c.1", ("team", "a-b_c.1"))]
)
def test_projects(name: str, parts: tuple[str, str], tmp_path: Path) -> None:
    log = WandbLog("grid", tmp_path, project=name)
    assert (log.entity, log.project) == parts
    assert log.path == name


@pytest.mark.parametrize(
    ("name", "why"),
    [("WANDB_MODE", "WANDB_MODE is 'sometimes'; valid: online"), ("WANDB_SILENT", "sometimes")],
)
def test_a_setting_that_is_refused(
    name: str, why: str, tmp_path: Path, client: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "sometimes")
    with pytest.raises(InputError, match=why) as error:
        WandbLog("grid", tmp_path)
    assert "\n" not in str(error.value)


def test_without_a_login_the_mode_is_offline(
    tmp_path: Path, client: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert WandbLog("grid", tmp_path).mode == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password none\n")
    log = WandbLog("grid", tmp_path)
    assert (log.mode, log.sync_command) == ("online", "")
    for name, mode in (("dryrun", "offline"), ("disabled", "disabled")):
        monkeypatch.setenv("WANDB_MODE", name)
        assert WandbLog("grid", tmp_path).mode == mode


def test_without_wandb_the_error_says_what_to_install(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wandb_workspaces.reports.v2", "wandb"):
        with monkeypatch.context() as missing:
            missing.setitem(sys.modules, name, None)
            with pytest.raises(InputError, match=r"pip install 'aebench\[wandb\]'"):
                log_results(results, "aebench")


def test_a_folder_that_cannot_be_written(results: Results) -> None:
    (results.path / "wandb").write_text("a file")
    with pytest.raises(InputError, match="wandb cannot be written"):
        log_results(results, "aebench")


# While a run goes on.


def test_a_run_logs_its_cells_and_the_leaderboard(made: Path, tmp_path: Path) -> None:
    store = Store(shutil.copytree(made, tmp_path / "store"))
    finished = list(store.finished())
    log = WandbLog("small", store.path, [cell for cell, _ in finished])
    for cell, folder in finished[:2]:
        log.cell(folder, cell)
    log.leaderboard(leaderboard(store.rows()))
    assert log.sync_command == f"wandb sync {store.path}/wandb/offline-run-*"
    runs = offline_runs(store.path)
    assert len(runs) == 3
    for cell, folder in finished[:2]:
        run = runs[cell.key]
        assert (run.run.project, run.run.run_group) == ("aebench", "small")
        rows = {row["metric"]: row["value"] for row in read_json(folder / "metrics.json")}
        assert run.summary["mse"] == rows["mse"]
        label = json.loads(hyperparameters(cell.spec)).get("beta")
        assert run.config["label"] == (f"vae(beta={label})" if label else "pca")
    assert the_leaderboard(runs).table("leaderboard/digits")
