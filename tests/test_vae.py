"""The VAE and the β-VAE."""

import pytest
import torch
from small import batch, make


def test_beta_weighs_the_kl_alone() -> None:
    data = batch()
    found = {}
    for beta in (0.0, 1.0, 4.0):
        model = make("beta_vae", beta=beta)
        torch.manual_seed(3)
        with torch.no_grad():
            found[beta] = model.losses(data)
    model = make("vae")
    torch.manual_seed(3)
    with torch.no_grad():
        plain = model.losses(data)
    assert found[0.0]["loss"] == found[0.0]["reconstruction"]
    difference = found[4.0]["loss"] - found[1.0]["loss"]
    assert float(difference) == pytest.approx(3 * float(found[1.0]["kl"]), rel=1e-4)
    assert plain == found[1.0]


def test_mean_log_weight_is_the_elbo() -> None:
    data = batch(n=4)
    model = make("vae", latent_dim=3)
    torch.manual_seed(0)
    with torch.no_grad():
        weights = model.log_weights(data.x, None, 20_000).mean(0)
        draws = [model.losses(data)["loss"] for _ in range(500)]
    assert -weights.mean() == pytest.approx(float(torch.stack(draws).mean()), rel=2e-3)
