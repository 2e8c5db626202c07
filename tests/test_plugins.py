"""Classes that register by being defined, and what is made of bad input."""

import sys

import pytest
from aebench.models import Autoencoder
from aebench.plugins import InputError, checked, load_file
from aebench.seeds import derive_seed


def test_a_users_file_adds_a_choice_with_its_parents_parameters(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from typing import Any\n"
        "from aebench.models import VAE, DataSpec, Backbone\n"
        "class Mine(VAE):\n"
        "    name = 'mine'\n"
        "    def __init__(self, data: DataSpec, backbone: Backbone, *, strength: float = 2.0,\n"
        "                 **kwargs: Any) -> None:\n"
        "        super().__init__(data, backbone, **kwargs)\n"
    )
    try:
        assert load_file(file) is load_file(str(file))
        assert "mine" in Autoencoder.choices()
        complete = Autoencoder.choose("mine").complete({"strength": "1e-3"})
        assert complete["strength"] == 0.001
        assert complete["likelihood"] == "bernoulli", "the default of the parent that states it"
    finally:
        Autoencoder._choices.pop("mine", None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nothing_of_this_name\n", "nothing_of_this_name"),
        ("def broken(:\n", "invalid syntax"),
        ("from aebench.models import VAE\n", "defines nothing to choose"),
        (
            "from aebench.models import VAE\nclass A(VAE):\n    name = 'vae'\n",
            "model 'vae' is already defined in aebench.models.vae",
        ),
    ],
)
def test_a_users_file_that_cannot_be_used(tmp_path, text: str, says: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(text)
    before = set(sys.modules)
    with pytest.raises(InputError, match=says) as error:
        load_file(file)
    assert str(file) in str(error.value)
    assert not [name for name in set(sys.modules) - before if name.startswith("aebench_file")]
    assert Autoencoder.choose("vae").__module__ == "aebench.models.vae"


def test_unknown_names_are_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(InputError, match=r"unknown model 'beta-vae' \(did you mean 'beta_vae'\?\)"):
        Autoencoder.choose("beta-vae")
    with pytest.raises(InputError, match=r"no parameter 'latent_dims'.*latent_dim"):
        Autoencoder.choose("vae").complete({"latent_dims": 3})


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, 1.0),
        ("1e-3", float, 1e-3),
        ([1, 2], tuple[int, ...], (1, 2)),
        (None, int | None, None),
        (3, int | None, 3),
        ("a", str, "a"),
    ],
)
def test_values_are_read_as_their_type(value, hint, expected) -> None:
    found = checked(value, hint, "here")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint"),
    [(1.5, int), (True, int), (True, float), ("x", float), (3, str), ([1.5], tuple[int, ...])],
)
def test_values_of_another_type_are_refused(value, hint) -> None:
    with pytest.raises(InputError, match="here"):
        checked(value, hint, "here")


def test_seeds_depend_on_their_names_alone() -> None:
    assert derive_seed("a", 1, "b") == 590_678_194  # published results rest on it
    assert len({derive_seed("a", i) for i in range(1000)}) == 1000
    assert derive_seed("a", "bc") != derive_seed("ab", "c")
