"""Tensors that are expensive to make and the same for every cell: made once, kept on disk."""

import os
from collections.abc import Callable
from contextlib import suppress

import torch
from filelock import FileLock
from torch import Tensor

from ..datasets.cache import cache_folder
from ..seeds import digest

_memory: dict[str, dict[str, Tensor]] = {}


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
        path.parent.mkdir(parents=True, exist_ok=True)
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
