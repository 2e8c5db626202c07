"""Vector quantisation: nearest vectors, passed gradients, moving averages."""

import pytest
import torch
from aebench.models import Batch
from small import batch, make, ready


def test_vq_vae_losses_do_not_depend_on_the_batch_size() -> None:
    data = batch(n=8)
    model = ready(make("vq_vae", decay=None), data).eval()
    double = Batch(torch.cat([data.x, data.x]))
    with torch.no_grad():
        single, doubled = model.losses(data), model.losses(double)
    for name, term in single.items():
        assert float(doubled[name]) == pytest.approx(float(term), rel=1e-5)


def test_vq_vae_quantises_to_the_nearest_vector_and_passes_the_gradient() -> None:
    model = make("vq_vae", codes=7, embedding_dim=3)
    z = torch.randn(2, 3, 4, 5)
    distances = torch.cdist(z.movedim(1, -1).reshape(-1, 3), model.codebook)
    assert torch.equal(model.nearest(z).flatten(), distances.argmin(1))
    quantised = model.vectors(model.nearest(z))
    assert torch.equal(model.nearest(quantised), model.nearest(z))
    data = batch(n=8)
    grown = torch.autograd.grad(
        model.losses(data)["reconstruction"], list(model.encoder.parameters())
    )
    assert all(gradient.abs().sum() > 0 for gradient in grown)


def test_vq_vae_codebook_follows_the_averages_of_its_vectors() -> None:
    model = make("vq_vae", codes=2, embedding_dim=1, decay=0.0)
    model.codebook.copy_(torch.tensor([[-1.0], [1.0]]))
    z = torch.tensor([-3.0, -1.0, 2.0, 4.0]).view(4, 1, 1, 1)
    model.follow(z, model.nearest(z))
    assert torch.allclose(model.codebook, torch.tensor([[-2.0], [3.0]]))
