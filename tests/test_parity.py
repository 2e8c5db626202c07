"""Losses beside those of Pythae 0.1.2, on the same weights, images and noise.

Where Pythae is right ours is equal, up to constants that the tests name; where it departs from the
paper a test names the difference. Skipped unless ``pythae`` is installed.
"""

import math
from typing import Any

import pytest
import torch
from aebench.models import Autoencoder
from aebench.models.flows import planar
from aebench.models.similarity import ms_ssim
from aebench.plugins import InputError
from small import batch, make
from torch import Tensor, nn

pythae = pytest.importorskip("pythae")
models = pytest.importorskip("pythae.models")

SHAPE = (1, 8, 8)
LATENT = 3
HALF_LOG_2PI = 0.5 * math.prod(SHAPE) * math.log(2 * math.pi)
"""What a Gaussian of σ = 1 adds to half the squared error, which Pythae leaves out."""


def ours(name: str, **hyperparameters: Any) -> Autoencoder:
    return make(name, SHAPE, latent_dim=LATENT, **hyperparameters)


def theirs(name: str, model: Autoencoder, **config: Any) -> Any:
    """Pythae's model ``name`` on the networks of ``model``."""
    nets = pythae.models.nn
    output = pythae.models.base.base_utils.ModelOutput

    class Encoder(nets.BaseEncoder):
        def __init__(self) -> None:
            nets.BaseEncoder.__init__(self)
            self.net = model.encoder

        def forward(self, x: Tensor) -> Any:
            found = self.net(x)
            if found.ndim == 2 and found.shape[1] == 2 * LATENT:
                mean, log_variance = found.chunk(2, dim=1)
                return output(embedding=mean, log_covariance=log_variance)
            return output(embedding=found)

    class Decoder(nets.BaseDecoder):
        def __init__(self) -> None:
            nets.BaseDecoder.__init__(self)
            self.net = model.decoder

        def forward(self, z: Tensor) -> Any:
            return output(reconstruction=torch.sigmoid(self.net(z)))

    settings = getattr(models, f"{name}Config", None) or getattr(models, f"{name}_Config")
    config = {"input_dim": SHAPE, "latent_dim": LATENT, **config}
    return getattr(models, name)(settings(**config), encoder=Encoder(), decoder=Decoder())


class Noise:
    """Standard normal draws that are given, in order, for both libraries; torch's own after."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.queue: list[Tensor] = []
        self.draw = torch.randn
        patch.setattr(torch, "randn", lambda *shape, **_: self.take(shape))
        patch.setattr(torch, "randn_like", lambda like, **_: self.take(like.shape))

    def take(self, shape: Any) -> Tensor:
        drawn = self.queue.pop(0) if self.queue else self.draw(*shape)
        assert drawn.shape == tuple(shape)
        return drawn


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> Noise:
    return Noise(monkeypatch)


def normal(*shape: int, seed: int = 5) -> Tensor:
    return torch.empty(shape).normal_(generator=torch.Generator().manual_seed(seed))


def gradients(loss: Tensor, *networks: nn.Module) -> list[Tensor]:
    parameters = [p for network in networks for p in network.parameters()]
    return list(torch.autograd.grad(loss, parameters))


def close(found: list[Tensor], expected: list[Tensor], rtol: float = 1e-4) -> bool:
    return all(torch.allclose(a, b, rtol=rtol, atol=1e-6) for a, b in zip(found, expected))


X = batch(SHAPE, 6).x
DATA = {"data": X}


def test_ae_is_half_of_theirs() -> None:
    """Pythae's squared error has no half."""
    model = ours("ae")
    loss = theirs("AE", model)(DATA).loss
    assert float(model.losses(batch(SHAPE, 6))["loss"].detach()) == pytest.approx(
        float(loss.detach()) / 2 + HALF_LOG_2PI, rel=1e-6
    )


@pytest.mark.parametrize(
    ("likelihood", "reconstruction", "constant"),
    [("bernoulli", "bce", 0.0), ("gaussian", "mse", HALF_LOG_2PI)],
)
@pytest.mark.parametrize(
    ("name", "their_name", "parameters"),
    [("vae", "VAE", {}), ("beta_vae", "BetaVAE", {"beta": 3.0})],
)
def test_vae_and_beta_vae_are_equal(
    name: str,
    their_name: str,
    parameters: dict[str, float],
    likelihood: str,
    reconstruction: str,
    constant: float,
    noise: Noise,
) -> None:
    model = ours(name, likelihood=likelihood, **parameters)
    other = theirs(their_name, model, reconstruction_loss=reconstruction, **parameters)
    noise.queue = [normal(6, LATENT)] * 2
    found, expected = model.losses(batch(SHAPE, 6)), other(DATA)
    assert float(found["loss"]) == pytest.approx(float(expected.loss) + constant, rel=1e-5)
    assert float(found["kl"]) == pytest.approx(float(expected.reg_loss), rel=1e-5)


def test_vq_vae_sums_where_theirs_averages() -> None:
    """Pythae adds a mean over positions and dimensions to a sum over pixels."""
    model = ours("vae")  # for its shapes alone
    vq = make("vq_vae", SHAPE, codes=8, embedding_dim=LATENT, decay=None)
    config = {"num_embeddings": 8, "use_ema": False, "commitment_loss_factor": 0.25}
    model.encoder, model.decoder = vq.encoder, vq.decoder
    other = theirs("VQVAE", model, **config)
    other.quantizer.embeddings.weight.data.copy_(vq.codebook)
    with torch.no_grad():
        found, expected = vq.losses(batch(SHAPE, 6)), other(DATA)
        latent = vq.encoder(X)[0].numel()
        assert latent > 1
        assert float(found["reconstruction"]) == pytest.approx(
            float(expected.recon_loss) / 2 + HALF_LOG_2PI, rel=1e-5
        )
        added = float(found["loss"] - found["reconstruction"])
        assert added == pytest.approx(latent * float(expected.vq_loss), rel=1e-4)


def importance_pair(name: str, their_name: str, shape: tuple[int, ...], noise: Noise) -> Any:
    """Our model, its terms and their output, on one noise of ``shape`` draws an image."""
    sizes = dict(zip(("samples",) if len(shape) == 1 else ("estimates", "samples"), shape))
    model = ours(name, **sizes)
    keys = {"samples": "number_samples", "estimates": "number_gradient_estimates"}
    config: dict[str, Any] = {keys[key]: size for key, size in sizes.items()}
    if name == "ciwae":
        config["beta"] = 0.05
    other = theirs(their_name, model, reconstruction_loss="bce", **config)
    drawn = normal(*shape, 6, LATENT)
    noise.queue = [drawn.flatten(0, -3), drawn.movedim(-2, 0)]
    return model, model.losses(batch(SHAPE, 6)), other(DATA)


@pytest.mark.parametrize(("name", "their_name"), [("iwae", "IWAE"), ("ciwae", "CIWAE")])
def test_bounds_of_k_samples_have_the_same_gradient(
    name: str, their_name: str, noise: Noise
) -> None:
    """Pythae reports the weighted surrogate of the bound, which has its gradient, not its value."""
    model, found, expected = importance_pair(name, their_name, (5,), noise)
    networks = (model.encoder, model.decoder)
    assert close(gradients(found["loss"], *networks), gradients(expected.loss, *networks))
    assert float(found["loss"].detach()) != pytest.approx(float(expected.loss.detach()), abs=0.01)


def test_miwae_of_theirs_swaps_bounds_and_samples(noise: Noise) -> None:
    """Pythae sums over its ``number_gradient_estimates`` within the logarithm."""
    model, found, expected = importance_pair("miwae", "MIWAE", (2, 5), noise)
    right = gradients(found["loss"], model.encoder)
    assert not close(right, gradients(expected.loss, model.encoder), rtol=1e-2)
    swapped = ours("miwae", estimates=2, samples=5)
    other = theirs(
        "MIWAE",
        swapped,
        reconstruction_loss="bce",
        number_gradient_estimates=5,
        number_samples=2,
    )
    drawn = normal(2, 5, 6, LATENT)
    noise.queue = [drawn.flatten(0, 1), drawn.permute(2, 1, 0, 3)]
    right = gradients(swapped.losses(batch(SHAPE, 6))["loss"], swapped.encoder)
    assert close(right, gradients(other(DATA).loss, swapped.encoder))


def test_piwae_of_theirs_sends_both_losses_to_the_encoder(noise: Noise) -> None:
    """Its trainer steps the encoder with what both losses left there, ours with the MIWAE's."""
    model = ours("piwae", estimates=3, samples=3)
    config = {"number_gradient_estimates": 3, "number_samples": 3, "reconstruction_loss": "bce"}
    other = theirs("PIWAE", model, **config)
    drawn = normal(3, 3, 6, LATENT)
    noise.queue = [drawn.flatten(0, 1)] * 2 + [drawn.permute(2, 1, 0, 3)]
    objectives = {objective.name: objective for objective in model.objectives()}
    found = {
        name: list(torch.autograd.grad(o.terms(batch(SHAPE, 6))["loss"], o.parameters))
        for name, o in objectives.items()
    }
    output = other(DATA)
    parameters = list(model.encoder.parameters())
    sums = [
        torch.autograd.grad(loss.mean(), parameters, retain_graph=True)
        for loss in (output.encoder_loss, output.decoder_loss)
    ]
    assert close(found["encoder"], list(sums[0]))
    assert close(found["decoder"], gradients(output.decoder_loss.mean(), model.decoder))
    both = [a + b for a, b in zip(*sums)]
    assert not close(found["encoder"], both, rtol=1e-2)


def test_rae_l2_is_half_of_theirs_but_for_the_decoders_decay() -> None:
    """Pythae decays the decoder in its optimiser; our penalty is a term."""
    model = ours("rae_l2", beta=0.02, weight=0.003)
    other = theirs("RAE_L2", model, embedding_weight=2 * 0.02)
    with torch.no_grad():
        found, expected = model.losses(batch(SHAPE, 6)), other(DATA)
        squares = sum(float(p.square().sum()) for p in model.decoder.parameters())
    assert float(found["penalty"]) == pytest.approx(squares, rel=1e-5)
    assert float(found["loss"]) == pytest.approx(
        float(expected.loss) / 2 + HALF_LOG_2PI + 0.003 * squares, rel=1e-5
    )


def test_rae_gp_of_theirs_differentiates_by_the_image() -> None:
    """A code that does not follow the image leaves their penalty nothing to see of the decoder."""
    model = ours("rae_gp", probes=LATENT)
    other = theirs("RAE_GP", model)
    model.encoder[1].weight.data.zero_()
    output = other({"data": X.clone().requires_grad_()})
    assert float(output.gen_reg_loss.detach()) == 0
    assert float(model.losses(batch(SHAPE, 6))["penalty"].detach()) > 1e-3


def test_vampprior_is_equal_without_the_bias_of_their_pseudo_inputs(noise: Noise) -> None:
    model = ours("vampprior_vae", components=7, warmup=0.0)
    other = theirs("VAMP", model, number_components=7, reconstruction_loss="bce")
    other.pseudo_inputs[0].weight.data.copy_(model.pseudo_inputs.flatten(1).T)
    noise.queue = [normal(6, LATENT)] * 2
    with torch.no_grad():
        biased = other(DATA)
        other.pseudo_inputs[0].bias.zero_()
        noise.queue = [normal(6, LATENT)] * 2
        found, expected = model.losses(batch(SHAPE, 6)), other(DATA)
    assert float(found["loss"]) == pytest.approx(float(expected.loss), rel=1e-5)
    assert float(biased.loss) != pytest.approx(float(expected.loss), rel=1e-6)


def test_capacity_is_theirs_for_one_image(noise: Noise) -> None:
    """Pythae compares every image's KL with C, so that its loss is never below ours."""
    model = ours("capacity_vae", gamma=10.0, capacity=2.0)
    other = theirs("DisentangledBetaVAE", model, beta=10.0, C=2.0, reconstruction_loss="bce")
    with torch.no_grad():
        # Pythae's capacity is at epoch / (warm-up + 1) of C, which for no warm-up is reached at 1.
        other.warmup_epoch = 0
        noise.queue = [normal(1, LATENT)] * 2
        one = batch(SHAPE, 6)
        found = model.losses(type(one)(one.x[:1]))
        expected = other({"data": X[:1]}, epoch=1)
        assert float(found["loss"]) == pytest.approx(float(expected.loss), rel=1e-5)
        model.encoder[-1].weight.mul_(30)  # so that images differ in their KL
        noise.queue = [normal(6, LATENT)] * 2
        assert float(model.losses(one)["kl"]) > 2.0
        noise.queue = [normal(6, LATENT)] * 2
        model.capacity = other.C = float(model.losses(one)["kl"])
        found, expected = model.losses(one), other(DATA, epoch=1)
    assert float(found["distance"]) == pytest.approx(0, abs=1e-3)
    assert float(expected.loss) > float(found["loss"]) + 1


@pytest.mark.parametrize("sampling", ["mws", "mss"])
def test_beta_tcvae_is_equal_but_for_stratified_weights(sampling: str, noise: Noise) -> None:
    """Pythae's stratified weights fill columns, so that their rows do not sum to 1."""
    settings = {"alpha": 2.0, "beta": 6.0, "gamma": 3.0}
    model = ours("beta_tcvae", sampling=sampling, **settings)
    config = settings | {"use_mss": sampling == "mss", "reconstruction_loss": "bce"}
    other = theirs("BetaTCVAE", model, **config)
    noise.queue = [normal(6, LATENT)] * 2
    with torch.no_grad():
        found, expected = model.losses(batch(SHAPE, 6)), other(DATA, dataset_size=64)
    equal = float(found["loss"]) == pytest.approx(float(expected.loss), rel=1e-5)
    assert equal == (sampling == "mws")
    rows = other._log_importance_weight_matrix(6, 64).exp().sum(1)
    assert (rows - 1).abs().max() > 0.1
    if sampling == "mss":
        assert torch.allclose(model.weights(6).sum(1), torch.ones(6))


def test_info_vae_is_equal_where_its_weight_is_not_negative(noise: Noise) -> None:
    """At Pythae's defaults, α = 0 and λ = 0.001, the discrepancy is maximised; ours refuses."""
    settings = {"alpha": 0.3, "lambd": 20.0}
    model = ours("info_vae", kernel="imq", **settings)
    other = theirs("INFOVAE_MMD", model, alpha=0.3, lbd=20.0, reconstruction_loss="bce")
    noise.queue = [normal(6, LATENT), normal(6, LATENT, seed=8)] * 2
    with torch.no_grad():
        found, expected = model.losses(batch(SHAPE, 6)), other(DATA)
    assert float(found["mmd"]) == pytest.approx(float(expected.mmd_loss), rel=1e-4)
    assert float(found["loss"]) == pytest.approx(float(expected.loss), rel=1e-5)
    theirs_by_default = theirs("INFOVAE_MMD", model)
    assert theirs_by_default.alpha + theirs_by_default.lbd - 1 < 0
    with pytest.raises(InputError, match="drive codes away"):
        ours("info_vae", alpha=0.0, lambd=1e-3)


def test_wae_mmd_is_half_of_theirs(noise: Noise) -> None:
    """Pythae's squared error has no half, so its weight is twice ours."""
    model = ours("wae_mmd", weight=7.0)
    other = theirs("WAE_MMD", model, reg_weight=14.0)
    noise.queue = [normal(6, LATENT)] * 2
    with torch.no_grad():
        found, expected = model.losses(batch(SHAPE, 6)), other(DATA)
    assert float(found["loss"]) == pytest.approx(float(expected.loss) / 2 + HALF_LOG_2PI, rel=1e-5)


def test_linear_flows_of_theirs_may_not_be_invertible() -> None:
    """Pythae's planar flow takes u as it is: where w·u < -1 two codes have one image."""
    flows = models.normalizing_flows
    layer = flows.PlanarFlow(flows.PlanarFlowConfig(input_dim=(2,), activation="tanh"))
    u, w = torch.tensor([[-3.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    with torch.no_grad():
        layer.u.copy_(u), layer.w.copy_(w), layer.b.zero_()
        z = torch.stack([torch.linspace(-2, 2, 41), torch.zeros(41)], 1)
        their_steps = layer(z).out[:, 0].diff()
        our_steps = planar(z, u.expand(41, 2), w.expand(41, 2), torch.zeros(41))[0][:, 0].diff()
    assert their_steps.min() < 0 < their_steps.max()
    assert (our_steps > 0).all()


def test_ms_ssim_of_theirs_hardly_tells_noise_from_noise() -> None:
    """Pythae has the last scale's term at every level, and shifts terms to [0, 1]."""
    dissimilarity = pytest.importorskip("pythae.models.msssim_vae.msssim_vae_utils").MSSSIM
    a, b = (batch((1, 32, 32), 8, seed=seed).x for seed in (1, 2))
    their_loss = float(dissimilarity(window_size=11)(a, b))
    our_loss = 1 - float(ms_ssim(a, b).mean())
    assert their_loss < 0.2
    assert our_loss > 0.9
