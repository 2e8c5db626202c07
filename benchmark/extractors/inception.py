"""Inception-2015 as NVIDIA scripted it: the features of the published FID."""

import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...plugins import InputError
from ..weights import weights_file
from .base import Extractor

FILE = "inception-2015-12-05.pt"
URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{FILE}"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
AT_ONCE = 50
"""Images at a time: each is 299 pixels wide inside the network, whatever its own size."""


class Inception(Extractor):
    """The 2048 features of ``pool_3`` of the Inception network of 2015, TensorFlow's weights.

    NVIDIA's TorchScript file takes images of any size and resizes them to 299 pixels as the
    original program does. Grey images are repeated to three channels. The file is looked for at
    ``$AEBENCH_INCEPTION``, then in the cache folder, then downloaded there. Szegedy et al. 2015,
    arXiv:1512.00567; Heusel et al. 2017, arXiv:1706.08500.
    """

    name = "inception"
    description = "2048 features of Inception-2015, those of the published FID"

    def why_not(self) -> str:
        channels = self.dataset.shape[0]
        return "" if channels in (1, 3) else f"inception reads grey or RGB, not {channels} channels"

    @property
    def fingerprint(self) -> str:
        return SHA256

    @property
    def label(self) -> str:
        return "inception-2015-12-05"

    def features(self, images: Tensor) -> Tensor:
        return self._forward(images, return_features=True)

    def logits(self, images: Tensor) -> Tensor:
        """Logits (n, 1008) up to a constant an image: the logarithms of the probabilities.

        Without the bias of the last layer, as in the published Inception score.
        """
        probabilities = self._forward(images, no_output_bias=True)
        return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()

    @torch.no_grad()
    def _forward(self, images: Tensor, **asked: bool) -> Tensor:
        if why := self.why_not():
            raise InputError(why)
        # The network reads bytes and floats alike, on the scale of 0 to 255.
        scale = 1 if images.dtype == torch.uint8 else 255
        parts = []
        for some in images.split(AT_ONCE):
            parts.append(self._net(some.expand(-1, 3, -1, -1) * scale, **asked))
        return torch.cat(parts)

    @cached_property
    def _net(self) -> Any:
        path = inception_file()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location=self.device).eval()


def inception_file() -> Path:
    """The path of the network's file, see :func:`weights_file`."""
    return weights_file(FILE, URL, SHA256, "AEBENCH_INCEPTION")
