"""One training: its batches, its record, the epoch that it keeps."""

import pytest
import torch
from aebench.benchmark.loader import Loader
from aebench.benchmark.train import Budget, train
from aebench.datasets import Dataset, Split
from aebench.models import Autoencoder, Backbone, Batch, DataSpec, Terms, model_from
from aebench.models.ae import AE
from aebench.plugins import InputError
from aebench.seeds import derive_seed


def split(n: int) -> Split:
    """Images whose grey level is their index, labelled by it."""
    index = torch.arange(n)
    return Split(index.to(torch.uint8).view(n, 1, 1, 1).expand(n, 1, 2, 2).clone(), index)


def test_an_epoch_has_every_image_once_in_a_new_order() -> None:
    loader = Loader(split(20), 5, seed=0)
    epochs = [torch.cat([batch.y for batch in loader]) for _ in range(2)]
    assert len(loader) == 4
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(20))
    assert not torch.equal(*epochs)
    again = Loader(split(20), 5, seed=0)
    assert torch.equal(torch.cat([batch.y for batch in again]), epochs[0])
    x, y = next(iter(loader))
    assert x.dtype == torch.float32
    assert torch.equal((x[:, 0, 0, 0] * 255).round().long(), y)


def test_training_leaves_a_smaller_batch_out_and_validation_keeps_it() -> None:
    assert [len(batch.x) for batch in Loader(split(11), 4, seed=0)] == [4, 4]
    assert [len(batch.x) for batch in Loader(split(11), 4)] == [4, 4, 3]
    assert len(Loader(split(11), 4)) == 3
    assert [len(batch.x) for batch in Loader(split(3), 100, seed=0)] == [3]


def test_validation_terms_are_means_over_images_and_the_best_epoch_is_kept() -> None:
    digits = Dataset.make("digits", {"train": 300, "val": 70, "test": 10})
    torch.manual_seed(0)
    model = model_from("ae", {}, DataSpec(digits.shape, 10, 300), Backbone.choose("mlp")())
    trained = train(model, digits, Budget(epochs=12, batch_size=50, lr=0.05), ("best",))
    losses = [record["val/loss"] for record in trained.history]
    assert trained.best_epoch == losses.index(min(losses)) + 1
    assert [record["epoch"] for record in trained.history] == list(range(1, 13))
    images = digits.split("val").images().float() / 255
    with torch.no_grad():
        kept = -model.observation.log_prob(model.raw(model.code(images)), images).mean()
    assert float(kept) == pytest.approx(min(losses), rel=1e-5)
    assert not model.training


@pytest.mark.parametrize("key", ["epochs", "batch_size", "lr", "threads"])
def test_a_budget_is_positive(key: str) -> None:
    with pytest.raises(InputError, match=f"{key} must be positive"):
        Budget.of({key: 0})


def digits_model(name: str = "ae", **hyperparameters: object) -> tuple[Autoencoder, Dataset]:
    digits = Dataset.make("digits", {"train": 60, "val": 20, "test": 10})
    torch.manual_seed(0)
    backbone = Backbone.make("mlp", {"hidden": [8]})
    return model_from(name, hyperparameters, DataSpec(digits.shape, 10, 60), backbone), digits


def test_the_default_budget_is_plain_adam_to_the_last_bit() -> None:
    model, digits = digits_model("vae", latent_dim=3)
    trained = train(model, digits, Budget(epochs=4, batch_size=20, lr=0.05), ("plain",))
    plain, _ = digits_model("vae", latent_dim=3)
    torch.manual_seed(derive_seed("plain", "train"))
    loader = Loader(digits.split("train"), 20, derive_seed("plain", "order"))
    (val,) = Loader(digits.split("val"), 500)
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.05, fused=True)
    losses, states = [], []
    for _ in range(4):
        for batch in loader:
            optimizer.zero_grad()
            plain.losses(batch)["loss"].backward()
            optimizer.step()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("plain", "validation"))
            losses.append(float(plain.eval().losses(val)["loss"]))
        states.append({k: v.clone() for k, v in plain.train().state_dict().items()})
    assert [record["val/loss"] for record in trained.history] == losses
    for key, value in states[losses.index(min(losses))].items():
        assert torch.equal(model.state_dict()[key], value), key


def rates(model: Autoencoder, digits: Dataset, **budget: object) -> list[list[float]]:
    """The learning rates of every optimiser in the epoch after each."""
    found: list[list[float]] = []
    configured = model.configure_optimizers
    held: list[torch.optim.Optimizer] = []
    model.configure_optimizers = lambda: held.extend(configured()) or held

    def listen(done: int, total: int) -> None:
        found.append([o.param_groups[0]["lr"] for o in held])

    train(model, digits, Budget.of({"batch_size": 20, **budget}), ("rates",), on_epoch=listen)
    return found


def test_milestones_cut_the_rate_of_every_optimiser() -> None:
    model, digits = digits_model("aae", adversarial_lr=0.5, discriminator=[4])
    scales = [objective.lr_scale for objective in model.objectives()]
    assert scales == [1.0, 0.5, 0.5]
    found = rates(model, digits, epochs=5, lr=0.1, milestones=[1, 3, 9], gamma=0.5)
    for epoch, factor in enumerate([0.5, 0.5, 0.25, 0.25, 0.25]):
        assert found[epoch] == pytest.approx([0.1 * factor * scale for scale in scales])


class Scripted(AE):
    """An autoencoder whose validation loss follows a script, an epoch each."""

    def losses(self, batch: Batch) -> Terms:
        if self.training:
            return super().losses(batch)
        return {"loss": torch.tensor(self.script.pop(0))}


def scripted(*script: float) -> tuple[Scripted, Dataset]:
    digits = Dataset.make("digits", {"train": 60, "val": 20, "test": 10})
    model = Scripted(DataSpec(digits.shape, 10, 60), Backbone.make("linear"))
    model.script = list(script)
    return model, digits


def test_a_plateau_cuts_the_rate_after_as_many_epochs_that_are_no_better() -> None:
    model, digits = scripted(3, 2, 2.5, 2.0, 2.0, 1.9, 5, 5)  # equal is no better
    found = rates(model, digits, epochs=8, lr=1.0, plateau=2, gamma=0.5)
    assert [rate for (rate,) in found] == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_milestones_and_a_plateau_multiply() -> None:
    found = rates(*scripted(1, 1, 1, 1), epochs=4, lr=1.0, plateau=2, milestones=[2], gamma=0.1)
    assert [rate for (rate,) in found] == pytest.approx([1, 0.1, 0.01, 0.01])


def test_patience_ends_a_training_and_keeps_its_best_epoch() -> None:
    model, digits = scripted(3, 2, 2.5, 2.0, 2.1, 1, 1)
    trained = train(model, digits, Budget(epochs=7, batch_size=20, patience=3), ("patience",))
    assert len(trained.history) == 5, "three epochs after the second that are no better"
    assert trained.best_epoch == 2
    assert trained.steps == 5 * 3
    model, digits = scripted(3, 2, 2.5, 2.0, 1.9, 2)
    trained = train(model, digits, Budget(epochs=6, batch_size=20, patience=3), ("patience",))
    assert (len(trained.history), trained.best_epoch) == (6, 5), "a better one starts it anew"


def first_step(**budget: object) -> float:
    """How far the first step goes at the learning rate 1 against a gradient of 1e-3."""
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = Budget.of(dict(budget)).make_optimizer()([weight], lr=1.0)
    weight.grad = torch.tensor(1e-3)
    optimizer.step()
    return -weight.item()


def test_optimisers_step_as_their_papers_say() -> None:
    assert first_step() == pytest.approx(1, rel=1e-4)
    assert first_step(eps=1e-3) == pytest.approx(0.5, rel=1e-4)
    # The averages of g and g² keep 0.99 of their zeros: g / √(0.01 g² - (0.01 g)²).
    assert first_step(optimizer="rmsprop") == pytest.approx(1 / 0.0099**0.5, rel=1e-3)
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = Budget.of({"betas": [0.0, 0.5]}).make_optimizer()([weight], lr=1.0)
    for gradient, step in ((1.0, 1.0), (2.0, 2 / 3**0.5)):
        before, weight.grad = weight.item(), torch.tensor(gradient)
        optimizer.step()
        assert before - weight.item() == pytest.approx(step, rel=1e-5)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"plateau": 0}, "plateau must be positive, not 0"),
        ({"patience": -1}, "patience must be positive, not -1"),
        ({"gamma": 0, "plateau": 1}, "gamma must be positive, not 0"),
        ({"eps": 0}, "eps must be positive, not 0"),
        ({"milestones": [3, 2]}, r"milestones must be rising epochs above 0, not \[3, 2\]"),
        ({"milestones": [0, 2]}, r"milestones must be rising epochs above 0, not \[0, 2\]"),
        ({"milestones": 3}, "milestones: 3 is not of type"),
        ({"milestones": [1.5]}, "milestones: 1.5 is not of type int"),
        ({"betas": [0.9]}, r"betas must be two numbers from 0 to below 1, not \[0.9\]"),
        ({"betas": [0.9, 1]}, "betas must be two numbers from 0 to below 1"),
        ({"optimizer": "sgd"}, "optimizer: 'sgd' is not one of 'adam', 'rmsprop'"),
        ({"milestone": [1]}, "unknown training setting 'milestone'.*milestones"),
    ],
)
def test_bad_schedules_get_one_clear_line(given: dict, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        Budget.of(given)
    assert "\n" not in str(error.value)


def test_a_specification_states_what_matters() -> None:
    always = {"epochs": 50, "batch_size": 100, "lr": 1e-3, "threads": 1}
    assert Budget().stated == always
    assert Budget.of({"gamma": 0.5}).stated == always, "without effect"
    assert Budget.of({"optimizer": "rmsprop", "betas": [0, 0]}).stated == {
        **always,
        "optimizer": "rmsprop",
    }
    schedule = {"plateau": 5, "gamma": 0.5, "patience": 9, "eps": 1e-4, "milestones": (3, 4)}
    assert Budget.of(schedule).stated == {**always, **schedule}
    assert Budget.of(Budget.of(schedule).stated) == Budget.of(schedule)


def test_an_mlps_activation() -> None:
    def kinds(**given: object) -> set[type]:
        torch.manual_seed(0)
        backbone = Backbone.make("mlp", {"hidden": [4, 3], **given})
        networks = torch.nn.Sequential(
            backbone.encoder((1, 2, 2), 2), backbone.decoder(2, (1, 2, 2))
        )
        return {type(module) for module in networks.modules() if not list(module.parameters())}

    assert kinds() - kinds(activation="tanh") == {torch.nn.ReLU}
    assert kinds(activation="tanh") - kinds() == {torch.nn.Tanh}
    with pytest.raises(InputError, match="activation: 'gelu' is not one of 'relu', 'tanh'"):
        kinds(activation="gelu")
