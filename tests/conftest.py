"""Every test computes on one thread, with a cache of its own."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that no other run has touched, for this process and its children."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["AEBENCH_CACHE"] = str(folder)
    return folder
