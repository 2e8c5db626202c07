"""Properties of every sampler of the registry, and what each is to find."""

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from aebench.benchmark.metrics.base import Fitted, NotApplicable
from aebench.datasets import Dataset
from aebench.models import Autoencoder, Batch, Sampler
from aebench.models.ae import AE
from aebench.models.samplers import flow
from aebench.models.samplers.flow import IAF, MAF
from aebench.models.samplers.gmm import GMM
from aebench.models.samplers.two_stage import TwoStage
from aebench.models.samplers.vampprior import VampPrior
from aebench.models.vae import DiagonalNormal
from aebench.plugins import InputError
from small import batch, make
from torch import Tensor
from zuko.nn import MaskedMLP

SAMPLERS = sorted(Sampler.choices())
FITTED = ["gmm", "iaf", "maf", "two_stage"]
"""Those that fit a density to the codes of any model."""
QUICK: dict[str, dict[str, Any]] = {
    "iaf": {"steps": 20, "hidden": [16]},
    "maf": {"steps": 60, "hidden": [32]},
    "two_stage": {"steps": 60, "hidden": [32, 32]},
}
"""Parameters that make a sampler quick to test."""


class Codes(AE):
    """An autoencoder whose codes are its images."""

    def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x


class Known(Codes):
    """One whose posterior is N(x, 0.3²)."""

    def posterior(self, x: Tensor, y: Tensor | None = None) -> DiagonalNormal:
        flat = x.flatten(1)
        return DiagonalNormal(flat, torch.full_like(flat, 2 * math.log(0.3)))


def spatial() -> Autoencoder:
    """A model with codes of (2, 3, 1)."""
    model = make("ae", latent_dim=6)
    code, raw = model.code, model.raw
    model.code = lambda x, y=None: code(x).unflatten(1, (2, 3, 1))  # type: ignore[method-assign]
    model.raw = lambda z, y=None: raw(z.flatten(1))  # type: ignore[method-assign]
    return model


def ruled(cls: type[Autoencoder]) -> Autoencoder:
    """A model of ``cls``."""
    model = make("ae")
    model.__class__ = cls
    return model.eval()


def fit(sampler: Sampler, model: Autoencoder, x: Tensor, seed: int = 0) -> Sampler:
    """The sampler fitted to a model's codes of images, as an evaluation does it."""
    with torch.no_grad():
        if sampler.reads_images:
            sampler.fit_images(model, [Batch(some) for some in x.split(50)], seed)
        else:
            sampler.fit(model, model.code(x), seed)
    return sampler


def quick(name: str) -> Sampler:
    return Sampler.make(name, QUICK.get(name))


def draws(sampler: Sampler, model: Autoencoder, n: int, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    with torch.no_grad():
        return sampler.sample(model, n)


CASES = {
    "vae": lambda: (make("vae"), batch(n=120).x),
    "ae": lambda: (make("ae"), batch(n=120).x),
    "three codes": lambda: (make("vae"), batch(n=3).x),
    "one code": lambda: (make("vae"), batch(n=1).x),
    "one dimension": lambda: (make("vae", latent_dim=1), batch(n=40).x),
    "constant codes": lambda: (make("ae"), batch(n=1).x.expand(40, -1, -1, -1)),
    "spatial codes": lambda: (spatial(), batch(n=40).x),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_are_codes(name: str, case: str) -> None:
    model, x = CASES[case]()
    model.eval()
    if (name == "gmm" and case == "one code") or quick(name).why_not(model):
        return  # a mixture needs two codes
    before = torch.get_rng_state()
    sampler = fit(quick(name), model, x)
    assert torch.equal(before, torch.get_rng_state()), "only its own seed rules a fit"
    drawn = draws(sampler, model, 7)
    with torch.no_grad():
        code = model.code(x)
    assert drawn.shape == (7, *code.shape[1:])
    assert drawn.dtype == torch.float32
    assert drawn.isfinite().all()
    assert not drawn.requires_grad
    assert torch.equal(drawn, draws(sampler, model, 7)), "torch's seed rules the draws"
    assert not torch.equal(drawn, draws(sampler, model, 7, seed=1))
    assert len(drawn.flatten(1).unique(dim=0)) == 7
    assert model.decode(drawn).shape == (7, *x.shape[1:])


@pytest.mark.parametrize("name", FITTED)
def test_a_fit_follows_its_seed(name: str) -> None:
    model, x = make("vae").eval(), batch().x
    found = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        found.append(draws(fit(quick(name), model, x, seed), model, 5))
    assert torch.equal(found[0], found[1])
    assert name == "gmm" or not torch.equal(found[0], found[2])


@pytest.mark.parametrize("name", FITTED)
def test_constant_codes_are_drawn_as_they_are(name: str) -> None:
    model = make("ae").eval()
    x = batch(n=1).x.expand(40, -1, -1, -1)
    drawn = draws(fit(quick(name), model, x), model, 50)
    with torch.no_grad():
        assert torch.allclose(drawn, model.code(x[:1]).expand_as(drawn), atol=1e-3)


@pytest.mark.parametrize("name", FITTED)
def test_unused_dimensions_do_not_spoil_the_others(name: str) -> None:
    """Codes of which one dimension is constant and one a copy; scales of their own."""
    torch.manual_seed(0)
    codes = 50 * torch.randn(1500, 3, 1, 1) + 7
    codes[:, 1] = 3
    codes[:, 2] = codes[:, 0]
    longer = {"two_stage": {"steps": 500, "lr": 5e-3}, "iaf": {"steps": 150}, "maf": {"steps": 300}}
    model = ruled(Codes)
    chosen = QUICK.get(name, {}) | longer.get(name, {})
    drawn = draws(fit(Sampler.make(name, chosen), model, codes), model, 4000)[..., 0, 0]
    assert drawn[:, 0].mean() == pytest.approx(7, abs=8)
    assert drawn[:, 0].std() == pytest.approx(50, rel=0.25)
    assert (drawn[:, 1] - 3).abs().mean() < 8
    assert torch.corrcoef(drawn[:, [0, 2]].T)[0, 1] > 0.9


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_through_an_evaluation(name: str) -> None:
    dataset = Dataset.make("digits", {"train": 100, "val": 10, "test": 20})
    model = make("vae")
    found = []
    for others in ([], ["gmm"]):
        samplers = {key: quick(key) for key in [*others, name]}
        fitted = Fitted(model, dataset, None, 3, samplers)  # type: ignore[arg-type]
        before = torch.get_rng_state()
        for key in others:
            fitted.samples(key, 9)
        found.append(fitted.samples(name, 9))
        assert torch.equal(before, torch.get_rng_state())
    assert found[0].shape == (9, 1, 8, 8)
    assert found[0].dtype == torch.uint8
    assert torch.equal(*found), "nothing depends on the other samplers"


@pytest.mark.parametrize("name", [n for n in SAMPLERS if n != "prior"])
def test_discrete_codes_are_refused(name: str) -> None:
    model = make("vq_vae")
    assert quick(name).why_not(model) == "the codes are discrete"
    dataset = Dataset.make("digits", {"train": 50, "val": 10, "test": 10})
    fitted = Fitted(model, dataset, None, 0, {name: quick(name)})  # type: ignore[arg-type]
    with pytest.raises(NotApplicable, match="discrete"):
        fitted.samples(name, 3)


def test_what_needs_a_posterior_or_a_prior_says_so() -> None:
    model = make("ae")
    assert "posterior" in VampPrior().why_not(model)
    assert "prior" in Sampler.make("prior").why_not(model)
    assert TwoStage().why_not(model) == ""


@pytest.mark.parametrize("name", [n for n in SAMPLERS if n in FITTED])
def test_codes_of_too_many_dimensions_are_refused(name: str) -> None:
    model = make("ae", latent_dim=5).eval()
    with pytest.raises(InputError, match="5 > 4 dimensions"):
        fit(Sampler.make(name, QUICK.get(name, {}) | {"max_dim": 4}), model, batch().x)


@pytest.mark.parametrize("name", SAMPLERS)
def test_numbers_out_of_range_are_refused_in_a_line(name: str) -> None:
    for key, parameter in Sampler.choose(name).parameters_of().items():
        bad = [0] if parameter.annotation not in (int, float) else 0
        with pytest.raises(InputError) as error:
            Sampler.make(name, {key: bad})
        assert key in str(error.value)
        assert "\n" not in str(error.value)


def bananas(n: int) -> tuple[Tensor, float]:
    """Codes (n, 2, 1, 1) of a bent density in units of its own, and its entropy in nats."""
    torch.manual_seed(0)
    a, b = torch.randn(2, n)
    codes = torch.stack([5 * a + 20, 0.1 * (a.square() + 0.3 * b)], 1)
    entropy = 2 * (0.5 + 0.5 * math.log(2 * math.pi)) + math.log(5 * 0.1 * 0.3)
    return codes[..., None, None], entropy


@pytest.mark.parametrize(("cls", "steps", "share"), [(MAF, 300, 0.1), (IAF, 300, 0.25)])
def test_a_flow_finds_a_bent_density(cls: type[MAF], steps: int, share: float) -> None:
    """How far its log-likelihood is from the entropy, as a share of the best Gaussian's."""
    codes, entropy = bananas(5000)
    model = ruled(Codes)
    sampler = fit(cls(steps=steps, hidden=(64, 64)), model, codes[:4000])
    assert isinstance(sampler, MAF)
    held_out = codes[4000:]
    flat = codes.flatten(1)
    gaussian = torch.distributions.MultivariateNormal(flat.mean(0), torch.cov(flat.T))
    worst = -gaussian.log_prob(held_out.flatten(1)).mean() - entropy
    with torch.no_grad():
        mine = -sampler.log_prob(held_out).mean() - entropy
    assert worst > 0.5
    assert -0.1 < mine < share * worst
    drawn = draws(sampler, model, 4000).flatten(1)
    bend = torch.corrcoef(torch.stack([(drawn[:, 0] - 20).square(), drawn[:, 1]]))[0, 1]
    assert bend > 0.85


@pytest.mark.parametrize("cls", [MAF, IAF])
def test_a_flows_density_is_that_of_its_draws(cls: type[MAF]) -> None:
    codes, _ = bananas(500)
    model = ruled(Codes)
    sampler = fit(cls(steps=100, hidden=(16,)), model, codes)
    assert isinstance(sampler, MAF)
    axes = [torch.linspace(-30, 70, 501), torch.linspace(-2, 3, 501)]
    grid = torch.cartesian_prod(*axes)
    with torch.no_grad():
        mass = sampler.log_prob(grid).exp() * (100 / 500) * (5 / 500)
    drawn = draws(sampler, model, 40_000).flatten(1)
    assert mass.sum().item() == pytest.approx(1, abs=0.02)
    for centre in ((20.0, 0.05), (26.0, 0.15)):
        box = ((grid - torch.tensor(centre)).abs() < torch.tensor([3.0, 0.05])).all(1)
        inside = ((drawn - torch.tensor(centre)).abs() < torch.tensor([3.0, 0.05])).all(1)
        share = mass[box].sum().item()
        assert share > 0.05
        assert inside.float().mean().item() == pytest.approx(share, rel=0.1)


def test_a_maf_is_fast_to_score_and_an_iaf_to_draw() -> None:
    """Passes of a network: one a map the fast way, one a dimension and map the other."""
    codes, model = torch.randn(50, 5, 1, 1), ruled(Codes)
    found = {}
    for cls in (MAF, IAF):
        sampler = fit(cls(steps=1, flows=2, hidden=(8,)), model, codes)
        assert isinstance(sampler, MAF)
        passes: list[int] = []
        for module in sampler.flow.modules():
            if isinstance(module, MaskedMLP):
                module.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        with torch.no_grad():
            sampler.log_prob(codes)
            density = len(passes)
            sampler.sample(model, 3)
        found[cls] = (density, len(passes) - density)
    assert found[MAF] == (2, 10)
    assert found[IAF][0] >= 10
    assert found[IAF][1] == 2


def test_a_flow_keeps_what_fits_held_out_codes_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few codes in many dimensions: the last step has overfitted, and is not what is kept."""
    torch.manual_seed(0)
    codes, new = torch.randn(2, 200, 8, 1, 1)
    model, found = ruled(Codes), []
    for check in (10, 1000):
        monkeypatch.setattr(flow, "CHECK", check)
        sampler = fit(MAF(steps=300, patience=100, hidden=(64,)), model, codes)
        assert isinstance(sampler, MAF)
        with torch.no_grad():
            found.append(-sampler.log_prob(new).mean().item())
    assert found[0] < 14 < 20 < found[1]
    monkeypatch.setattr(flow, "CHECK", 10)
    calls: list[int] = []
    density = MAF.log_density
    monkeypatch.setattr(MAF, "log_density", lambda s, z: calls.append(1) or density(s, z))
    fit(MAF(steps=300, patience=3, hidden=(64,)), model, codes)
    assert len(calls) < 250, "it stops once nothing is better"


def test_the_second_vae_learns_the_noise_of_a_curve() -> None:
    torch.manual_seed(0)
    noise, t = 0.2, torch.randn(4000, 1)
    codes = torch.cat([3 * t, 3 * torch.sin(t), t, -t], 1) + noise * torch.randn(4000, 4) + 5
    model = ruled(Codes)
    sampler = fit(TwoStage(hidden=(64, 64), steps=1500, lr=2e-3), model, codes[..., None, None])
    assert isinstance(sampler, TwoStage)
    gamma = (sampler.vae.gamma * sampler.scale).item()
    assert gamma == pytest.approx(noise, rel=0.2)
    drawn = draws(sampler, model, 4000).flatten(1)
    assert torch.allclose(drawn.mean(0), codes.mean(0), atol=0.2)
    assert torch.allclose(drawn.std(0), codes.std(0), rtol=0.15)
    # Off the curve by the noise: neither without it nor with more.
    off = (drawn[:, 2] + drawn[:, 3] - 10).std().item()
    assert off == pytest.approx(noise * math.sqrt(2), rel=0.25)


def test_the_second_vae_is_of_draws_not_of_means() -> None:
    """The posterior N(x, 0.3²) of x = 0: the means have no variance, the draws have all of it."""
    model, x = ruled(Known), torch.zeros(2000, 2, 1, 1)
    sampler = fit(TwoStage(hidden=(32,), steps=400), model, x)
    assert isinstance(sampler, TwoStage)
    drawn = draws(sampler, model, 4000)
    assert drawn.std().item() == pytest.approx(0.3, rel=0.1)


def test_the_second_vae_is_of_draws_that_are_made_anew() -> None:
    seen: list[Tensor] = []

    class Watched(Known):
        def posterior(self, x: Tensor, y: Tensor | None = None) -> DiagonalNormal:
            found = super().posterior(x, y)
            sample = found.sample
            found.sample = lambda *s: seen.append(sample(*s)) or seen[-1]  # type: ignore
            return found

    fit(TwoStage(hidden=(32,), steps=50, codes=40), ruled(Watched), torch.zeros(90, 2, 1, 1))
    assert len(seen) > 50
    assert not torch.equal(seen[1], seen[-1])
    assert all(len(one) == 40 for one in seen), "of so many images alone"


def test_the_vampprior_draws_from_posteriors_at_random() -> None:
    x = torch.arange(4.0).mul(10).reshape(4, 1, 1, 1).expand(4, 2, 1, 1)
    model = ruled(Known)
    drawn = draws(fit(VampPrior(components=3), model, x), model, 3000)
    assert drawn.shape == (3000, 2)
    which = (drawn.mean(1) / 10).round()
    assert torch.equal(which.unique(), torch.tensor([0.0, 1.0, 2.0])), "the first K images"
    assert torch.allclose(which.long().bincount() / 3000, torch.full((3,), 1 / 3), atol=0.04)
    assert not torch.equal(which[:6], torch.tensor([0.0, 1, 2, 0, 1, 2])), "not in turn"
    assert (drawn - 10 * which[:, None]).std().item() == pytest.approx(0.3, rel=0.05)
    assert len(drawn.unique(dim=0)) == 3000, "an image that comes again is drawn anew"


def test_the_vampprior_reads_the_labels_of_its_images() -> None:
    class Labelled(Codes):
        def posterior(self, x: Tensor, y: Tensor | None = None) -> DiagonalNormal:
            assert y is not None
            mean = torch.stack([x.flatten(), y.float()], 1)
            return DiagonalNormal(mean, torch.full_like(mean, -20))

    model, data = ruled(Labelled), batch((1, 1, 1), 60)
    sampler = VampPrior(components=50)
    sampler.fit_images(model, [Batch(data.x[:40], data.y[:40]), Batch(data.x[40:], data.y[40:])], 0)
    image, label = draws(sampler, model, 300).T
    k = (data.x.flatten() - image[:, None]).abs().argmin(1)
    assert torch.allclose(label, data.y[k].float(), atol=1e-3)
    assert set(k.tolist()) == set(range(50))


def test_an_evaluation_gives_the_training_images_to_those_that_read_them() -> None:
    class Reads(Sampler):
        reads_images = True
        seen: list[Batch]

        def fit_images(self, model: Autoencoder, batches: Iterable[Batch], seed: int) -> None:
            self.seen = list(batches)

        def sample(self, model: Autoencoder, n: int) -> Tensor:
            return torch.zeros(n, model.latent_dim)

    dataset = Dataset.make("digits", {"train": 100, "val": 10, "test": 20})
    sampler = Reads()
    fitted = Fitted(make("vae"), dataset, None, 0, {"reads": sampler}, 30)  # type: ignore[arg-type]
    fitted.samples("reads", 5)
    assert [len(x) for x, _ in sampler.seen] == [30, 30, 30, 10]
    images, labels = (torch.cat(parts) for parts in zip(*sampler.seen))
    split = fitted.split("train")
    assert torch.equal(images, split.images().float() / 255)
    assert torch.equal(labels, split.labels)


def test_the_mixture_is_scikit_learns_of_the_codes() -> None:
    from sklearn.mixture import GaussianMixture

    model, x = make("ae", latent_dim=3).eval(), batch(n=200).x
    sampler = fit(GMM(components=4), model, x, seed=11)
    assert isinstance(sampler, GMM)
    with torch.no_grad():
        codes = model.code(x).double().numpy()
    ridge = 1e-6 * float(codes.var(0).mean())
    expected = GaussianMixture(4, reg_covar=ridge, random_state=11).fit(codes)
    assert torch.equal(*(torch.as_tensor(m.means_) for m in (sampler.mixture, expected)))
