"""Tensors that are expensive to make and the same for every cell: made once, kept on disk."""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock
from platformdirs import user_cache_path
from torch import Tensor

from ..seeds import digest

_memory: dict[str, dict[str, Tensor]] = {}


@lru_cache
def cache_folder() -> Path:
    """``$AEBENCH_CACHE``, or the user's cache folder."""
    chosen = os.environ.get("AEBENCH_CACHE")
    folder = Path(chosen) if chosen else user_cache_path("aebench")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached_tensors(
    names: tuple[object, ...], compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What ``compute`` gives, computed once for ``names`` on this machine.

    ``names`` must hold everything that the result depends on. Processes that ask for the same at
    the same time wait for the first. A file that cannot be read is made anew.
    """
    key = digest(*names)
    if key not in _memory:
        path = cache_folder() / f"{key}.pt"
        with FileLock(path.with_suffix(".lock")):
            held = None
            with suppress(Exception):
                held = torch.load(path, weights_only=True)
            if held is None:
                held = {name: tensor.cpu() for name, tensor in compute().items()}
                part = path.with_suffix(f".{os.getpid()}.part")
                torch.save(held, part)
                part.replace(path)
        _memory[key] = held
    return _memory[key]
