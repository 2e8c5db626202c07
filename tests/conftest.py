"""Every test computes on one thread, with a cache of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from aebench.plugins import Plugin

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test's own files define is gone after it."""
    yield
    for kind in Plugin.__subclasses__():
        for name, cls in list(kind._choices.items()):
            if cls.__module__.startswith("aebench_file_"):
                del kind._choices[name]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that no other run has touched, for this process and its children."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["AEBENCH_CACHE"] = str(folder)
    return folder
