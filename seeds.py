"""Random streams named, not counted: a stream's seed is the hash of what it is for."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def digest(*names: object) -> str:
    """The SHA-256 of ``names`` as JSON, in hexadecimal digits."""
    text = json.dumps(names, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def derive_seed(*names: object) -> int:
    """A seed in [0, 2³²) that depends on ``names`` alone.

    Every stream (initial weights, order of the batches, a metric's pairs) has its own names, so
    that none shifts when another is added, reordered or left out.

    >>> derive_seed("digits", "vae", 0, "weights") == derive_seed("digits", "vae", 0, "weights")
    True
    """
    return int(digest(*names)[:8], 16)


@contextmanager
def seeded(seed: int, device: "torch.device") -> Iterator[None]:
    """Torch's global stream, of the CPU and of ``device``, seeded within and restored after."""
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
