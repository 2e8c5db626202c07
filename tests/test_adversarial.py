"""Adversarial losses and whose networks they reach."""

import torch
from small import batch, make


def test_aae_losses_stay_in_their_own_networks() -> None:
    data = batch()
    model = make("aae").train()
    model.discriminator_losses(data)["loss"].backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is None for p in model.decoder.parameters())
    assert all(p.grad is not None for p in model.discriminator.parameters())

    # The encoder's loss goes through the discriminator, and still does not step it.
    optimizers = model.configure_optimizers()
    for silent in optimizers[:2]:
        for group in silent.param_groups:
            group["lr"] = 0.0
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.step(data, optimizers)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.startswith("encoder.")}
