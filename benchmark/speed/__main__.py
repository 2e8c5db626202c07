"""Prints every table of times: ``python -m aebench.benchmark.speed [TABLE…]``."""

import importlib
import pkgutil
import sys

from ...plugins import InputError, suggestion
from ..provenance import versions
from . import __path__

PAIRS = 5
NO_TABLES = ("__main__", "bare", "base", "synthetic", "with_pythae")
"""The modules here that measure nothing by themselves."""


def main(wanted: list[str]) -> None:
    """Measure and print the tables called ``wanted``, or all that can be measured here."""
    known = sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in NO_TABLES)
    for name in wanted:
        if name not in known:
            raise InputError(f"no table {name!r}{suggestion(name, known)}")
    print(", ".join(f"{library} {version}" for library, version in versions().items()), "\n")
    for name in wanted or known:
        module = importlib.import_module(f"{__package__}.{name}")
        try:
            found = module.measure(PAIRS)
            for table in found if isinstance(found, tuple) else (found,):
                print(table.markdown(), flush=True)
        except InputError as error:
            if wanted:
                raise
            print(f"{error}\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"aebench: {error}", file=sys.stderr)
        sys.exit(2)
