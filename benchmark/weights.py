"""Files of published weights: named by the user, found in the cache or downloaded; checked."""

import hashlib
import os
from pathlib import Path

from ..plugins import InputError
from .cache import cache_folder


def weights_file(name: str, url: str, sha256: str, variable: str) -> Path:
    """The path of a file of weights: ``$variable``, else that in the cache folder, downloaded once.

    Args:
        name: what it is called.
        url: where it is published.
        sha256: its SHA-256, or how that begins.
        variable: the environment variable that may name another place.

    Raises:
        InputError: it is not the right file, or cannot be had.
    """
    if named := os.environ.get(variable):
        path = Path(named).expanduser()
        if not path.is_file():
            raise InputError(f"${variable}: no such file: {path}")
        if not genuine(path, sha256):
            raise InputError(f"${variable}: {path} is not {name}: its SHA-256 differs")
        return path
    path = cache_folder() / name
    if not (path.is_file() and genuine(path, sha256)):
        path.unlink(missing_ok=True)
        try:
            import pooch

            pooch.get_logger().setLevel("WARNING")
            pooch.retrieve(url, None, name, cache_folder())
            if not genuine(path, sha256):
                path.unlink()
                raise OSError("its SHA-256 differs from the published file's")
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"cannot download {url} ({reason}): put the file at {path}, "
                f"or its path in ${variable}"
            ) from error
    return path


def genuine(path: Path, sha256: str) -> bool:
    """Whether the SHA-256 of the file at ``path`` begins with ``sha256``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(sha256)
