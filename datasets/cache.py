"""Where is kept what is downloaded or computed once on a machine."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """``$AEBENCH_CACHE``, or the user's cache folder; it need not exist."""
    chosen = os.environ.get("AEBENCH_CACHE")
    return Path(chosen).expanduser() if chosen else user_cache_path("aebench")
