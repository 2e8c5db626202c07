"""Autoencoders of the reconstruction alone."""

import pytest
import torch
from small import batch, make


def test_dae_without_corruption_is_ae_and_corrupts_as_told() -> None:
    data = batch()
    clean, noisy = make("ae"), make("dae", level=0.0)
    assert clean.losses(data)["loss"] == noisy.losses(data)["loss"]
    x = torch.full((200, 1, 8, 8), 0.5)
    assert (make("dae").corrupt(x) == 0).float().mean() == pytest.approx(0.25, abs=0.02)
    salted = make("dae", corruption="salt_and_pepper", level=0.4).corrupt(x)
    assert (salted == 0).float().mean() == pytest.approx(0.2, abs=0.02)
    assert (salted == 1).float().mean() == pytest.approx(0.2, abs=0.02)
    assert make("dae", corruption="gaussian", level=0.3).corrupt(x).std() == pytest.approx(
        0.3, abs=0.01
    )
