"""A grid: a YAML file that expands into cells."""

import itertools
import json
import math
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..plugins import InputError, Plugin, checked, suggestion
from ..seeds import digest
from .families import place

if TYPE_CHECKING:
    from ..models import Autoencoder

Parameters = dict[str, Any]

DEFAULTS: dict[str, Any] = {
    "description": "",
    "takes": "",
    "datasets": None,
    "models": None,
    "backbones": ["mlp"],
    "hyperparameters": {},
    "training": {},
    "seeds": 3,
    "samplers": ["own", "gmm"],
    "metrics": None,
    "extractor": "classifier",
    "per_dataset": {},
    "per_model": {},
    "published": [],
}
CHOICES = ("datasets", "models", "backbones", "samplers", "metrics")
MAPPINGS = ("hyperparameters", "training")
OF_A_MODEL = ("backbones", "training", "samplers", "metrics")
BLOCKS = {
    "per_dataset": (*OF_A_MODEL, "models", "hyperparameters", "extractor"),
    "per_model": OF_A_MODEL,
}
"""What a dataset and a model may set for themselves; a model's own comes before a dataset's."""
OWN = "own"
"""The name that stands for the sampler of each model's paper."""
ALL = "all"
"""The name that stands for every model there is."""
OF_A_FIGURE = {"model": "hyperparameters", "dataset": "parameters"}
"""What a published figure gives as a name with parameters, and where it keeps these."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One training: dataset × model with its hyper-parameters × backbone × budget × seed.

    Attributes:
        spec: everything that a run chooses, as plain JSON.
        key: the hash of everything that could change its numbers, and its folder's name.
    """

    spec: Parameters
    key: str

    @property
    def dataset(self) -> str:
        return label(self.spec["dataset"])

    @property
    def model(self) -> str:
        return self.spec["model"]["name"]

    @property
    def backbone(self) -> str:
        return label(self.spec["backbone"]) if self.spec["backbone"] else "none"

    @property
    def seed(self) -> int:
        return self.spec["seed"]

    @property
    def title(self) -> str:
        """How a person is told of it."""
        return f"{self.dataset} · {self.model} · {self.backbone} · seed {self.seed}"


@dataclass(frozen=True)
class Figure:
    """A number that somebody published of one of a grid's models.

    Attributes:
        model: the model.
        hyperparameters: those of its hyper-parameters that tell which of the grid's it is of.
        dataset: the dataset.
        parameters: those of its parameters that tell which of the grid's it is of.
        metric: the name in rows; without its qualifier it means every qualifier.
        value: the number, in the unit of the rows.
        source: who published it where.
        sampler: the sampler, for a metric that scores one.
        spread: what was published behind a ±; None where nothing was.
        note: what a reader should know of it.
    """

    model: str
    hyperparameters: Parameters
    dataset: str
    parameters: Parameters
    metric: str
    value: float
    source: str
    sampler: str = ""
    spread: float | None = None
    note: str = ""

    @classmethod
    def of(cls, given: Any, where: str) -> "Figure":
        """The figure that an entry of ``published`` states.

        Raises:
            InputError: an unknown or missing key, or a value of the wrong type.
        """
        entry = mapping(given, where)
        known = {f.name: f.type for f in fields(cls) if f.name not in OF_A_FIGURE.values()}
        for key in entry:
            if key not in known:
                raise InputError(f"{where}: unknown key {key!r}{suggestion(key, known)}")
        for key in ("model", "dataset", "metric", "value", "source"):
            if key not in entry:
                raise InputError(f"{where}: an entry lacks its {key}")
        picks: Parameters = {}
        for key, of_it in OF_A_FIGURE.items():
            named = entries(entry.pop(key), f"{where}: {key}")
            if len(named) != 1:
                raise InputError(f"{where}: {key} must be one, not {', '.join(named) or 'none'}")
            ((picks[key], picks[of_it]),) = named.items()
        held = {k: checked(v, known[k], f"{where}: {k}") for k, v in entry.items()}
        if not math.isfinite(held["value"]):
            raise InputError(f"{where}: value must be a finite number, not {held['value']}")
        return cls(**picks, **held)

    def is_of(self, spec: Parameters) -> bool:
        """Whether the cells of ``spec`` can be held to it."""
        model, dataset = spec["model"], spec["dataset"]
        return (
            (model["name"], dataset["name"]) == (self.model, self.dataset)
            and self.hyperparameters.items() <= model["hyperparameters"].items()
            and self.parameters.items() <= dataset["parameters"].items()
        )


def label(choice: Mapping[str, Any]) -> str:
    """A choice as text: its name, and in brackets the parameters it was given."""
    given = ",".join(f"{k}={plain(v)}" for k, v in sorted(choice["parameters"].items()))
    return f"{choice['name']}({given})" if given else choice["name"]


def plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def folder_name(spec: Parameters, key: str) -> str:
    """A cell's folder: readable, safe on every file system, and unique by its hash."""
    parts = (spec["dataset"]["name"], spec["model"]["name"], f"seed{spec['seed']}")
    return "-".join([*map(safe, parts), key[:12]])


@lru_cache(maxsize=4096)
def safe(word: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", word)[:40]


def shipped() -> dict[str, Path]:
    """The grids that come with aebench, by name; those of a folder as ``paper/vae``."""
    folder = Path(str(resources.files(__package__) / "grids"))
    found = {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.yaml")
    }
    return dict(sorted(found.items(), key=lambda named: (named[0].count("/"), named[0])))


def read_grid(source: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A grid's name and its settings, each entry checked for its form.

    Args:
        source: a shipped grid's name, a YAML file, or the settings themselves.

    Raises:
        InputError: there is no such grid, it is not YAML, an entry has the wrong form, or it states
            a published figure of a model or dataset that it does not have.
    """
    if isinstance(source, Mapping):
        return "grid", complete(source, "grid")
    known = shipped()
    path = known.get(str(source), Path(source).expanduser())
    if not path.is_file():
        raise InputError(
            f"no grid {str(source)!r}{suggestion(source, known)}; or the path of a YAML file"
        )
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(held, Mapping):
        raise InputError(f"{path}: a grid is a mapping of {', '.join(DEFAULTS)}")
    return str(source) if str(source) in known else path.stem, complete(held, str(path))


def complete(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """:func:`settled`, and every published figure is of a model and a dataset of the grid."""
    settings = settled(given, where)
    models = models_of(settings)
    for figure in figures(settings, where):
        for kind, held in (("model", models), ("dataset", settings["datasets"])):
            if getattr(figure, kind) not in held:
                raise InputError(
                    f"{where}: published: the grid has no {kind} {getattr(figure, kind)!r}"
                    f"{suggestion(getattr(figure, kind), held)}"
                )
    return settings


def settled(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A grid's settings with its defaults, lists of names turned into mappings."""
    for key in given:
        if key not in DEFAULTS:
            raise InputError(f"{where}: unknown setting {key!r}{suggestion(key, DEFAULTS)}")
    settings = formed({**DEFAULTS, **given}, where)
    for key in ("datasets", "models"):
        if not settings[key]:
            raise InputError(f"{where}: {key} are missing")
    for blocks, allowed in BLOCKS.items():
        settings[blocks] = mapping(settings[blocks], f"{where}: {blocks}")
        for name, block in settings[blocks].items():
            inside = f"{where}: {blocks}: {name}"
            for key in mapping(block, inside):
                if key not in allowed:
                    raise InputError(f"{inside}: unknown setting {key!r}{suggestion(key, allowed)}")
            settings[blocks][name] = formed(block, inside)
    figures(settings, where)
    return settings


def formed(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings with lists of names turned into mappings."""
    held = dict(given)
    for key, value in given.items():
        if key in CHOICES and value is not None:
            held[key] = entries(value, f"{where}: {key}")
            if key == "models" and ALL in held[key]:
                held[key] = every_model(held[key], where)
        elif key in MAPPINGS:
            held[key] = mapping(value, f"{where}: {key}")
    return held


def every_model(named: dict[str, Parameters], where: str) -> dict[str, Parameters]:
    """Every model there is, with the parameters of those that are also named."""
    from ..models import Autoencoder

    if named[ALL]:
        raise InputError(f"{where}: models: 'all' takes no parameters: name the model beside it")
    known = Autoencoder.choices()
    for name in named:
        if name != ALL:
            Autoencoder.choose(name)
    return {name: named.get(name, {}) for name in known}


def figures(settings: Mapping[str, Any], where: str = "grid") -> list[Figure]:
    """The published figures that a grid states, in its order."""
    where = f"{where}: published"
    if not isinstance(settings["published"], list):
        raise InputError(f"{where} must be a list, not {settings['published']!r}")
    return [Figure.of(entry, where) for entry in settings["published"]]


def models_of(settings: Mapping[str, Any]) -> dict[str, Parameters]:
    """The models of a grid, those of one dataset alone among them."""
    blocks = settings["per_dataset"].values()
    own = [entries(block["models"], "models") for block in blocks if block.get("models")]
    return {name: held for models in (settings["models"], *own) for name, held in models.items()}


def mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must be a mapping, not {value!r}")
    return dict(value)


def entries(value: Any, where: str) -> dict[str, Parameters]:
    """``[a, {b: {x: 1}}]`` or ``{a: , b: {x: 1}}`` as ``{a: {}, b: {x: 1}}``."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        value = [{name: parameters} for name, parameters in value.items()]
    if not isinstance(value, Sequence):
        raise InputError(f"{where} must be a list of names, not {value!r}")
    found: dict[str, Parameters] = {}
    for entry in value:
        if isinstance(entry, str):
            entry = {entry: None}
        if not isinstance(entry, Mapping) or len(entry) != 1:
            raise InputError(f"{where}: {entry!r} is neither a name nor `name: {{key: value}}`")
        ((name, parameters),) = entry.items()
        found[str(name)] = mapping(parameters or {}, f"{where}: {name}")
    return found


def override(settings: dict[str, Any], assignment: str) -> None:
    """Set one value in place, from text such as ``training.epochs=5``.

    A block of ``per_dataset`` or ``per_model`` that sets the same value gets the new one too.

    Raises:
        InputError: it is not of the form key=value, or the path does not lead through mappings.
    """
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise InputError(f"--set takes key=value, such as training.epochs=5, not {assignment!r}")
    if keys[0] not in DEFAULTS:
        raise InputError(f"--set: unknown setting {keys[0]!r}{suggestion(keys[0], DEFAULTS)}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"--set {path}: {text!r} is not a value") from None
    for block in [settings, *(block for kind in BLOCKS for block in settings[kind].values())]:
        inner = block
        for depth, key in enumerate(keys[:-1]):
            if block is not settings and key not in inner:
                break
            if depth == 1 and keys[0] in CHOICES and key not in inner:
                raise InputError(f"--set {path}: the grid has no {key!r}{suggestion(key, inner)}")
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise InputError(f"--set {path}: {key!r} is not a mapping")
        else:
            if block is settings or keys[-1] in inner:
                inner[keys[-1]] = value
    settings.update(settled(settings, "--set"))


def narrow(
    settings: dict[str, Any],
    datasets: Iterable[str] | None = None,
    models: Iterable[str] | None = None,
) -> None:
    """Keep, in place, these datasets and models of a grid alone, with what it says of them.

    Raises:
        InputError: the grid has none of that name.
    """
    for kind, names in (("dataset", datasets), ("model", models)):
        if names is None:
            continue
        settings[f"{kind}s"] = restrict(settings[f"{kind}s"], names, kind)
        kept, blocks = settings[f"{kind}s"], settings[f"per_{kind}"].items()
        settings[f"per_{kind}"] = {name: block for name, block in blocks if name in kept}


def seeds_of(value: Any) -> list[int]:
    """The seeds that ``value`` states: so many from 0, or a list.

    Raises:
        InputError: it is neither, or a seed is negative.
    """
    if type(value) is int and value > 0:
        return list(range(value))
    if isinstance(value, list) and value and all(type(s) is int and s >= 0 for s in value):
        return list(dict.fromkeys(value))
    raise InputError(f"seeds must be a number above 0 or a list of seeds from 0 on, not {value!r}")


def combinations(plugin: type[Plugin], given: Parameters) -> list[Parameters]:
    """Every combination of ``given`` in which a list stands for its items, checked.

    For a parameter that is itself a sequence, a list of lists does.
    """
    parameters = plugin.parameters_of()
    axes = []
    for key, value in given.items():
        hint = parameters[key].annotation if key in parameters else None
        sequence = typing.get_origin(hint) in (tuple, list)
        is_axis = isinstance(value, list) and (
            not sequence or all(isinstance(v, list) for v in value)
        )
        axes.append([(key, v) for v in (value if is_axis and value else [value])])
    found = []
    for combination in itertools.product(*axes):
        plugin.complete(dict(combination))
        found.append(dict(combination))
    return found


def chosen(plugin: type[Plugin], given: Mapping[str, Parameters]) -> list[dict[str, Any]]:
    """The choices of one kind: name and parameters, every combination of them, each tried."""
    found = []
    for name, values in given.items():
        cls = plugin.choose(name)
        for parameters in combinations(cls, values):
            plugin.make(name, parameters)  # it refuses what is out of range
            found.append({"name": name, "parameters": parameters})
    return found


def chosen_metrics(given: Mapping[str, Parameters] | None) -> list[dict[str, Any]]:
    """The metrics that a grid names, families taken apart; all where it names none."""
    from .metrics import Metric

    registry = Metric.choices()
    ordered = sorted(registry, key=lambda name: (place(registry[name].family), name))
    families = dict.fromkeys(registry[name].family for name in ordered)
    picked: dict[str, Parameters] = {}
    for name, parameters in (
        {family: {} for family in families} if given is None else given
    ).items():
        if name in families:
            if parameters:
                raise InputError(f"metrics: {name!r} is a family: give parameters to its metrics")
            members = [metric for metric in ordered if registry[metric].family == name]
        elif name in registry:
            members = [name]
        else:
            valid = [*families, *registry]
            raise InputError(f"unknown metric or family {name!r}{suggestion(name, valid)}")
        for member in members:
            if parameters or member not in picked:
                Metric.make(member, parameters)
                picked[member] = parameters
    return [{"name": name, "parameters": picked[name]} for name in ordered if name in picked]


def chosen_samplers(model: type["Autoencoder"], given: Mapping[str, Parameters]) -> list[Any]:
    """The samplers that a grid names for one model, each once; ``own`` is that of its paper."""
    from ..models import Sampler

    known = Sampler.choices()
    found: list[dict[str, Any]] = []
    for name, parameters in given.items():
        if name == OWN:
            if parameters:
                raise InputError("samplers: 'own' takes no parameters: name the sampler itself")
            if model.sampler not in known:
                where = f"model {model.name!r}: unknown sampler"
                raise InputError(f"{where} {model.sampler!r}{suggestion(model.sampler, known)}")
            name = model.sampler
        elif name not in known:
            raise InputError(f"unknown sampler {name!r}{suggestion(name, [OWN, *known])}")
        found += [c for c in chosen(Sampler, {name: parameters}) if c not in found]
    return found


def restrict(held: dict[str, Parameters], names: Iterable[str], kind: str) -> dict[str, Parameters]:
    """The entries called ``names``.

    Raises:
        InputError: the grid has none of that name.
    """
    for name in names:
        if name not in held:
            raise InputError(f"the grid has no {kind} {name!r}{suggestion(name, held)}")
    return {name: held[name] for name in held if name in set(names)}


def specs(settings: dict[str, Any], device: str) -> list[Parameters]:
    """The specification of every cell of a grid, each once, in the order of the file.

    Cells share the parts that are equal, so that a million of them fit in memory: change none.

    Args:
        settings: what :func:`read_grid` gives.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: an unknown name or parameter, or a value of the wrong type.
    """
    from ..datasets import Dataset
    from ..models import Autoencoder, Backbone, ClosedForm
    from .extractors import Extractor
    from .train import Budget

    models = models_of(settings)
    for kind, held in (("dataset", settings["datasets"]), ("model", models)):
        for name in settings[f"per_{kind}"]:
            if name not in held:
                raise InputError(
                    f"per_{kind}: the grid has no {kind} {name!r}{suggestion(name, held)}"
                )
    for figure in figures(settings):
        refuse_unknown(figure)
    seeds = seeds_of(settings["seeds"])
    configurations: dict[str, Parameters] = {}
    for dataset in map(plain_json, chosen(Dataset, settings["datasets"])):
        of_dataset = merged(settings, settings["per_dataset"].get(dataset["name"], {}))
        Extractor.choose(of_dataset["extractor"])
        for name, given in of_dataset["models"].items():
            own = merged(of_dataset, settings["per_model"].get(name, {}))
            cls = Autoencoder.choose(name)
            budget = Budget.of(own["training"]).stated
            closed = issubclass(cls, ClosedForm)
            training = plain_json({"threads": budget["threads"]} if closed else budget)
            evaluation = plain_json(
                {
                    "extractor": own["extractor"],
                    "samplers": chosen_samplers(cls, own["samplers"]),
                    "metrics": chosen_metrics(own["metrics"]),
                }
            )
            backbones = map(plain_json, chosen(Backbone, own["backbones"]))
            choices = list(backbones) if cls.uses_backbone else [None]
            shared = {k: v for k, v in own["hyperparameters"].items() if k in cls.parameters_of()}
            for hyperparameters in combinations(cls, {**shared, **given}):
                model = {"name": name, "hyperparameters": cls.complete(hyperparameters)}
                for backbone in choices:
                    configuration = {
                        "dataset": dataset,
                        "model": plain_json(model),
                        "backbone": backbone,
                        "training": training,
                        "evaluation": evaluation,
                        "device": device,
                    }
                    configurations.setdefault(digest(configuration), configuration)
    unused = set(settings["hyperparameters"])
    for name in models:
        unused -= set(Autoencoder.choose(name).parameters_of())
    if unused:
        raise InputError(f"hyperparameters: no model of the grid takes {sorted(unused)[0]!r}")
    return [{**held, "seed": seed} for held in configurations.values() for seed in seeds]


def sharing(spec: Parameters) -> tuple[int, ...]:
    """The parts of a specification but its seed, by identity: what the seeds of one share."""
    return tuple(id(part) for name, part in spec.items() if name != "seed")


def plain_json(value: Any) -> Any:
    """``value`` as a file has it: lists for tuples, and nothing shared with the grid."""
    return json.loads(json.dumps(value))


def merged(settings: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
    """``settings`` with those of a block: mappings of values merge, choices replace."""
    own = dict(settings)
    for key, value in block.items():
        own[key] = {**settings[key], **value} if key in MAPPINGS else value
    return own


def refuse_unknown(figure: Figure) -> None:
    """Refuse a published figure of what does not exist.

    Raises:
        InputError: its model, dataset, metric or sampler, or a parameter of one, is unknown.
    """
    from ..datasets import Dataset
    from ..models import Autoencoder, Sampler
    from .metrics import Metric

    plugins: list[tuple[type[Plugin], str, Parameters]] = [
        (Autoencoder, figure.model, figure.hyperparameters),
        (Dataset, figure.dataset, figure.parameters),
    ]
    for kind, name, given in plugins:
        valid = kind.choose(name).parameters_of()
        for key in given:
            if key not in valid:
                where = f"published: {kind.kind} {name!r} has no parameter"
                raise InputError(f"{where} {key!r}{suggestion(key, valid)}")
    metrics = {q.name for metric in Metric.choices().values() for q in metric.quantities}
    metric, sampler = figure.metric.partition("[")[0], figure.sampler.partition("(")[0]
    if metric not in metrics:
        raise InputError(f"published: unknown metric {metric!r}{suggestion(metric, metrics)}")
    samplers = ["", *Sampler.choices()]
    if sampler not in samplers:
        raise InputError(f"published: unknown sampler {sampler!r}{suggestion(sampler, samplers)}")
