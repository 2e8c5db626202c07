"""From a grid to cells: what expands, what is refused, what a key depends on."""

from pathlib import Path

import pytest
from aebench.benchmark.cell import key_of
from aebench.benchmark.grid import Cell, folder_name, label, override, read_grid, shipped, specs
from aebench.benchmark.metrics import Metric
from aebench.plugins import InputError

BASE = {"datasets": ["digits"], "models": ["vae"], "seeds": 1, "metrics": ["mse"]}


def expand(**changes: object) -> list[dict]:
    return specs(read_grid({**BASE, **changes})[1], "cpu")


def test_every_combination_once() -> None:
    cells = expand(
        models={"beta_vae": {"beta": [1, 4]}, "pca": {}, "ae": {}},
        backbones={"mlp": {"hidden": [[16], [32, 16]]}, "linear": {}},
        seeds=[0, 5],
    )
    found = [(c["model"]["name"], c["model"]["hyperparameters"].get("beta")) for c in cells]
    assert found.count(("beta_vae", 1.0)) == found.count(("beta_vae", 4.0)) == 3 * 2
    assert found.count(("ae", None)) == 3 * 2
    assert found.count(("pca", None)) == 2, "a model without networks has no backbone axis"
    hidden = {tuple(c["backbone"]["parameters"].get("hidden", [])) for c in cells if c["backbone"]}
    assert hidden == {(), (16,), (32, 16)}
    assert {c["seed"] for c in cells} == {0, 5}


def test_shared_hyperparameters_go_to_the_models_that_take_them() -> None:
    cells = expand(models=["vae", "kmeans"], hyperparameters={"latent_dim": 3})
    found = {c["model"]["name"]: c["model"]["hyperparameters"] for c in cells}
    assert found["vae"]["latent_dim"] == 3
    assert "latent_dim" not in found["kmeans"]


def test_families_and_single_metrics() -> None:
    cells = expand(metrics={"reconstruction": None, "knn": None, "nll": {"samples": 7}})
    chosen = cells[0]["evaluation"]["metrics"]
    names = [metric["name"] for metric in chosen]
    family = {name for name, cls in Metric.choices().items() if cls.family == "reconstruction"}
    assert family > {"mse", "psnr", "ssim"}
    assert family | {"knn", "nll"} == set(names)
    assert names.index("mse") < names.index("nll") < names.index("knn"), "in the families' order"
    assert {"name": "nll", "parameters": {"samples": 7}} in chosen


def test_a_datasets_own_settings() -> None:
    cells = expand(
        datasets={"digits": {}, "sprites": {"size": 16, "train": 100, "val": 10, "test": 10}},
        training={"epochs": 3, "lr": 0.1},
        per_dataset={"sprites": {"training": {"epochs": 7}, "metrics": ["mig"]}},
    )
    found = {c["dataset"]["name"]: c for c in cells}
    assert found["digits"]["training"]["epochs"] == 3
    assert found["sprites"]["training"] == {
        "epochs": 7,
        "lr": 0.1,
        "batch_size": 100,
        "threads": 1,
    }
    assert [m["name"] for m in found["sprites"]["evaluation"]["metrics"]] == ["mig"]
    assert [m["name"] for m in found["digits"]["evaluation"]["metrics"]] == ["mse"]


def test_set_changes_the_grid_and_a_datasets_own_settings() -> None:
    settings = read_grid(
        {**BASE, "per_dataset": {"digits": {"training": {"epochs": 7}}}, "training": {"lr": 1}}
    )[1]
    override(settings, "training.epochs=2")
    override(settings, "training.lr=1e-2")
    override(settings, "models.vae.latent_dim=5")
    override(settings, "backbones=[linear]")
    (cell,) = specs(settings, "cpu")
    assert cell["training"]["epochs"] == 2
    assert cell["training"]["lr"] == 0.01
    assert cell["model"]["hyperparameters"]["latent_dim"] == 5
    assert cell["backbone"]["name"] == "linear"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dataset": ["digits"]}, "unknown setting 'dataset' .*did you mean 'datasets'"),
        ({"datasets": []}, "datasets are missing"),
        ({"datasets": 3}, "datasets must be a list of names, not 3"),
        ({"datasets": ["digitz"]}, "unknown dataset 'digitz'.*digits"),
        ({"datasets": [{"digits": {}, "mnist": {}}]}, "neither a name nor"),
        ({"datasets": {"digits": {"train": "many"}}}, "train: 'many' is not of type"),
        ({"models": ["vea"]}, "unknown model 'vea'.*vae"),
        ({"models": {"vae": {"beta": 2}}}, "model 'vae' has no parameter 'beta'"),
        ({"models": {"vae": [1]}}, "models: vae must be a mapping"),
        ({"models": {"vae": {"latent_dim": "x"}}}, "latent_dim: 'x' is not of type int"),
        ({"hyperparameters": {"gamma": 1}}, "no model of the grid takes 'gamma'"),
        ({"training": {"epoch": 1}}, "unknown training setting 'epoch'.*epochs"),
        ({"training": {"epochs": 0}}, "epochs must be positive, not 0"),
        ({"training": {"epochs": 1.5}}, "epochs: 1.5 is not of type int"),
        ({"training": {"lr": float("inf")}}, "lr must be positive, not inf"),
        ({"training": [1]}, "training must be a mapping"),
        ({"seeds": -1}, "seeds must be .* not -1"),
        ({"seeds": [0, -2]}, "seeds must be"),
        ({"seeds": True}, "seeds must be"),
        ({"metrics": ["msee"]}, "unknown metric or family 'msee'"),
        ({"metrics": {"reconstruction": {"n": 1}}}, "is a family"),
        ({"metrics": {"nll": {"sample": 1}}}, "metric 'nll' has no parameter 'sample'"),
        ({"metrics": {"nll": {"samples": 0}}}, "samples must be 1 or more, not 0"),
        ({"samplers": {"gmm": {"components": 0}}}, "components must be 1 or more, not 0"),
        ({"backbones": {"mlp": {"hidden": [8, 0]}}}, r"widths must be 1 or more, not \[8, 0\]"),
        ({"datasets": {"digits": {"train": 0}}}, "train must be 1 or more, not 0"),
        ({"samplers": ["flow"]}, "unknown sampler 'flow'; valid: gmm, prior"),
        ({"backbones": ["resnet"]}, "unknown backbone 'resnet'"),
        ({"extractor": "vgg"}, "unknown extractor 'vgg'"),
        ({"per_dataset": {"mnist": {}}}, "the grid has no dataset 'mnist'"),
        ({"per_dataset": {"digits": {"seeds": 2}}}, "unknown setting 'seeds'"),
    ],
)
def test_bad_grids_get_one_clear_line(changes: dict, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        expand(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "assignment", ["training.epochs", "=3", "trainng.epochs=3", "models.vea.beta=1", "seeds.a=1"]
)
def test_bad_assignments(assignment: str) -> None:
    with pytest.raises(InputError):
        override(read_grid(BASE)[1], assignment)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "3", ""])
def test_files_that_are_no_grid(tmp_path: Path, text: str) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        read_grid(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_grids_expand(name: str) -> None:
    cells = specs(read_grid(name)[1], "cpu")
    settings = read_grid(name)[1]
    assert settings["description"]
    assert len({c["model"]["name"] for c in cells}) == len(settings["models"])


def test_a_key_depends_on_everything_that_changes_numbers(tmp_path: Path) -> None:
    (base,) = expand()
    keys = {key_of(base)}
    changes: list[dict] = [
        {"seeds": [1]},
        {"training": {"epochs": 7}},
        {"training": {"threads": 2}},
        {"hyperparameters": {"latent_dim": 3}},
        {"backbones": ["linear"]},
        {"datasets": {"digits": {"train": 100}}},
        {"samplers": ["prior"]},
        {"metrics": ["psnr"]},
        {"models": ["ae"]},
    ]
    for change in changes:
        (cell,) = expand(**change)
        keys.add(key_of(cell))
    assert len(keys) == len(changes) + 1
    assert key_of(expand()[0]) == key_of(base)
    assert key_of({**base, "device": "cuda"}) not in keys


def test_folder_names_are_safe_whatever_a_model_is_called() -> None:
    (spec,) = expand()
    for hostile in ("a/../../b", "<script>", "n\nl", "x" * 300, "emoji 🙂", "..", ""):
        spec["model"]["name"] = hostile
        name = folder_name(spec, "0123456789abcdef")
        assert "/" not in name
        assert len(name) < 150
        assert name.isascii()
        assert name.startswith("digits-")
        assert name.endswith("seed0-0123456789ab")
        assert Cell(spec, "0").model == hostile


def test_one_sampler_with_two_settings_is_two_samplers() -> None:
    (cell,) = expand(samplers={"gmm": {"components": [2, 5]}})
    found = [label(choice) for choice in cell["evaluation"]["samplers"]]
    assert found == ["gmm(components=2)", "gmm(components=5)"]
