"""A grid: a YAML file that expands into cells."""

import itertools
import json
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ..plugins import InputError, Plugin, suggestion
from ..seeds import digest
from .families import place

Parameters = dict[str, Any]

DEFAULTS: dict[str, Any] = {
    "description": "",
    "datasets": None,
    "models": None,
    "backbones": ["mlp"],
    "hyperparameters": {},
    "training": {},
    "seeds": 3,
    "samplers": ["prior", "gmm"],
    "metrics": None,
    "extractor": "classifier",
    "per_dataset": {},
}
CHOICES = ("datasets", "models", "backbones", "samplers", "metrics")


@dataclass(frozen=True)
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


def label(choice: Mapping[str, Any]) -> str:
    """A choice as text: its name, and in brackets the parameters it was given."""
    given = ",".join(f"{k}={plain(v)}" for k, v in sorted(choice["parameters"].items()))
    return f"{choice['name']}({given})" if given else choice["name"]


def plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def folder_name(spec: Parameters, key: str) -> str:
    """A cell's folder: readable, safe on every file system, and unique by its hash."""
    parts = [spec["dataset"]["name"], spec["model"]["name"], f"seed{spec['seed']}"]
    words = [re.sub(r"[^A-Za-z0-9_]+", "-", part)[:40] for part in parts]
    return "-".join([*words, key[:12]])


def shipped() -> dict[str, Path]:
    """The grids that come with aebench, by name."""
    folder = resources.files(__package__) / "grids"
    files = [Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    return {path.stem: path for path in sorted(files)}


def read_grid(source: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A grid's name and its settings, each entry checked for its form.

    Args:
        source: a shipped grid's name, a YAML file, or the settings themselves.

    Raises:
        InputError: there is no such grid, it is not YAML, or an entry has the wrong form.
    """
    if isinstance(source, Mapping):
        return "grid", settled(source, "grid")
    path = shipped().get(str(source), Path(source).expanduser())
    if not path.is_file():
        raise InputError(
            f"no grid {str(source)!r}{suggestion(source, shipped())}; or the path of a YAML file"
        )
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(held, Mapping):
        raise InputError(f"{path}: a grid is a mapping of {', '.join(DEFAULTS)}")
    return path.stem, settled(held, str(path))


def settled(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A grid's settings with its defaults, lists of names turned into mappings."""
    for key in given:
        if key not in DEFAULTS:
            raise InputError(f"{where}: unknown setting {key!r}{suggestion(key, DEFAULTS)}")
    settings = {**DEFAULTS, **given}
    for key in CHOICES:
        if settings[key] is not None:
            settings[key] = entries(settings[key], f"{where}: {key}")
    for key in ("datasets", "models"):
        if not settings[key]:
            raise InputError(f"{where}: {key} are missing")
    for key in ("hyperparameters", "training", "per_dataset"):
        settings[key] = mapping(settings[key], f"{where}: {key}")
    for name, block in settings["per_dataset"].items():
        for key in mapping(block, f"{where}: per_dataset: {name}"):
            allowed = set(DEFAULTS) - {"description", "datasets", "per_dataset", "seeds"}
            if key not in allowed:
                raise InputError(
                    f"{where}: per_dataset: {name}: unknown setting {key!r}"
                    f"{suggestion(key, allowed)}"
                )
    return settings


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

    A block of ``per_dataset`` that sets the same value gets the new one too.

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
    if len(keys) == 1:
        settings.update(settled({**settings, keys[0]: value}, "--set"))
        return
    for block in [settings, *settings["per_dataset"].values()]:
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

    Args:
        settings: what :func:`read_grid` gives.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: an unknown name or parameter, or a value of the wrong type.
    """
    from ..datasets import Dataset
    from ..models import Autoencoder, Backbone, ClosedForm, Sampler
    from .extractors import Extractor
    from .train import Budget

    for name in settings["per_dataset"]:
        if name not in settings["datasets"]:
            known = settings["datasets"]
            raise InputError(
                f"per_dataset: the grid has no dataset {name!r}{suggestion(name, known)}"
            )
    seeds = seeds_of(settings["seeds"])
    found: dict[str, Parameters] = {}
    for dataset in chosen(Dataset, settings["datasets"]):
        own = merged(settings, settings["per_dataset"].get(dataset["name"], {}))
        Extractor.choose(own["extractor"])
        budget = vars(Budget.of(own["training"]))
        evaluation = {
            "extractor": own["extractor"],
            "samplers": chosen(Sampler, own["samplers"]),
            "metrics": chosen_metrics(own["metrics"]),
        }
        backbones = chosen(Backbone, own["backbones"])
        for name, given in own["models"].items():
            cls = Autoencoder.choose(name)
            shared = {k: v for k, v in own["hyperparameters"].items() if k in cls.parameters_of()}
            closed = issubclass(cls, ClosedForm)
            for hyperparameters in combinations(cls, {**shared, **given}):
                for backbone in backbones if cls.uses_backbone else [None]:
                    for seed in seeds:
                        spec = {
                            "dataset": dataset,
                            "model": {
                                "name": name,
                                "hyperparameters": cls.complete(hyperparameters),
                            },
                            "backbone": backbone,
                            "training": {"threads": budget["threads"]} if closed else budget,
                            "evaluation": evaluation,
                            "seed": seed,
                            "device": device,
                        }
                        found.setdefault(digest(spec), json.loads(json.dumps(spec)))
    unused = set(settings["hyperparameters"])
    for name in settings["models"]:
        unused -= set(Autoencoder.choose(name).parameters_of())
    if unused:
        raise InputError(f"hyperparameters: no model of the grid takes {sorted(unused)[0]!r}")
    return list(found.values())


def merged(settings: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
    """``settings`` with a dataset's own: mappings of values merge, choices replace."""
    own = dict(settings)
    for key, value in block.items():
        if key in CHOICES:
            own[key] = entries(value, f"per_dataset: {key}")
        elif isinstance(settings[key], dict):
            own[key] = {**settings[key], **mapping(value, f"per_dataset: {key}")}
        else:
            own[key] = value
    return own
