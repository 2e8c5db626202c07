"""VGG-19 as torchvision has it: the features of perceptual losses."""

from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...plugins import InputError
from ..weights import weights_file
from .base import Extractor, unit

FILE = "vgg19-dcbb9e9d.pth"
URL = f"https://download.pytorch.org/models/{FILE}"
SHA256 = "dcbb9e9d"
"""How it begins, as PyTorch's names have it."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours in [0, 1]."""
STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and number of the 3 × 3 convolutions between poolings."""


class Vgg19(Extractor):
    """The maps after relu1_1, relu2_1 and relu3_1 of VGG-19; its features are the last one's means.

    They are the "123" of the DFC-VAE (Hou et al. 2017, arXiv:1610.00291). Grey is repeated to three
    channels, and ImageNet's mean and deviation are taken out. The 256 features are the last map's
    means over positions. The file of torchvision's weights is looked for at ``$AEBENCH_VGG19``,
    then in the cache folder, then downloaded there. Simonyan and Zisserman 2015, arXiv:1409.1556.

    Attributes:
        at: the convolutions after which a map is taken, of all sixteen from 0.
        least: the pixels that are pooled to one on the way to the last of them.
    """

    name = "vgg19"
    description = "feature maps of VGG-19's first three stages, trained on ImageNet"
    at: ClassVar[tuple[int, ...]] = (0, 2, 4)
    least: ClassVar[int] = 4

    def why_not(self) -> str:
        channels, *sides = self.dataset.shape
        if min(sides) < self.least:
            return f"{self.name} reads images of {self.least} pixels or more, not {min(sides)}"
        return (
            "" if channels in (1, 3) else f"{self.name} reads grey or RGB, not {channels} channels"
        )

    @property
    def fingerprint(self) -> str:
        return f"{FILE} {self.at}"

    def maps(self, images: Tensor) -> list[Tensor]:
        if why := self.why_not():
            raise InputError(why)
        x, found = unit(images).expand(-1, 3, -1, -1), []
        x = (x - x.new_tensor(MEAN).view(3, 1, 1)) / x.new_tensor(DEVIATION).view(3, 1, 1)
        for stage in self._stages:
            x = stage(x)
            found.append(x)
        return found

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        return self.maps(images)[-1].mean((2, 3))

    @cached_property
    def _stages(self) -> nn.ModuleList:
        """The network up to the last map, in a part for each."""
        path = weights_file(FILE, URL, SHA256, "AEBENCH_VGG19")
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        stages, layers = nn.ModuleList(), []
        channels, index, count = 3, 0, 0  # the index is that of torchvision's layers
        for width, depth in STAGES:
            for _ in range(depth):
                convolution = nn.Conv2d(channels, width, 3, padding=1)
                convolution.load_state_dict(
                    {key: state[f"features.{index}.{key}"] for key in ("weight", "bias")}
                )
                layers += [convolution, nn.ReLU()]
                if count in self.at:
                    stages.append(nn.Sequential(*layers))
                    layers = []
                if count == self.at[-1]:
                    return stages.to(self.device).requires_grad_(False).eval()
                channels, index, count = width, index + 2, count + 1
            layers.append(nn.MaxPool2d(2))
            index += 1
        raise AssertionError


class Vgg19Deep(Vgg19):
    """The maps after relu3_1, relu4_1 and relu5_1 of VGG-19: the "345" of the DFC-VAE.

    All else is as of ``vgg19``; the features are 512.
    """

    name = "vgg19_345"
    description = "feature maps of VGG-19's last three stages, trained on ImageNet"
    at = (4, 8, 12)
    least = 16
