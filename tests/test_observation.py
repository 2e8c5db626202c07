"""Observation models and the diagonal normal against torch.distributions."""

import torch
from aebench.models.observation import Bernoulli, Gaussian
from aebench.models.vae import DiagonalNormal


def test_bernoulli_and_gaussian_match_torch_distributions() -> None:
    raw, x = torch.randn(5, 3, 4, 4), torch.rand(5, 3, 4, 4)
    expected = torch.distributions.Normal(raw.sigmoid(), 0.3).log_prob(x).sum((1, 2, 3))
    assert torch.allclose(Gaussian(0.3).log_prob(raw, x), expected, rtol=1e-5)
    binary = x.round()
    expected = torch.distributions.Bernoulli(logits=raw).log_prob(binary).sum((1, 2, 3))
    assert torch.allclose(Bernoulli().log_prob(raw, binary), expected, rtol=1e-5)


def test_diagonal_normal_matches_torch_distributions() -> None:
    mean, log_variance, z = torch.randn(3, 6, 4)
    ours = DiagonalNormal(mean, log_variance)
    theirs = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    standard = torch.distributions.Normal(torch.zeros(4), torch.ones(4))
    assert torch.allclose(ours.log_prob(z), theirs.log_prob(z).sum(-1), rtol=1e-5, atol=1e-5)
    kl = torch.distributions.kl_divergence(theirs, standard)
    assert torch.allclose(ours.kl_to_standard(), kl, rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    drawn = ours.sample(200_000)
    assert torch.allclose(drawn.mean(0), mean, atol=0.03)
    assert torch.allclose(drawn.std(0), (0.5 * log_variance).exp(), rtol=0.02)
