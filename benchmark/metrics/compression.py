"""How many bits the discrete code of an image takes, and what image they buy."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from ...datasets import SplitName, as_float
from .base import Fitted, Metric, Quantity, Values
from .reconstruction import PSNR_CAP, psnr

AT_ONCE = 500
"""Images at a time. Not the batch size: rounding could turn a nearest code into another, and no
value may depend on the batch size."""


def fixed_rate(positions: int, alphabet: int) -> float:
    r"""Bits of a code of so many symbols, each of ``alphabet`` values, all of one length.

    .. math:: \mathrm{positions} \cdot \log_2 \mathrm{alphabet}
    """
    return positions * math.log2(alphabet)


def code_lengths(symbols: Tensor, alphabet: int) -> Tensor:
    r"""The bits of each symbol in a code fitted to symbols: float64 (alphabet,).

    .. math:: -\log_2 \frac{n_s + 1}{\sum_t (n_t + 1)}

    Every symbol counts as seen once more than it was, so that none has no code word. A fraction of
    a bit counts as such: an arithmetic coder comes as near to it as one likes.

    Args:
        symbols: int64 of any shape, in [0, alphabet).
        alphabet: how many there are.
    """
    counts = torch.bincount(symbols.flatten().cpu(), minlength=alphabet).double() + 1
    return -(counts / counts.sum()).log2()


def usage(symbols: Tensor, alphabet: int) -> float:
    """The share of the alphabet's values that occur among symbols int64 of any shape."""
    return len(symbols.unique()) / alphabet


def perplexity(symbols: Tensor) -> float:
    r"""How many values are in use, as many as were equally frequent at the same entropy.

    .. math:: \exp\big(-\sum_s f_s \ln f_s\big)

    f being the frequencies of symbols int64 of any shape, at least one: from 1 to the alphabet.
    """
    counts = symbols.unique(return_counts=True)[1].double()
    return torch.special.entr(counts / counts.sum()).sum().exp().item()


class Rate(Metric):
    """The bits of a test image's symbols, and the PSNR of what the decoder makes of them.

    By symbols of one length (:func:`fixed_rate`), and by a code fitted to the symbols of training
    images, the same at every position (:func:`code_lengths`). A rate says nothing without its
    distortion, nor a distortion without its rate: the PSNR is that of :class:`PSNR`, beside it.
    The first is the choice of whoever built the model, the second what its training made of it.

    Args:
        train: the first so many images of the training split, to which the code is fitted; None
            takes all.
    """

    name = "rate"
    family = "compression"
    needs = ("symbols",)
    quantities: ClassVar = (
        Quantity("rate", "lower", "bits", low=0),
        Quantity("rate_entropy", "lower", "bits", low=0, ranked=False),
        Quantity("bits_per_pixel", "lower", "bits", low=0, ranked=False),
        Quantity("rate_psnr", "higher", "dB", low=0, high=PSNR_CAP),
        Quantity("codebook_usage", "higher", low=0, high=1, ranked=False),
        Quantity("codebook_perplexity", "higher", low=1, ranked=False),
    )
    source = "Shannon 1948, Bell Syst. Tech. J. 27:379; van den Oord et al. 2017, arXiv:1711.00937"
    description = "bits of an image's discrete code, the image they buy, and the codebook's use"

    def __init__(self, *, train: int | None = 10_000) -> None:
        self.at_least(1, train=train)
        self.train = train

    @torch.no_grad()
    def compute(self, fitted: Fitted, sampler: str = "") -> Values:
        alphabet, height_width = fitted.model.alphabet, fitted.dataset.shape[1:]
        reconstructions = fitted.reconstructions("test").split(fitted.batch_size)
        pairs = zip(fitted.batches("test"), reconstructions)
        distortion = torch.cat([psnr(x.cpu(), other) for (x, _), other in pairs])
        symbols = self.symbols(fitted, "test", None)
        lengths = code_lengths(self.symbols(fitted, "train", self.train), alphabet)
        rate = fixed_rate(symbols.shape[1], alphabet)
        return {
            "rate": rate,
            "rate_entropy": lengths[symbols].sum(1).mean().item(),
            "bits_per_pixel": rate / math.prod(height_width),
            "rate_psnr": distortion.mean().item(),
            "codebook_usage": usage(symbols, alphabet),
            "codebook_perplexity": perplexity(symbols),
        }

    def symbols(self, fitted: Fitted, name: SplitName, limit: int | None) -> Tensor:
        """The symbols of a split's first ``limit`` images: int64 (n, positions), on the CPU."""
        batches = fitted.split(name).take(slice(limit)).batches(AT_ONCE)
        found = [fitted.model.symbols(as_float(x), y).cpu() for x, y in batches]
        return torch.cat(found).flatten(1)

    def qualifier(self, fitted: Fitted) -> str:
        return fitted.model.given

    def estimator(self, fitted: Fitted) -> str:
        n = len(fitted.dataset.split("test"))
        seen = len(fitted.dataset.split("train").take(slice(self.train)))
        return (
            f"mean over {n} images of the test split; entropy code of one histogram fitted to "
            f"{seen} images of the train split; a pixel is a place, not a channel"
        )
