"""How long the page of 200 models on 10 datasets with 10 seeds takes to open in Chromium."""

import shutil
import tempfile
from pathlib import Path

from ...plugins import InputError
from ..report.page import page
from ..results import Results
from . import synthetic
from .base import Table, spread

SIZE = (200, 10, 10, 11)
"""Models, datasets, seeds and metrics."""


def measure(pairs: int) -> Table:
    """The seconds until the leaderboard stands, and until all charts in view are drawn.

    Raises:
        InputError: playwright or Chromium is not installed.
    """
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        raise InputError("the table 'browser' needs playwright and Chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        rows = synthetic.rows(*SIZE)
        file = Path(folder) / "report.html"
        page([Results(Path(folder), rows, {}, {})], file)
        megabytes = file.stat().st_size / 1e6
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        stands, drawn = [], []
        for _ in range(pairs + 1):
            tab.goto(file.as_uri())
            tab.wait_for_selector("tbody td")
            stands.append(tab.evaluate("performance.now()") / 1000)
            tab.wait_for_selector("#seeds svg")
            drawn.append(tab.evaluate("performance.now()") / 1000)
        version = browser.version
        browser.close()
    # The first time the browser starts its own processes.
    found = [("the leaderboard stands", spread(stands[1:])), ("charts drawn", spread(drawn[1:]))]
    models, datasets, seeds, metrics = SIZE
    notes = (
        f"{models} models on {datasets} datasets, {seeds} seeds, {metrics} metrics: {len(rows):,} "
        f"rows, numbers alone, {megabytes:.1f} MB. Headless Chromium {version}; {pairs} times.",
    )
    return Table("Opening the page of 20,000 cells", ("until", "time"), tuple(found), notes)
