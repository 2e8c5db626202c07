"""Normalising flows on the posterior and as the prior."""

import math

import pytest
import torch
from aebench.models import Autoencoder
from aebench.models.flows import IAFVAE, MARGIN, FlowVAE, planar, radial
from aebench.models.vae import DiagonalNormal, standard_normal_log_prob
from small import batch, make
from torch import Tensor
from torch.nn import functional as F

FLOWS = ["planar_vae", "radial_vae", "iaf_vae"]
NARROW = {
    "iaf_vae": {"hidden": [32], "context": 8},
    "flow_prior_vae": {"hidden": [16], "flows": 3},
}
"""Hyper-parameters that make flows quick."""


def flow_vae(name: str, **hyperparameters: object) -> FlowVAE:
    model = make(name, **NARROW.get(name, {}) | hyperparameters)
    assert isinstance(model, FlowVAE)
    return model.double().eval()


def contexts(model: FlowVAE, n: int, scale: float = 2.0) -> Tensor:
    """What a flow may read of ``n`` images, (n, context_dim)."""
    generator = torch.Generator().manual_seed(3)
    return scale * torch.randn(n, model.context_dim, generator=generator, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("name", FLOWS)
def test_log_determinant_is_the_jacobians(name: str, d: int) -> None:
    model = flow_vae(name, latent_dim=d, flows=3)
    context, z = contexts(model, 4), normal(4, d)
    log_det = model.flow(z, context)[1]
    for i in range(4):
        jacobian = torch.autograd.functional.jacobian(
            lambda one, i=i: model.flow(one[None], context[i : i + 1])[0][0], z[i]
        )
        sign, expected = torch.linalg.slogdet(jacobian)
        assert sign == 1
        assert torch.allclose(log_det[i], expected, atol=1e-8)
    assert log_det.abs().min() > 1e-3, "the flow does something"


@pytest.mark.parametrize("name", FLOWS)
def test_samples_share_an_images_flow(name: str) -> None:
    model = flow_vae(name, latent_dim=3)
    context, z = contexts(model, 4), normal(5, 4, 3)
    whole = model.flow(z, context)
    for k in range(5):
        for found, expected in zip(whole, model.flow(z[k], context)):
            assert torch.allclose(found[k], expected)
    other = model.flow(z[0], context.flip(0))[0]
    assert not torch.allclose(other, whole[0][0]), "images have flows of their own"


@pytest.mark.parametrize("name", [*FLOWS, "flow_prior_vae"])
def test_prior_over_posterior_has_mean_one(name: str) -> None:
    """E_q[p(z)/q(z|x)] = 1 holds of the right log q and log p alone."""
    model = make(name, latent_dim=2, **NARROW.get(name, {})).double().eval()
    x = batch(n=3).x.double()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.mul_(1.5)
        if isinstance(model, FlowVAE):
            z, log_q = model.draw(x, 20_000)
        else:
            for parameter in model.prior.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            z = model.posterior(x).sample(20_000)
            log_q = model.posterior(x).log_prob(z)
        ratio = model.log_prior(z) - log_q
    assert ratio.std() > 0.05
    assert torch.allclose(ratio.exp().mean(0), torch.ones(3, dtype=torch.float64), atol=0.03)


@pytest.mark.parametrize("name", ["planar_vae", "radial_vae"])
def test_zero_parameters_are_the_vae(name: str) -> None:
    flow, plain, data = make(name, latent_dim=4).eval(), make("vae", latent_dim=4).eval(), batch()
    flow.decoder.load_state_dict(plain.decoder.state_dict())
    for mine, theirs in zip(flow.encoder.parameters(), plain.encoder.parameters()):
        mine.data.zero_()[: len(theirs)] = theirs.data
    found = []
    for model in (flow, plain):
        torch.manual_seed(0)
        with torch.no_grad():
            found.append(model.log_weights(data.x, None, 3))
    assert torch.allclose(*found, atol=1e-4)
    assert torch.allclose(flow.code(data.x), plain.code(data.x), atol=1e-6)


def unbent(d: int, n: int, low: float, high: float) -> tuple[Tensor, Tensor]:
    """u and w of (n, d) whose sizes are of many orders."""
    sizes = 10 ** (low + (high - low) * torch.rand(2, n, 1, dtype=torch.float64))
    return sizes[0] * normal(n, d, seed=1), sizes[1] * normal(n, d, seed=2)


def test_planar_flows_keep_the_bound() -> None:
    torch.manual_seed(0)
    u, w = unbent(5, 2000, -3, 3)
    # Far from its bend a planar flow moves by û itself.
    moved = planar(torch.zeros_like(u), u, w, torch.full((2000,), 50.0, dtype=torch.float64))[0]
    product = (w * moved).sum(1)
    assert ((w * u).sum(1) < -1).sum() > 200, "some need to be bent"
    assert product.min() > -1
    kept = (w * u).sum(1) >= 0
    assert torch.allclose(moved[kept], u[kept])
    z, log_det = planar(torch.randn(2000, 5), u.float(), w.float(), torch.randn(2000))
    assert z.isfinite().all()
    assert log_det.min() >= math.log(MARGIN) - 1e-4


def test_planar_flows_are_continuous_where_w_vanishes() -> None:
    u, b = normal(1, 4), torch.ones(1, dtype=torch.float64)
    w = normal(1, 4, seed=1).requires_grad_()
    for size in (1e-3, 1e-9, 0.0):
        moved, log_det = planar(torch.zeros_like(u), u, size * w, b)
        assert torch.allclose(moved, u * math.tanh(1), atol=2 * size + 1e-9)
        assert log_det.abs() <= 5 * size
    (gradient,) = torch.autograd.grad((moved.sum() + log_det.sum()), w)
    assert gradient.isfinite().all()


def bisect(rising, target: Tensor, low: float, high: float) -> Tensor:
    """Where an increasing function of (n,) takes the values ``target``."""
    a, b = torch.full_like(target, low), torch.full_like(target, high)
    for _ in range(200):
        middle = (a + b) / 2
        below = rising(middle) < target
        a, b = torch.where(below, middle, a), torch.where(below, b, middle)
    return (a + b) / 2


def test_planar_flows_invert() -> None:
    torch.manual_seed(0)
    u, w = unbent(3, 500, -1, 1)
    z, b = normal(500, 3, seed=4), normal(500, seed=5)
    moved = planar(z, u, w, b)[0]
    along = w / w.square().sum(1, keepdim=True)

    def height(t: Tensor) -> Tensor:
        return (w * planar(t[:, None] * along, u, w, b)[0]).sum(1)

    # w·f(z) depends on w·z alone, and rises with it; the rest of z then follows.
    t = bisect(height, (w * moved).sum(1), -1e4, 1e4)
    assert torch.allclose(t, (w * z).sum(1), rtol=1e-5, atol=1e-5)
    offset = planar(t[:, None] * along, u, w, b)[0] - t[:, None] * along
    assert torch.allclose(moved - offset, z, rtol=1e-4, atol=1e-4)


def test_radial_flows_invert() -> None:
    centre, z = normal(500, 3), 3 * normal(500, 3, seed=1)
    a, b = 10 * normal(500, seed=2), 10 * normal(500, seed=3)
    moved, log_det = radial(z, centre, a, b)
    direction = F.normalize(moved - centre, dim=1)

    def radius(r: Tensor) -> Tensor:
        at = radial(centre + r[:, None] * direction, centre, a, b)[0]
        return ((at - centre) * direction).sum(1)

    r = bisect(radius, (moved - centre).norm(dim=1), 0, 1e4)
    assert torch.allclose(centre + r[:, None] * direction, z, atol=1e-6)
    assert log_det.isfinite().all()
    extreme = radial(z.float(), centre.float(), 100 * a.float(), 100 * b.float())
    assert all(part.isfinite().all() for part in extreme)


@pytest.mark.parametrize("name", ["planar_vae", "radial_vae"])
def test_annealing_tempers_the_joint_not_the_entropy(name: str) -> None:
    model, data = make(name, warmup=0.5).train(), batch()
    model.steps = 100
    for model.steps_done, beta in ((0, 0.01), (25, 0.51), (50, 1.0), (90, 1.0)):
        terms = {k: v.item() for k, v in model.losses(data).items()}
        joint = terms["reconstruction"] + terms["kl"] + terms["entropy"]
        assert terms["loss"] == pytest.approx(beta * joint - terms["entropy"], rel=1e-4)
    model.steps_done = 0
    terms = model.eval().losses(data)
    assert torch.allclose(terms["loss"], terms["reconstruction"] + terms["kl"])
    assert make(name, warmup=0.0).train().beta == 1


@pytest.mark.parametrize("name", [*FLOWS, "flow_prior_vae"])
def test_loss_is_the_mean_log_weight(name: str) -> None:
    model, data = make(name, latent_dim=2).eval(), batch(n=4)
    torch.manual_seed(0)
    with torch.no_grad():
        weights = model.log_weights(data.x, None, 4000).mean(0)
        many = data.x.repeat_interleave(4000, 0)
        loss = model.losses(batch(n=1)._replace(x=many))["loss"]
    assert float(loss) == pytest.approx(-float(weights.mean()), rel=1e-3)


@pytest.mark.parametrize("name", FLOWS)
def test_what_has_no_closed_form_is_not_offered(name: str) -> None:
    cls = Autoencoder.choose(name)
    assert not cls.offers("posterior")
    assert not cls.offers("kl")
    assert cls.offers("log_weights")
    assert not Autoencoder.choose("flow_prior_vae").offers("kl")


def iaf(**hyperparameters: object) -> IAFVAE:
    model = flow_vae("iaf_vae", **hyperparameters)
    assert isinstance(model, IAFVAE)
    return model


def test_iaf_networks_are_autoregressive_in_alternating_orders() -> None:
    model = iaf(latent_dim=5, flows=3, hidden=[40, 40])
    context = contexts(model, 1)[0]
    for k, network in enumerate(model.networks):
        jacobian = torch.autograd.functional.jacobian(
            lambda z, network=network: network(torch.cat([z, context])), normal(5)
        )
        for part in jacobian.split(5):  # m, then the gates
            read = (part if k % 2 == 0 else part.flip(0, 1)) != 0
            assert torch.equal(read, torch.ones(5, 5, dtype=torch.bool).tril(-1))


def test_iaf_inverts_a_dimension_at_a_time() -> None:
    model = iaf(latent_dim=4, flows=3)
    context, z = contexts(model, 6), normal(6, 4)
    with torch.no_grad():
        found = model.flow(z, context)[0]
        for network in reversed(model.networks):
            before = torch.zeros_like(found)
            for _ in range(4):
                m, logits = network(torch.cat([before, context], 1)).chunk(2, 1)
                before = (found - m) / torch.sigmoid(logits) + m
            found = before
    assert torch.allclose(found, z, atol=1e-8)


def test_iaf_starts_near_the_identity() -> None:
    model = iaf(latent_dim=8, flows=1)
    z = normal(500, 8)
    with torch.no_grad():
        moved, log_det = model.flow(z, contexts(model, 500, scale=0.5))
    correlation = torch.corrcoef(torch.stack([moved.flatten(), z.flatten()]))[0, 1]
    assert correlation > 0.98
    gate = float((log_det / 8).exp().mean())
    assert gate == pytest.approx(1 / (1 + math.exp(-2)), abs=0.05)


def test_free_bits_floor_the_kl_of_each_dimension() -> None:
    data, found = batch(), {}
    for bits in (0.0, 0.02, 50.0):
        model = make("iaf_vae", latent_dim=3, free_bits=bits).eval()
        torch.manual_seed(0)
        with torch.no_grad():
            found[bits] = model.losses(data)
    torch.manual_seed(0)
    with torch.no_grad():
        z, log_q = model.draw(data.x)
    for terms in found.values():
        assert torch.allclose(terms["kl"], (log_q - model.log_prior(z)).mean(), atol=1e-5)
        excess = terms["loss"] - terms["reconstruction"]
        assert torch.allclose(excess, terms.get("floored_kl", terms["kl"]), atol=1e-4)
    assert found[50.0]["floored_kl"] == 150
    # Where every dimension has a KL of its own, some are above 0.02 nats and some below.
    assert found[0.0]["kl"] < found[0.02]["floored_kl"] < found[0.0]["kl"].abs() + 0.06


def test_free_bits_leave_a_floored_kl_without_gradient() -> None:
    model, data = make("iaf_vae", latent_dim=3, free_bits=50.0), batch()
    torch.manual_seed(0)
    terms = model.losses(data)
    parameters = list(model.parameters())
    whole = torch.autograd.grad(terms["loss"], parameters, retain_graph=True)
    alone = torch.autograd.grad(terms["reconstruction"], parameters)
    for a, b in zip(whole, alone):
        assert torch.equal(a, b)


@pytest.mark.parametrize("d", [1, 2])
def test_a_flow_prior_integrates_to_one(d: int) -> None:
    model = make("flow_prior_vae", latent_dim=d, **NARROW["flow_prior_vae"]).double()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.prior.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        axis = torch.linspace(-12, 12, 401, dtype=torch.float64)
        grid = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
        mass = model.log_prior(grid).exp() * 0.06**d
        drawn = model.float().sample_prior(40_000).double()
    assert float(mass.sum()) == pytest.approx(1, abs=5e-3)
    mean, second = (mass @ grid, mass @ grid.square())
    assert (second - 1).abs().max() > 0.1, "it is not N(0, I)"
    assert torch.allclose(drawn.mean(0), mean, atol=0.05)
    assert torch.allclose(drawn.square().mean(0), second, rtol=0.05)


def banana(z: Tensor) -> Tensor:
    """log p of a curved density over (…, 2)."""
    bent = torch.stack([z[..., 0], (z[..., 1] - z[..., 0].square() + 1) / 0.3], -1)
    return standard_normal_log_prob(bent) - math.log(0.3)


@pytest.mark.parametrize(
    ("name", "share"), [("planar_vae", 0.5), ("radial_vae", 0.95), ("iaf_vae", 0.3)]
)
def test_a_flow_comes_nearer_to_a_curved_posterior_than_a_gaussian(name: str, share: float) -> None:
    """The KL from q to a banana, with a flow and without, as a share."""
    found = {}
    for flows in (0, 6):
        model = flow_vae(name, latent_dim=2, flows=max(flows, 1)).float()
        torch.manual_seed(0)
        moments = torch.zeros(1, 4, requires_grad=True)
        context = (0.3 * torch.randn(1, model.context_dim)).requires_grad_()
        free = [moments, context] if flows else [moments]
        if flows and name == "iaf_vae":
            free += list(model.networks.parameters())
        optimizer = torch.optim.Adam(free, 0.02)
        for step in range(501):
            start = DiagonalNormal(*moments.chunk(2, 1))
            z_0 = start.sample(200 if step < 500 else 20_000)
            z, log_det = model.flow(z_0, context) if flows else (z_0, 0)
            kl = (start.log_prob(z_0) - log_det - banana(z)).mean()
            optimizer.zero_grad()
            kl.backward()
            optimizer.step()
        found[flows] = kl.item()
    assert found[0] > 0.3
    assert -0.02 < found[6] < share * found[0]
