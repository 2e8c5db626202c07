"""Genotypes of admixed individuals, whose ancestry is known because they are simulated."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..plugins import InputError
from ..seeds import derive_seed
from .base import Dataset, Split, SplitName

BYTES = np.array([0, 128, 255], np.uint8)
"""What stands for 0, 1 and 2 copies of an allele: 0, one half (rounded up to a byte) and 1."""


@dataclass(frozen=True, kw_only=True)
class Individuals(Split):
    """A split that knows how its individuals descend from the ancestral populations.

    Attributes:
        proportions: Q, float64 (n, K), rows that sum to one.
    """

    proportions: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> "Individuals":
        changed = super().each(change)
        assert isinstance(changed, Individuals)
        return replace(changed, proportions=change(self.proportions))


class Genotypes(Dataset):
    r"""Genotypes of individuals admixed from K populations that drifted from one ancestor.

    .. math::
        q_i \sim \mathrm{Dir}(\alpha, \dots, \alpha), \quad
        p_{km} \sim \mathrm{Beta}\Bigl(\tfrac{1 - F}{F} a_m, \tfrac{1 - F}{F} (1 - a_m)\Bigr), \quad
        g_{im} \sim \mathrm{Bin}\bigl(2, \textstyle\sum_k q_{ik} p_{km}\bigr)

    The admixture model of Pritchard et al. 2000 (Genetics 155:945) with the allele frequencies of
    Balding and Nichols 1995 (Genetica 96:3), by which population genetics simulates (such as the R
    package bnpsd), because they are as far apart as one says: independent uniform frequencies have
    F = 1/3. The ancestral frequencies a are uniform in [0.05, 0.95].
    Proportions are of a symmetric Dirichlet distribution, as in the simulations of Alexander et al.
    2009 (Genome Research 19:1655).

    An image has a pixel a site, of the S² sites in any order: sites are independent, so neighbours
    have nothing in common. Its bytes 0, 128 and 255 stand for 0, 1 and 2 copies, so that a pixel of
    [0, 1] is g/2, up to 0.002 where it is one half. The label is the population of the largest
    proportion. Split 70 / 10 / 20 by a fixed permutation.

    Args:
        populations: K, the number of ancestral populations.
        size: S, the side of an image in pixels, 8 to 256.
        individuals: the number of images.
        alpha: α, the concentration of the proportions; small ones make individuals of one ancestry.
        fst: F, Wright's fixation index of the populations; 0.1 is about that of human continents.
        limits: ``train``, ``val`` and ``test``, see :class:`Dataset`.

    Raises:
        InputError: a parameter is out of range.
    """

    name = "genotypes"
    description = "5,000 simulated genotypes of admixed individuals, 1×32×32, 5 populations"

    def __init__(
        self,
        *,
        populations: int = 5,
        size: int = 32,
        individuals: int = 5_000,
        alpha: float = 0.2,
        fst: float = 0.1,
        **limits: Any,
    ) -> None:
        super().__init__(**limits)
        where = f"dataset {self.name!r}:"
        if populations < 1:
            raise InputError(f"{where} populations must be 1 or more, not {populations}")
        if not 8 <= size <= 256:
            raise InputError(f"{where} size must be 8 to 256, not {size}")
        if individuals < 1:
            raise InputError(f"{where} individuals must be 1 or more, not {individuals}")
        if not 0.01 <= alpha <= 1000:
            raise InputError(f"{where} alpha must be 0.01 to 1000, not {alpha}")
        if not 0 < fst < 1:
            raise InputError(f"{where} fst must be between 0 and 1, not {fst}")
        self.size = size
        self.parameters = (populations, size**2, individuals, alpha, fst)

    def load(self) -> dict[SplitName, Split]:
        images, proportions, _ = simulate(*self.parameters)
        pixels = images.unflatten(1, (1, self.size, self.size))
        return self.permuted(Individuals(pixels, proportions.argmax(1), proportions=proportions))

    def proportions(self, name: SplitName) -> Tensor:
        """Q of the split called ``name``, in its order and within its limits: float64 (n, K)."""
        split = self.split(name)
        assert isinstance(split, Individuals)
        return split.proportions

    @property
    def frequencies(self) -> Tensor:
        """P, how frequent the allele is at each site in each population: float64 (K, S²)."""
        return simulate(*self.parameters)[2]


@functools.lru_cache(maxsize=1)
def simulate(
    populations: int, sites: int, individuals: int, alpha: float, fst: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Genotypes in bytes (n, M), proportions (n, K), frequencies (K, M), drawn once a process."""
    frequencies, proportions, alleles = (
        np.random.default_rng(derive_seed(Genotypes.name, purpose))
        for purpose in ("frequencies", "proportions", "alleles")
    )
    ancestral, drift = frequencies.uniform(0.05, 0.95, sites), (1 - fst) / fst
    p = frequencies.beta(drift * ancestral, drift * (1 - ancestral), (populations, sites))
    q = proportions.dirichlet([alpha] * populations, individuals)
    # A product of matrices could depend on the number of threads, to the last bit.
    g = alleles.binomial(2, np.einsum("ik,km->im", q, p).clip(0, 1))
    return torch.from_numpy(BYTES[g]), torch.from_numpy(q), torch.from_numpy(p)
