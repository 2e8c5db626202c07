"""What can be chosen, read off the registry: for `aebench list` and the README's tables."""

import inspect
from dataclasses import dataclass

import yaml

from ..plugins import Plugin
from .grid import plain, shipped


@dataclass(frozen=True)
class Entry:
    """A choice: its name, one line about it, and its parameters as ``name=default``."""

    name: str
    about: str
    parameters: tuple[str, ...] = ()


def catalogue(kind: str) -> list[Entry]:
    """The choices of a kind, such as ``models``, in alphabetical order."""
    from ..datasets import Dataset
    from ..models import Autoencoder, Backbone, Sampler
    from .extractors import Extractor
    from .metrics import Metric

    roots: dict[str, type[Plugin]] = {
        "datasets": Dataset,
        "models": Autoencoder,
        "backbones": Backbone,
        "samplers": Sampler,
        "metrics": Metric,
        "extractors": Extractor,
    }
    return [Entry(name, about(cls), parameters(cls)) for name, cls in roots[kind].choices().items()]


def about(cls: type[Plugin]) -> str:
    """One line: what the class says of itself, and where it comes from."""
    line = getattr(cls, "description", "") or (inspect.getdoc(cls) or "").partition("\n")[0]
    source = getattr(cls, "reference", "") or getattr(cls, "source", "")
    family = getattr(cls, "family", "")
    words = [f"{family}:" if family else "", line.rstrip("."), f"({source})" if source else ""]
    return " ".join(word for word in words if word)


def parameters(cls: type[Plugin]) -> tuple[str, ...]:
    return tuple(
        name if p.default is p.empty else f"{name}={plain(p.default)}"
        for name, p in cls.parameters_of().items()
    )


def grids() -> list[Entry]:
    """The shipped grids with their descriptions."""
    found = []
    for name, path in shipped().items():
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
        found.append(Entry(name, " ".join(str(held.get("description", "")).split())))
    return found
