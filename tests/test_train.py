"""One training: its batches, its record, the epoch that it keeps."""

import pytest
import torch
from aebench.benchmark.train import Budget, Loader, train
from aebench.datasets import Dataset, Split
from aebench.models import Backbone, DataSpec, model_from
from aebench.plugins import InputError


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
