"""What is published: every table is that of the committed rows."""

import shutil
from pathlib import Path

import pytest
import yaml
from aebench.benchmark.publish import publish, published

ROOT = Path(__file__).resolve().parent.parent / "results"
FOLDERS = list(yaml.safe_load((ROOT / "published.yaml").read_text(encoding="utf-8")))
INPUTS = ("rows.csv", "specs.json", "details.json")
TABLES = ("leaderboard.csv", "leaderboard.md", "leaderboard.svg")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is published, made again from the rows alone."""
    root = tmp_path_factory.mktemp("results")
    for name in ("published.yaml", *(f"{folder}/{file}" for folder in FOLDERS for file in INPUTS)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    publish(root)
    return root


@pytest.mark.parametrize(
    "name",
    ["README.md", "reproductions.md", *(f"{folder}/{t}" for folder in FOLDERS for t in TABLES)],
)
def test_it_is_that_of_the_rows(made: Path, name: str) -> None:
    assert (made / name).read_bytes() == (ROOT / name).read_bytes(), "make docs"


def test_the_page_has_every_folder(made: Path) -> None:
    page = (made / "index.html").read_text(encoding="utf-8")
    for one in published(made):
        assert one.results.name in page
    assert (ROOT / "index.html").is_file()


def test_every_folder_of_rows_is_listed() -> None:
    assert {str(path.parent.relative_to(ROOT)) for path in ROOT.rglob("rows.csv")} == set(FOLDERS)
