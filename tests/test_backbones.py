"""Backbones have the sizes they promise and refuse what they cannot serve."""

import pytest
import torch
from aebench.plugins import InputError
from small import backbone


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64)])
def test_pythae_conv_has_the_originals_sizes(shape: tuple[int, int, int]) -> None:
    net = backbone("pythae_conv")
    encoder, decoder = net.encoder(shape, 16), net.decoder(16, shape)
    x = torch.rand(2, *shape)
    assert decoder(encoder(x)).shape == x.shape
    # Counted on the original classes of Pythae 0.1.2 with latent_dim 16.
    counts = {
        28: (11_034_256, 6_181_377),
        32: (11_087_504, 11_614_467),
        64: (11_284_112, 18_329_603),
    }
    found = tuple(sum(p.numel() for p in part.parameters()) for part in (encoder, decoder))
    assert found == counts[shape[1]]


def test_conv_refuses_images_out_of_its_range() -> None:
    with pytest.raises(InputError, match="8 to 256"):
        backbone("conv").encoder((1, 4, 4), 8)
