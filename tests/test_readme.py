"""What the README says is so."""

import re
from pathlib import Path

import pytest
import yaml
from aebench.benchmark import run
from aebench.benchmark.catalogue import with_catalogue
from aebench.benchmark.grid import read_grid, specs
from aebench.models import Autoencoder

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_its_tables_are_the_registrys() -> None:
    assert with_catalogue(README) == README, "make docs"


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_its_grid_expands() -> None:
    (text,) = blocks("yaml")
    settings = yaml.safe_load(text)
    assert len(specs(read_grid(settings)[1], "cpu")) == (1 + 3 * 2) * 5


def test_its_new_model_is_trained_and_ranked(tmp_path) -> None:
    (code,) = [block for block in blocks("python") if "class FreeBitsVAE" in block]
    assert len(code.splitlines()) <= 30
    file = tmp_path / "my.py"
    file.write_text(code)
    try:
        rows = run(
            "smoke",
            files=[file],
            models=["vae", "free_bits"],
            seeds=1,
            workers=1,
            device="cpu",
            out=tmp_path / "out",
        )
    finally:
        Autoencoder._choices.pop("free_bits", None)
    assert set(rows[rows.metric == "mse"].model) == {"vae", "free_bits"}
    kept = rows[(rows.model == "free_bits") & (rows.metric == "mse")]
    assert kept.hyperparameters.str.contains('"nats":0.1').all()
    assert "free_bits" in (tmp_path / "out" / "leaderboard.md").read_text()


@pytest.mark.parametrize("command", re.findall(r"^    aebench (\w+) ", README, flags=re.MULTILINE))
def test_its_commands_exist(command: str) -> None:
    from aebench.benchmark.cli import app

    names = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    assert command in names
