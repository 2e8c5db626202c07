"""What a number depends on beside its specification: the code, the versions, the machine."""

import ast
import hashlib
import platform
import sys
from contextlib import suppress
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from ..plugins import loaded_files

PACKAGE = __name__.rpartition(".benchmark.")[0]
LIBRARIES = ("torch", "torchmetrics", "numpy", "scipy", "scikit-learn")
"""What computes numbers."""


@lru_cache
def versions() -> dict[str, str]:
    """The versions of Python, aebench and ``LIBRARIES``."""
    found = {"python": platform.python_version()}
    for library in ("aebench", *LIBRARIES):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "unknown"
    return found


@cache
def code_digest(*roots: type | ModuleType) -> str:
    """A hash of the source that ``roots`` run: their modules and all that these use of ours.

    A module counts as ours if it is part of aebench or lies beside a file that the user loaded.
    Comments, docstrings and layout do not count. A cell made by other code is another cell, so an
    edited helper leaves no stale result, and a new model's file touches no other's.
    """
    queue: list[str] = []
    for root in roots:
        if isinstance(root, ModuleType):
            queue.append(root.__name__)
        else:
            queue += [owner.__module__ for owner in root.__mro__]
    seen: dict[str, str] = {}
    folders = user_folders()
    while queue:
        name = queue.pop()
        module = sys.modules.get(name)
        if name in seen or module is None or not is_ours(module, folders):
            continue
        if hasattr(module, "__path__"):
            continue  # a package only gathers what its modules define
        seen[name] = source_digest(str(module.__file__))
        for value in vars(module).values():
            owner = value.__name__ if isinstance(value, ModuleType) else None
            queue.append(owner or getattr(value, "__module__", None) or "")
    return hashlib.sha256("".join(sorted(seen.values())).encode()).hexdigest()


def is_ours(module: ModuleType, folders: set[str]) -> bool:
    if module.__name__.startswith(PACKAGE + "."):
        return True
    path = getattr(module, "__file__", None)
    return path is not None and str(Path(path).parent) in folders


def user_folders() -> set[str]:
    """The folders of the files that the user loaded."""
    return {str(Path(file).parent) for file in loaded_files()}


@lru_cache
def source_digest(path: str) -> str:
    """A hash of a Python file's syntax tree without docstrings."""
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


class PeakMemory:
    """The peak memory of this process from here on, in MiB; on CUDA that of the device.

    On systems where the peak cannot be reset it is that of the process's whole life.
    """

    def __init__(self, device: Any) -> None:
        self.device = device
        if device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")

    def read(self) -> float:
        if self.device.type == "cuda":
            import torch

            return torch.cuda.max_memory_allocated(self.device) / 2**20
        try:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 2**10
        except OSError:
            pass
        import resource

        scale = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
