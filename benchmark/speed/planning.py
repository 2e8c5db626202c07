"""Planning: from a grid and its folder to the cells that are missing."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from .base import Table, spread

SIZES = ((100_000, None), (1_000_000, 2))
"""Cells, and how often they are planned; None takes as many as are asked for."""
MISSING = 10
MODELS = (
    *("aae", "ae", "beta_tcvae", "beta_vae", "ciwae", "dae", "dip_vae_i", "dip_vae_ii"),
    *("info_vae", "iwae", "k_sparse_ae", "miwae", "pca", "piwae", "rae_l2", "sigma_vae"),
    *("sparse_ae", "vae", "vampprior_vae", "wae_mmd"),
)


def grid(cells: int, images: Path) -> dict[str, Any]:
    """Settings of so many cells: 20 models × 5 widths of the code × 10 datasets × seeds."""
    return {
        "datasets": {"npz": {"path": str(images), "train": list(range(101, 111))}},
        "models": {model: {"latent_dim": [2, 4, 6, 8, 10]} for model in MODELS},
        "seeds": cells // (len(MODELS) * 5 * 10),
    }


def measure(pairs: int) -> Table:
    """Plan grids of which all but ten cells are done, each time in a process of its own."""
    rows = []
    for cells, often in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            done_but_ten(cells, Path(folder))
            found = [in_a_process(cells, Path(folder)) for _ in range(often or pairs)]
        columns = zip(*found)
        texts = [spread(list(some), unit) for some, unit in zip(columns, ("s", "GB", "s", "GB"))]
        rows.append((f"{cells:,}", *texts))
    return Table(
        f"Planning a grid of which all but {MISSING} cells are done",
        ("cells", "imports", "memory then", "planning", "peak memory"),
        tuple(rows),
        (
            f"{len(MODELS)} models × 5 widths of the code × 10 datasets × seeds, all metrics, the "
            "folders of what is done. From the grid's settings to the missing cells in their "
            f"order; {pairs} times, a million cells twice, each in a process of its own.",
            "Memory is the whole process's; one GB is 10⁹ bytes.",
        ),
    )


def done_but_ten(cells: int, folder: Path) -> None:
    """Make ten small datasets, and a store that has the folders of all cells but the first ten."""
    from ..cell import cells_of
    from ..grid import folder_name, read_grid, specs
    from ..store import Store

    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images)
    store = Store(folder / "store", create=True)
    planned = cells_of(specs(read_grid(grid(cells, folder / "images.npz"))[1], "cpu"))
    for cell in planned[MISSING:]:
        (store.cells / folder_name(cell.spec, cell.key)).mkdir()


def in_a_process(cells: int, folder: Path) -> tuple[float, float, float, float]:
    """Seconds and gigabytes of the start with its imports, and of the planning."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", f"{__package__}.planning", str(cells), str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    before, seconds, after = json.loads(done.stdout)
    return time.perf_counter() - begun - seconds, before, seconds, after


def main(cells: int, folder: Path) -> None:
    """Print the memory before planning, the seconds of it, and the memory after it."""
    import torch

    from ...models import Autoencoder
    from .. import cell  # noqa: F401
    from ..grid import read_grid
    from ..metrics import Metric
    from ..provenance import PeakMemory
    from ..runner import changed, planned

    registries = Autoencoder.choices(), Metric.choices()
    assert all(registries)
    memory = PeakMemory(torch.device("cpu"))
    before, begun = memory.read(), time.perf_counter()
    settings = read_grid(grid(cells, folder / "images.npz"))[1]
    plan = planned("grid", changed(settings, None, None, None, (), ()), folder / "store", (CPU,))
    seconds = time.perf_counter() - begun
    assert (len(plan.cells), len(plan.missing)) == (cells, MISSING)
    print(json.dumps([before * GB, seconds, memory.read() * GB]))


CPU = ("cpu",)
GB = 2**20 / 1e9
"""Of a mebibyte."""

if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
