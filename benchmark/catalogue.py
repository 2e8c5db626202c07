"""What can be chosen, read off the registry: for `aebench list` and the README's tables."""

import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ..plugins import Plugin
from .families import place
from .grid import plain, shipped
from .report.sheets import ARROWS

if TYPE_CHECKING:
    from .metrics import Quantity


@dataclass(frozen=True)
class Entry:
    """A choice: its name, one line about it, and its parameters as ``name=default``."""

    name: str
    about: str
    parameters: tuple[str, ...] = ()


KINDS = ("datasets", "models", "backbones", "samplers", "metrics", "extractors", "grids")
MARKS = ("<!-- catalogue -->\n", "<!-- /catalogue -->")


def catalogue(kind: str) -> list[Entry]:
    """The choices of a kind, such as ``models``, in alphabetical order; metrics by family."""
    if kind == "grids":
        return grids()
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
    choices = sorted(
        roots[kind].choices().items(),
        key=lambda choice: (place(getattr(choice[1], "family", "")), choice[0]),
    )
    return [Entry(name, about(cls), parameters(cls)) for name, cls in choices]


def about(cls: type[Plugin]) -> str:
    """One line: what the class says of itself, and where it comes from."""
    line = getattr(cls, "description", "") or (inspect.getdoc(cls) or "").partition("\n")[0]
    source = getattr(cls, "reference", "") or getattr(cls, "source", "")
    family = getattr(cls, "family", "")
    quantities = getattr(cls, "quantities", ())
    ranked, others = (
        ", ".join(stated(quantity) for quantity in quantities if quantity.ranked == counts)
        for counts in (True, False)
    )
    given = "; ".join(word for word in (ranked, f"not ranked: {others}" if others else "") if word)
    sampler = getattr(cls, "sampler", "")
    words = [
        f"{family}:" if family else "",
        line.rstrip(".") + (f"; sampler `{sampler}`" if sampler else ""),
        f"[{given}]" if given else "",
        f"({source})" if source else "",
    ]
    return " ".join(word for word in words if word)


def stated(quantity: "Quantity") -> str:
    """A quantity's name, direction, unit and range: ``acc ↑ 0 to 1``."""
    low, high = (None if bound is None else f"{bound:g}" for bound in (quantity.low, quantity.high))
    span = (
        f"{low} to {high}" if low and high else f"≥ {low}" if low else f"≤ {high}" if high else ""
    )
    words = [quantity.name, ARROWS[quantity.better], quantity.unit, span]
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
        takes = f" Takes {held['takes']}." if held.get("takes") else ""
        found.append(Entry(name, " ".join(str(held.get("description", "")).split()) + takes))
    return found


def markdown() -> str:
    """A table of every kind."""
    lines = []
    for kind in KINDS:
        lines += [f"### {kind.capitalize()}", "", "| name | what it is | parameters |"]
        lines += ["| --- | --- | --- |"]
        for entry in catalogue(kind):
            given = ", ".join(f"`{parameter}`" for parameter in entry.parameters)
            lines.append(f"| `{entry.name}` | {entry.about.replace('|', '&#124;')} | {given} |")
        lines.append("")
    return "\n".join(lines)


def with_catalogue(text: str) -> str:
    """A page with the tables between its marks made anew."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{markdown()}{MARKS[1]}{after}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_catalogue(page.read_text(encoding="utf-8")), encoding="utf-8")
