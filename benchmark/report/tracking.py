"""Weights & Biases: every cell a run, and the leaderboard. Nothing else imports wandb."""

import math
import netrc
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...plugins import InputError
from ...seeds import digest
from ..grid import Cell
from ..leaderboard import leaderboard
from ..store import read_json

if TYPE_CHECKING:
    import pandas as pd

PROJECT = "aebench"
CLOUD = ("api.wandb.ai", "api.forge.coreweave.com")
"""The names of the one public server; a key under either serves for both."""
LONGEST = 60
"""Characters of a group's or a job type's name; Weights & Biases takes no more than 64."""


class WandbLog:
    """Logs cells and the leaderboard to the project ``aebench``, silently.

    Online where the user is logged in, otherwise offline into ``<folder>/wandb``, to be sent by
    :attr:`sync_command`; offline from then on, too, if the server cannot be reached.
    ``WANDB_MODE`` overrules both. A run has its cell's key for id, so that a cell logged again does
    not stand there twice.

    Args:
        grid: the grid's name, under which runs are grouped.
        folder: the store's folder.

    Raises:
        InputError: wandb is not installed.
    """

    def __init__(self, grid: str, folder: str | Path) -> None:
        try:
            import wandb
        except ImportError:
            raise InputError("wandb is not installed: pip install 'aebench[wandb]'") from None
        self.wandb, self.grid, self.folder = wandb, grid, Path(folder)
        self.mode = os.environ.get("WANDB_MODE") or ("online" if self.logged_in() else "offline")

    def logged_in(self) -> bool:
        """Whether there is a key for the server; nothing is asked of the network."""
        settings = self.wandb.setup().settings
        if settings.api_key:
            return True
        try:
            held = netrc.netrc(os.environ.get("NETRC"))
        except (OSError, netrc.NetrcParseError):
            return False
        own = urlsplit(settings.base_url).netloc
        return any(held.authenticators(host) for host in (CLOUD if own in CLOUD else (own,)))

    @property
    def sync_command(self) -> str:
        """The command that sends what was logged offline; empty where there is nothing to send."""
        if self.mode != "offline":
            return ""
        return f"wandb sync {shlex.quote(str(self.folder / 'wandb'))}/offline-run-*"

    def cell(self, folder: Path, cell: Cell) -> None:
        """Log a finished cell: specification, history, scores and pictures.

        Args:
            folder: where it lies in the store.
            cell: the cell.
        """
        kind = f"{cell.dataset}/{cell.model}"[:LONGEST]
        run = self.start(cell.key, folder.name, kind, cell.spec)
        for record in read_json(folder / "history.json"):
            terms = {k: v for k, v in record.items() if v is not None}
            run.log(terms, step=int(record["epoch"]))
        for row in read_json(folder / "metrics.json"):
            if row["value"] is not None:
                name = f"{row['metric']}/{row['sampler']}" if row["sampler"] else row["metric"]
                run.summary[name] = row["value"]
        paths = sorted((folder / "pictures").glob("*.png"))
        if paths:
            run.log({f"pictures/{p.stem}": self.wandb.Image(str(p)) for p in paths})
        run.finish()

    def leaderboard(self, rows: "pd.DataFrame") -> None:
        """Log the leaderboard over ``rows`` as a run of its own, one table a dataset."""
        # Another folder's leaderboard is another run, though its grid has the same name.
        key = digest(self.grid, str(self.folder.resolve()))[:16]
        run = self.start(f"leaderboard-{key}", "leaderboard", "leaderboard", {})
        for dataset, lines in leaderboard(rows).lines.groupby("dataset", sort=True):
            frame = lines.dropna(axis="columns", how="all")
            data = [[plain(value) for value in record] for record in frame.itertuples(index=False)]
            table = self.wandb.Table(columns=list(frame.columns), data=data)
            run.log({f"leaderboard/{dataset}": table})
        run.finish()

    def start(self, key: str, name: str, kind: str, config: dict[str, Any]) -> Any:
        settings = self.wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True
        )
        given: dict[str, Any] = {
            "project": PROJECT,
            "group": self.grid[:LONGEST],
            "name": name,
            "job_type": kind,
            "id": key,
            "config": config,
            "dir": str(self.folder),
            "reinit": "create_new",
            "settings": settings,
        }
        if self.mode == "online":
            try:
                return self.wandb.init(**given, mode="online", resume="allow")
            except self.wandb.Error:  # a training must not end because a server does not answer
                self.mode = "offline"
        given["mode"] = self.mode
        return self.wandb.init(**given)


def plain(value: Any) -> Any:
    """A table's cell: what does not apply is empty."""
    return None if isinstance(value, float) and math.isnan(value) else value
