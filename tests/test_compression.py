"""Metrics of compression: closed forms and invariants."""

import math
from typing import Any

import pytest
import torch
from aebench.benchmark.metrics import Fitted
from aebench.benchmark.metrics.compression import (
    Rate,
    code_lengths,
    fixed_rate,
    perplexity,
    usage,
)
from aebench.benchmark.metrics.reconstruction import PSNR
from aebench.datasets import Split
from aebench.models.classical import KMeans
from standins import Echo, Held, Pixels, fitted_echo, noise_images, spec
from torch import Tensor


class Coarse(Echo):
    """The symbol of a pixel is its grey level in steps of 64, its image the step's lower end."""

    alphabet = 4

    def symbols(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return (x * 255 + 0.5).long() // 64

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return super().code(self.symbols(x) * 64 / 255)


def fitted_coarse(train: Tensor, test: Tensor, **kwargs: Any) -> Fitted:
    class TwoSplits(Held):
        def load(self) -> dict[Any, Split]:
            return {"train": Split(train), "val": Split(train), "test": Split(test)}

    dataset = TwoSplits(train)
    return Fitted(Coarse(spec(dataset)), dataset, Pixels(dataset), **kwargs)


def test_rates_of_uniform_symbols() -> None:
    images = (torch.arange(40 * 12) % 4 * 64 + 7).view(40, 3, 2, 2).to(torch.uint8)
    found = Rate().compute(fitted_echo(images, Coarse))
    assert found == pytest.approx(
        {
            "rate": 24,  # two bits for each of 12 values
            "rate_entropy": 24,
            "bits_per_pixel": 6,  # of three channels
            "rate_psnr": 20 * math.log10(255 / 7),
            "codebook_usage": 1,
            "codebook_perplexity": 4,
        },
        rel=1e-5,
    )


def test_the_entropy_code_is_fitted_to_the_train_split_and_scored_on_test() -> None:
    train = torch.zeros(5, 1, 2, 3, dtype=torch.uint8)
    train[0] = 64  # six of thirty symbols are 1, the others 0
    test = torch.full((7, 1, 2, 3), 64, dtype=torch.uint8)
    test[:, :, 1] = 192  # which the train split has never had
    found = Rate().compute(fitted_coarse(train, test))
    assert found["rate_entropy"] == pytest.approx(-3 * math.log2(7 / 34) - 3 * math.log2(1 / 34))
    assert found["rate"] == 12
    assert found["codebook_usage"] == 0.5
    assert found["codebook_perplexity"] == pytest.approx(2)
    same = Rate().compute(fitted_coarse(train, train[1:]))
    assert same["rate_entropy"] == pytest.approx(-6 * math.log2(25 / 34))
    assert (same["codebook_usage"], same["codebook_perplexity"]) == (0.25, 1)


def test_the_code_is_fitted_to_as_many_images_as_asked() -> None:
    train, test = noise_images(30, 1, 2, 3), noise_images(20, 1, 2, 3, seed=1)
    fitted = fitted_coarse(train, test)
    seen = fitted.split("train").images()[:8].long() // 64
    symbols = fitted.split("test").images().long() // 64
    lengths = code_lengths(seen, 4)
    metric = Rate(train=8)
    expected = lengths[symbols].flatten(1).sum(1).mean().item()
    assert metric.compute(fitted)["rate_entropy"] == pytest.approx(expected)
    assert expected != pytest.approx(Rate().compute(fitted)["rate_entropy"], rel=1e-6)
    assert "20 images of the test split" in metric.estimator(fitted)
    assert "8 images of the train split" in metric.estimator(fitted)


def test_code_lengths_are_those_of_a_code() -> None:
    symbols = torch.tensor([[0, 0, 3], [0, 3, 0]])
    lengths = code_lengths(symbols, 5)
    assert lengths.exp2().reciprocal().tolist() == pytest.approx(
        [5 / 11, 1 / 11, 1 / 11, 3 / 11, 1 / 11]
    )
    assert lengths.exp2().reciprocal().sum().item() == pytest.approx(1)  # Kraft's inequality
    assert fixed_rate(49, 512) == 49 * 9
    assert fixed_rate(3, 1) == 0


@pytest.mark.parametrize(
    ("symbols", "share", "number"),
    [
        ([3, 3, 3, 3], 1 / 8, 1),
        ([0, 1, 2, 3, 4, 5, 6, 7], 1, 8),
        ([7, 1, 1, 7], 1 / 4, 2),
        ([0, 0, 0, 5], 1 / 4, 4 / 3**0.75),
    ],
)
def test_use_of_the_codebook(symbols: list[int], share: float, number: float) -> None:
    held = torch.tensor(symbols)
    assert usage(held, 8) == share
    assert perplexity(held) == pytest.approx(number)
    assert perplexity(held.repeat(3).view(3, 2, -1)) == pytest.approx(number)


def test_k_means_takes_one_symbol() -> None:
    images = noise_images(90, 1, 4, 4)
    images[::3] //= 8
    dataset = Held(images)
    model = KMeans(spec(dataset), clusters=8, n_init=1)
    model.fit(images.float() / 255, 0)
    fitted = Fitted(model, dataset, Pixels(dataset))
    found = Rate().compute(fitted)
    assert found["rate"] == 3
    assert found["bits_per_pixel"] == 3 / 16
    assert found["rate_psnr"] == pytest.approx(PSNR().compute(fitted)["psnr"])
    # The code is fitted to the very images, so it is at most the smoothing worse than entropy.
    entropy = math.log2(found["codebook_perplexity"])
    assert entropy <= found["rate_entropy"] < entropy + 0.1


def test_rates_do_not_depend_on_the_batch_size_and_need_symbols() -> None:
    train, test = noise_images(30, 1, 2, 3), noise_images(20, 1, 2, 3, seed=1)
    values = [Rate().compute(fitted_coarse(train, test, batch_size=size)) for size in (500, 7)]
    assert values[0] == pytest.approx(values[1])
    assert Rate().lacks(fitted_echo(test)) == "the model has no symbols"
    assert Rate().qualifier(fitted_echo(test)) == ""
