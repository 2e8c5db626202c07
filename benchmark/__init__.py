"""Grid → cells → train → evaluate → store → leaderboard → report."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runner import load, run

__all__ = ["load", "run"]


def __getattr__(name: str) -> Any:
    # Lazily, so that the CLI can answer without importing what a run needs.
    if name in __all__:
        from . import runner

        return getattr(runner, name)
    raise AttributeError(name)
