"""From a grid to cells: what expands, what is refused, what a key depends on."""

import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from aebench.benchmark.cell import key_of
from aebench.benchmark.grid import (
    Cell,
    figures,
    folder_name,
    label,
    narrow,
    override,
    read_grid,
    shipped,
    specs,
)
from aebench.benchmark.metrics import Metric
from aebench.models import Autoencoder, Backbone, DataSpec, model_from
from aebench.plugins import InputError

BASE = {"datasets": ["digits"], "models": ["vae"], "seeds": 1, "metrics": ["mse"]}


def expand(**changes: object) -> list[dict]:
    return specs(read_grid({**BASE, **changes})[1], "cpu")


def published(**changes: object) -> dict:
    """A grid's setting with one published figure."""
    held = {"model": "vae", "dataset": "digits", "metric": "nll[bernoulli]", "value": 90.1}
    return {"published": [{**held, "source": "somebody", **changes}]}


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


def test_all_is_every_model_with_the_parameters_of_those_also_named() -> None:
    settings = {"datasets": "digits", "models": ["all", {"kmeans": {"clusters": [3, 4]}}]}
    _, held = read_grid(settings)
    assert list(held["models"]) == list(Autoencoder.choices())
    assert held["models"].pop("kmeans") == {"clusters": [3, 4]}
    assert not any(held["models"].values())
    for models, says in (
        (["all", "kmean"], "unknown model 'kmean' (did you mean 'kmeans'?)"),
        ({"all": {"latent_dim": 3}}, "'all' takes no parameters"),
    ):
        with pytest.raises(InputError) as error:
            read_grid({"datasets": "digits", "models": models})
        assert says in str(error.value)
    block = {"models": {"all": {}, "pca": {"latent_dim": 2}}}
    _, held = read_grid({"datasets": "digits", "models": "ae", "per_dataset": {"digits": block}})
    assert held["per_dataset"]["digits"]["models"]["pca"] == {"latent_dim": 2}


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
        ({"samplers": ["flow"]}, "unknown sampler 'flow'.*gmm, .*own, .*prior"),
        ({"samplers": {"own": {"components": 5}}}, "'own' takes no parameters"),
        ({"backbones": ["resnet"]}, "unknown backbone 'resnet'"),
        ({"extractor": "vgg"}, "unknown extractor 'vgg'"),
        ({"per_dataset": {"mnist": {}}}, "the grid has no dataset 'mnist'"),
        ({"per_dataset": {"digits": {"seeds": 2}}}, "unknown setting 'seeds'"),
        ({"per_dataset": {"digits": {"per_model": {}}}}, "unknown setting 'per_model'"),
        ({"per_model": {"ae": {}}}, "per_model: the grid has no model 'ae'"),
        (
            {"per_model": {"vae": {"extractor": "inception"}}},
            "per_model: vae: unknown .*'extractor'",
        ),
        ({"per_model": {"vae": 3}}, "per_model: vae must be a mapping, not 3"),
        ({"per_model": {"vae": {"training": {"lr": 0}}}}, "lr must be positive, not 0"),
        ({"per_model": {"vae": {"samplers": 3}}}, "per_model: vae: samplers must be a list"),
        ({"published": {"model": "vae"}}, "published must be a list"),
        ({"published": ["vae"]}, "published must be a mapping, not 'vae'"),
        (published(modell="vae"), "published: unknown key 'modell'.*did you mean 'model'"),
        (published(source=None), "published: source: None is not of type str"),
        (published(value="low"), "published: value: 'low' is not of type float"),
        (published(value=float("nan")), "published: value must be a finite number"),
        (published(spread="x"), "published: spread: 'x' is not of type"),
        (published(model="ae"), "published: the grid has no model 'ae'.*valid: vae"),
        (published(model=["vae", "ae"]), "published: model must be one, not vae, ae"),
        (published(model={"vae": {"beta": 2}}), "published: model 'vae' has no parameter 'beta'"),
        (published(dataset="mnist"), "published: the grid has no dataset 'mnist'; valid: digits"),
        (published(dataset={"digits": {"siz": 2}}), "published: dataset 'digits' has no .*'siz'"),
        (published(metric="nl"), "published: unknown metric 'nl'.*did you mean 'nll'"),
        (published(sampler="gm"), "published: unknown sampler 'gm'.*did you mean 'gmm'"),
        ({"published": [{"model": "vae", "dataset": "digits"}]}, "an entry lacks its metric"),
    ],
)
def test_bad_grids_get_one_clear_line(changes: dict, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        expand(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "assignment",
    [
        "training.epochs",
        "=3",
        "trainng.epochs=3",
        "models.vea.beta=1",
        "seeds.a=1",
        "published.vae.value=3",
        "per_model.vae.seeds=3",
    ],
)
def test_bad_assignments(assignment: str) -> None:
    with pytest.raises(InputError):
        override(read_grid({**BASE, **published()})[1], assignment)


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


def samplers(cells: list[dict]) -> dict[str, list[str]]:
    """The labels of every model's samplers, in their order."""
    return {
        c["model"]["name"]: [label(choice) for choice in c["evaluation"]["samplers"]] for c in cells
    }


def test_own_is_the_sampler_of_each_models_paper_and_comes_once() -> None:
    class Mixed(Autoencoder.choose("vae")):  # type: ignore[misc]
        name = "mixed"
        sampler = "mixture"

    try:
        Mixed.sampler = "gmm"
        models = ["vae", "ae", "mixed"]
        assert samplers(expand(models=models)) == {
            "vae": ["prior", "gmm"],
            "ae": ["gmm"],
            "mixed": ["gmm"],
        }
        assert samplers(expand(models=models, samplers=["own"]))["vae"] == ["prior"]
        found = samplers(expand(models=models, samplers={"gmm": {"components": 3}, "own": {}}))
        assert found["ae"] == ["gmm(components=3)", "gmm"], "a paper's has its own settings"
        assert found["vae"] == ["gmm(components=3)", "prior"]
        Mixed.sampler = "flow"
        with pytest.raises(
            InputError, match=r"model 'mixed': unknown sampler 'flow'; valid: .*gmm"
        ):
            expand(models=models)
    finally:
        Autoencoder._choices.pop("mixed", None)


def test_a_models_own_settings_come_before_a_datasets() -> None:
    cells = expand(
        datasets={"digits": {}, "sprites": {"size": 16, "train": 100, "val": 10, "test": 10}},
        models=["vae", "ae", "pca"],
        training={"epochs": 3, "lr": 0.1, "milestones": [1]},
        per_dataset={
            "sprites": {"training": {"epochs": 7, "batch_size": 5}, "samplers": ["prior"]}
        },
        per_model={
            "ae": {
                "training": {"epochs": 9, "milestones": []},
                "samplers": ["own"],
                "backbones": {"mlp": {"hidden": [[4], [5]]}},
                "metrics": ["psnr"],
            },
            "pca": {"training": {"threads": 2}},
        },
    )
    found = {(c["dataset"]["name"], c["model"]["name"]): c for c in cells}
    training = {key: c["training"] for key, c in found.items()}
    always = {"lr": 0.1, "threads": 1}
    assert training["digits", "vae"] == {
        "epochs": 3,
        "batch_size": 100,
        "milestones": [1],
        **always,
    }
    assert training["sprites", "vae"] == {"epochs": 7, "batch_size": 5, "milestones": [1], **always}
    assert training["digits", "ae"] == {"epochs": 9, "batch_size": 100, **always}
    assert training["sprites", "ae"] == {"epochs": 9, "batch_size": 5, **always}
    assert training["sprites", "pca"] == {"threads": 2}
    assert [m["name"] for m in found["sprites", "ae"]["evaluation"]["metrics"]] == ["psnr"]
    assert [m["name"] for m in found["sprites", "vae"]["evaluation"]["metrics"]] == ["mse"]
    assert samplers([c for c in cells if c["dataset"]["name"] == "sprites"]) == {
        "vae": ["prior"],
        "ae": ["gmm"],
        "pca": ["prior"],
    }
    assert len([c for c in cells if c["model"]["name"] == "ae"]) == 2 * 2
    assert len([c for c in cells if c["model"]["name"] == "vae"]) == 2


def test_set_reaches_a_models_own_settings() -> None:
    settings = read_grid(
        {
            **BASE,
            "models": ["vae", "ae"],
            "samplers": {"gmm": {"components": 2}},
            "per_model": {"ae": {"training": {"epochs": 7}, "samplers": ["gmm", "prior"]}},
        }
    )[1]
    override(settings, "training.epochs=2")
    override(settings, "per_model.ae.training.lr=0.5")
    override(settings, "samplers.gmm.components=5")
    vae, ae = specs(settings, "cpu")
    assert (vae["training"]["epochs"], vae["training"]["lr"]) == (2, 1e-3)
    assert (ae["training"]["epochs"], ae["training"]["lr"]) == (2, 0.5)
    assert samplers([vae, ae]) == {"vae": ["gmm(components=5)"], "ae": ["gmm", "prior"]}
    override(settings, "samplers=[own]")
    assert samplers(specs(settings, "cpu")) == {"vae": ["prior"], "ae": ["gmm"]}


def test_what_is_left_out_takes_its_own_settings_along() -> None:
    grid = {
        **BASE,
        "datasets": ["digits", "mnist"],
        "models": ["vae", "ae"],
        "per_dataset": {"mnist": {"training": {"epochs": 1}}},
        "per_model": {"ae": {"training": {"lr": 1}}},
        **published(model="ae"),
    }
    settings = read_grid(grid)[1]
    narrow(settings, ["digits"], ["vae"])
    ((cell),) = specs(settings, "cpu")
    assert (cell["dataset"]["name"], cell["model"]["name"]) == ("digits", "vae")
    with pytest.raises(InputError, match=r"the grid has no model 'vea'.*did you mean 'vae'"):
        narrow(settings, models=["vea"])


def test_published_figures_change_no_cell() -> None:
    assert expand(**published(), takes="long") == expand()


def test_a_published_figure_is_of_the_cells_that_it_picks() -> None:
    grid = {
        **BASE,
        "datasets": {"sprites": {"size": [16, 32], "train": 9, "val": 9, "test": 9}},
        "models": {"beta_vae": {"beta": [1, 4]}},
        **published(
            model={"beta_vae": {"beta": 4}},
            dataset={"sprites": {"size": 32}},
            sampler="gmm",
            spread=0.5,
            note="of old",
        ),
    }
    settings = read_grid(grid)[1]
    (figure,) = figures(settings)
    assert (figure.value, figure.spread, figure.note, figure.sampler) == (
        90.1,
        0.5,
        "of old",
        "gmm",
    )
    (cell,) = [spec for spec in specs(settings, "cpu") if figure.is_of(spec)]
    assert cell["dataset"]["parameters"]["size"] == 32
    assert cell["model"]["hyperparameters"]["beta"] == 4


PAPER = [name for name in shipped() if name.startswith("paper/")]
SIDES = {"mnist": 28, "static_mnist": 28, "sprites": 64}


def test_grids_of_a_folder_have_its_name() -> None:
    assert sorted(PAPER) == PAPER
    assert list(shipped())[-len(PAPER) :] == PAPER, "after the others"
    name, settings = read_grid("paper/vae_static")
    assert name == "paper/vae_static"
    assert settings["published"]
    with pytest.raises(InputError, match=r"no grid 'vae_static'.*did you mean 'paper/vae_static'"):
        read_grid("vae_static")
    held = tomllib.loads(Path(__file__).parent.parent.joinpath("pyproject.toml").read_text())
    data = held["tool"]["setuptools"]["package-data"]["aebench.benchmark.grids"]
    assert {str(Path(name).parent / "*.yaml") for name in shipped()} == set(data)


@pytest.mark.parametrize("name", PAPER)
def test_every_model_of_a_paper_can_be_built_and_every_figure_is_computed(name: str) -> None:
    settings = read_grid(name)[1]
    assert settings["takes"]
    cells = specs(settings, "cpu")
    for cell in cells:
        side = cell["dataset"]["parameters"].get("size", SIDES[cell["dataset"]["name"]])
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            model_from(
                cell["model"]["name"],
                cell["model"]["hyperparameters"],
                DataSpec((1, side, side), 10, 50_000),
                Backbone.make(**cell["backbone"]) if cell["backbone"] else None,
            )
    assert figures(settings)
    for figure in figures(settings):
        held = [cell for cell in cells if figure.is_of(cell)]
        assert len({str({**cell, "seed": 0}) for cell in held}) == 1, f"{figure} picks one"
        chosen = held[0]["evaluation"]
        metrics = [Metric.choose(m["name"]) for m in chosen["metrics"]]
        computed = {q.name: m.per_sampler for m in metrics for q in m.quantities}
        bare, _, qualifier = figure.metric.rstrip("]").partition("[")
        assert bool(figure.sampler) == computed[bare]
        assert figure.sampler in ["", *(label(choice) for choice in chosen["samplers"])]
        likelihood = held[0]["model"]["hyperparameters"].get("likelihood")
        assert qualifier in ("", likelihood, chosen["extractor"])


def test_the_schedule_of_the_iwae_is_its_papers() -> None:
    training = yaml.safe_load(shipped()["paper/iwae_dynamic"].read_text())["training"]
    ends = [sum(3**j for j in range(i + 1)) for i in range(8)]
    assert [*training["milestones"], training["epochs"]] == ends
    assert training["gamma"] == 10 ** (-1 / 7)


def test_one_sampler_with_two_settings_is_two_samplers() -> None:
    (cell,) = expand(samplers={"gmm": {"components": [2, 5]}})
    found = [label(choice) for choice in cell["evaluation"]["samplers"]]
    assert found == ["gmm(components=2)", "gmm(components=5)"]
