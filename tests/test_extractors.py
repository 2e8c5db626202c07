"""Extractors: the classifier trained on the dataset, and Inception from its file."""

import hashlib
import math
import random
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standins
import torch
from aebench.benchmark import cache as caching
from aebench.benchmark.extractors import Extractor, classifier, inception
from aebench.benchmark.extractors.classifier import Classifier
from aebench.benchmark.extractors.inception import Inception
from aebench.benchmark.metrics.generation import FID
from aebench.datasets import Split
from aebench.plugins import InputError
from torch import Tensor


class Held(standins.Held):
    """Images that are given: the first two thirds for training, the rest for tests."""

    def load(self) -> dict[Any, Split]:
        first = len(self.given) * 2 // 3
        rest = self.given.take(slice(first, None))
        return {"train": self.given.take(slice(first)), "val": rest, "test": rest}


def stripes(n: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Images with factors (n, 3): the bright half (4 values), the level (3), and one that is 0."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.stack(
        [torch.randint(size, (n,), generator=generator) for size in (4, 3, 1)], dim=1
    )
    _, height, width = shape
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    halves = torch.stack(
        [(half < 0).expand(height, width) for half in (rows - height // 2, height // 2 - 1 - rows)]
        + [
            (half < 0).expand(height, width)
            for half in (columns - width // 2, width // 2 - 1 - columns)
        ]
    )
    images = halves[factors[:, 0], None] * (80 * (factors[:, 1] + 1)).view(-1, 1, 1, 1)
    noise = torch.randint(0, 10, (n, *shape), generator=generator)
    return (images + noise).to(torch.uint8), factors


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds nothing, on disk and in memory."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("AEBENCH_CACHE", str(folder))
    monkeypatch.delenv("AEBENCH_INCEPTION", raising=False)
    monkeypatch.setattr(caching, "_memory", {})
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "STEPS", 120)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 9, 13), (3, 64, 64)])
def test_the_classifier_serves_every_shape(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "STEPS", 3)
    images, factors = stripes(60, *shape)
    features = Classifier(Held(images, factors[:, 0])).features(images)
    assert features.shape == (60, 64)
    assert features.dtype == torch.float32
    assert not features.requires_grad


@pytest.mark.usefixtures("quick")
def test_the_classifier_learns_labels() -> None:
    images, factors = stripes(900, 1, 8, 8)
    extractor = Classifier(Held(images, factors[:, 0]))
    assert extractor.accuracy == 1
    assert extractor.label == "classifier (test accuracy 1.000)"
    # Its accuracy is that of the test split, where every label is another here.
    wrong = factors[:, 0].clone()
    wrong[600:] = (wrong[600:] + 1) % 4
    assert Classifier(Held(images, wrong)).accuracy == 0
    chance = torch.randint(0, 4, (900,), generator=torch.Generator().manual_seed(1))
    assert Classifier(Held(images, chance)).accuracy == pytest.approx(0.25, abs=0.1)


@pytest.mark.usefixtures("quick")
def test_the_classifier_learns_every_factor_that_varies() -> None:
    images, factors = stripes(900, 1, 8, 8)
    chance = torch.randint(0, 4, (900,), generator=torch.Generator().manual_seed(1))
    # Labels are left aside where there are factors.
    extractor = Classifier(Held(images, chance, factors))
    assert extractor.sizes == (4, 3)
    assert extractor.accuracy == 1
    factors[:, 1] = torch.randint(0, 3, (900,), generator=torch.Generator().manual_seed(2))
    again = Classifier(Held(images, None, factors))
    assert again.accuracy == pytest.approx((1 + 1 / 3) / 2, abs=0.06)


def test_the_classifier_is_accurate_on_digits() -> None:
    from sklearn.datasets import load_digits

    held = load_digits()
    order = np.random.default_rng(0).permutation(len(held.target))
    images = torch.as_tensor(held.images[order] * 15).to(torch.uint8)[:, None]
    assert Classifier(Held(images, torch.as_tensor(held.target[order]))).accuracy > 0.96


@pytest.mark.usefixtures("quick")
def test_features_of_the_classifier_are_rectified_and_of_unit_size() -> None:
    images, factors = stripes(300, 1, 8, 8)
    dataset = Held(images, factors[:, 0])
    features = Classifier(dataset).features(dataset.split("train").images())
    assert features.min() == 0
    assert features.square().mean().item() == pytest.approx(1, abs=1e-4)
    means = torch.stack([features[dataset.split("train").labels == k].mean(0) for k in range(4)])
    assert torch.cdist(means, means).fill_diagonal_(9).min() > 1  # classes lie apart


@pytest.mark.usefixtures("quick")
def test_the_classifier_depends_on_the_dataset_alone(fresh: Path) -> None:
    images, factors = stripes(300, 1, 8, 8)

    def fingerprint(images: Tensor) -> str:
        caching._memory.clear()
        for file in fresh.glob("*"):
            file.unlink()
        return Classifier(Held(images, factors[:, 0])).fingerprint

    torch.manual_seed(1)
    first = fingerprint(images)
    torch.manual_seed(2)
    assert fingerprint(images) == first
    other = images.clone()
    other[0] += 1
    assert fingerprint(other) != first


@pytest.mark.usefixtures("quick")
def test_the_classifier_is_trained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images, factors = stripes(300, 1, 8, 8)
    first = Classifier(Held(images, factors[:, 0]))
    features = first.features(images)

    def refuse(self: Classifier) -> dict[str, Tensor]:
        raise AssertionError("trained again")

    monkeypatch.setattr(Classifier, "_train", refuse)
    monkeypatch.setattr(caching, "_memory", {})
    again = Classifier(Held(images, factors[:, 0]))
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.features(images), features)
    with pytest.raises(AssertionError):
        _ = Classifier(Held(images, factors[:, 1])).label


@pytest.mark.usefixtures("quick")
def test_the_classifier_leaves_threads_and_random_states_alone() -> None:
    images, factors = stripes(300, 1, 8, 8)
    dataset = Held(images, factors[:, 0])
    torch.manual_seed(123)
    torch.set_num_threads(2)
    try:
        states = torch.get_rng_state(), np.random.get_state()[1].sum(), random.getstate()  # noqa: NPY002
        Classifier(dataset).features(images)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].sum()  # noqa: NPY002
    assert states[2] == random.getstate()


@pytest.mark.usefixtures("quick")
def test_the_classifier_gives_logits_of_one_target() -> None:
    images, factors = stripes(300, 1, 8, 8)
    for extractor in (
        Classifier(Held(images, factors[:, 0])),
        Classifier(Held(images, None, factors[:, [0, 2]])),  # the other factor does not vary
    ):
        assert extractor.why_no_logits() == ""
        logits = extractor.logits(images)
        assert logits.shape == (300, 4)
        assert not logits.requires_grad
        right = (logits[200:].argmax(1) == factors[200:, 0]).double().mean().item()
        assert right == pytest.approx(extractor.accuracy)
    several = Classifier(Held(images, factors[:, 0], factors))
    assert several.why_no_logits() == "the classifier has several targets"
    with pytest.raises(InputError, match="several targets"):
        several.logits(images)
    untrained = Classifier(Held(images))
    assert untrained.why_no_logits() == untrained.why_not() != ""


@pytest.mark.usefixtures("quick")
def test_the_classifier_reads_bytes_and_floats_alike() -> None:
    images, factors = stripes(300, 1, 8, 8)
    extractor, floats = Classifier(Held(images, factors[:, 0])), images.float() / 255
    for ask in (extractor.features, extractor.logits):
        assert torch.equal(ask(images), ask(floats))
    step = extractor.features(floats * 0.9999) - extractor.features(floats)  # less than a byte
    assert 0 < step.norm() < 1e-3 * extractor.features(floats).norm()


def test_an_extractor_without_logits_says_so() -> None:
    class Plain(Extractor):
        def features(self, images: Tensor) -> Tensor:
            return images.flatten(1).float()

    extractor = Plain(Held(stripes(9, 1, 8, 8)[0]))
    extractor.name = "plain"  # type: ignore[misc]
    assert extractor.why_no_logits() == "plain does not classify images"


def test_the_classifier_is_lazy() -> None:
    class Missing(Held):
        def load(self) -> dict[Any, Split]:
            raise AssertionError("loaded")

    Classifier(Missing(*stripes(9, 1, 8, 8)))


def test_the_classifier_needs_labels_or_factors() -> None:
    images, factors = stripes(60, 1, 8, 8)
    for dataset in (Held(images), Held(images, None, factors[:, 2:])):
        extractor = Classifier(dataset)
        assert "use inception" in extractor.why_not()
        with pytest.raises(InputError, match="neither labels nor factors"):
            extractor.features(images)


def test_every_extractor_says_what_it_is() -> None:
    images, factors = stripes(60, 1, 8, 8)
    choices = Extractor.choices()
    assert {"classifier", "inception"} <= set(choices)
    for name in ("classifier", "inception"):
        assert choices[name].description
        assert choices[name](Held(images, factors[:, 0])).why_not() == ""


# Inception: a stub in its file's stead.


class Stub(torch.nn.Module):
    """Reads 0 to 255 and is asked as NVIDIA's script is; its features are the channels' means."""

    def forward(
        self,
        img: Tensor,
        return_features: bool = False,
        use_fp16: bool = False,
        no_output_bias: bool = False,
    ) -> Tensor:
        assert return_features != no_output_bias
        assert not use_fp16
        assert img.shape[1] == 3
        assert img.shape[0] <= 50
        means = img.to(torch.float32).mean(dim=(2, 3))
        if return_features:
            return means
        return torch.softmax(means * torch.arange(3), dim=1)


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stub's file, whose hash is taken for the right one."""
    folder = tmp_path / "served"
    folder.mkdir()
    path = folder / inception.FILE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Stub()).save(str(path))
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(inception, "URL", "http://127.0.0.1:9/nothing-listens-here.pt")
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_inception_from_a_named_file(
    stub: Path, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    monkeypatch.setenv("AEBENCH_INCEPTION", str(stub))
    images, _ = stripes(120, channels, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = Inception(Held(images)).features(images)
    expected = images.float().mean((2, 3)).expand(-1, 3)
    assert torch.allclose(features, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_inception_reads_bytes_and_floats_alike(
    stub: Path, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    monkeypatch.setenv("AEBENCH_INCEPTION", str(stub))
    images, _ = stripes(70, channels, 8, 8)
    extractor, floats = Inception(Held(images)), images.float() / 255
    for ask in (extractor.features, extractor.logits):
        assert torch.allclose(ask(images), ask(floats), rtol=1e-5, atol=1e-4)
    step = extractor.features(floats * 0.999) - extractor.features(floats)  # less than a byte
    assert torch.allclose(step, -0.001 * extractor.features(images), atol=1e-3)
    assert step.abs().min() > 0


def test_inception_gives_logits_up_to_a_constant(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEBENCH_INCEPTION", str(stub))
    images = torch.randint(0, 30, (70, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    images = torch.cat([images, torch.full((2, 3, 8, 8), 255)]).to(torch.uint8)
    extractor = Inception(Held(images))
    assert extractor.why_no_logits() == ""
    logits = extractor.logits(images)
    plain = extractor.features(images) * torch.arange(3)
    assert torch.allclose(logits[:70], plain[:70].log_softmax(1), atol=1e-4)
    assert logits.isfinite().all()  # of a probability that is 0 in float32, too
    assert logits[71].argmax() == 2
    assert "2 channels" in Inception(Held(images[:, :2])).why_no_logits()


def test_inception_from_the_cache_folder(stub: Path, fresh: Path) -> None:
    fresh.mkdir(exist_ok=True)
    (fresh / inception.FILE).write_bytes(stub.read_bytes())
    assert inception.inception_file() == fresh / inception.FILE


@pytest.fixture
def server(stub: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(stub.parent)))
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_address[1]}/{stub.name}"
    served.shutdown()
    thread.join()
    served.server_close()


def test_inception_is_downloaded_once(
    stub: Path, fresh: Path, server: str, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(inception, "URL", server)
    fresh.mkdir(exist_ok=True)
    (fresh / inception.FILE).write_bytes(b"half a file")
    path = inception.inception_file()
    assert path == fresh / inception.FILE
    assert path.read_bytes() == stub.read_bytes()
    monkeypatch.setattr(inception, "URL", "http://127.0.0.1:9/nothing-listens-here.pt")
    assert inception.inception_file() == path
    assert capfd.readouterr() == ("", "")


def test_a_download_of_another_file_is_refused(
    stub: Path, fresh: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inception, "URL", server)
    monkeypatch.setattr(inception, "SHA256", "0" * 64)
    with pytest.raises(InputError, match="cannot download") as raised:
        inception.inception_file()
    assert "\n" not in str(raised.value)
    assert not (fresh / inception.FILE).exists()


@pytest.mark.usefixtures("stub")
def test_inception_that_cannot_be_had_says_where_to_put_it(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(InputError) as raised:
        Inception(Held(*stripes(3, 1, 8, 8)[:1])).features(stripes(3, 1, 8, 8)[0])
    message = str(raised.value)
    assert str(fresh / inception.FILE) in message
    assert "$AEBENCH_INCEPTION" in message
    assert "\n" not in message


def test_a_wrong_named_file_is_refused(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong.pt"
    wrong.write_bytes(stub.read_bytes() + b" ")
    monkeypatch.setenv("AEBENCH_INCEPTION", str(wrong))
    with pytest.raises(InputError, match=r"wrong\.pt is not inception-2015-12-05\.pt"):
        inception.inception_file()
    monkeypatch.setenv("AEBENCH_INCEPTION", str(tmp_path / "absent.pt"))
    with pytest.raises(InputError, match="no such file"):
        inception.inception_file()


def test_inception_reads_grey_or_rgb() -> None:
    images = torch.zeros(3, 2, 8, 8, dtype=torch.uint8)
    extractor = Inception(Held(images))
    assert "2 channels" in extractor.why_not()
    with pytest.raises(InputError, match="2 channels"):
        extractor.features(images)


def test_real_features_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from aebench.benchmark.metrics import Fitted
    from aebench.models import Autoencoder, DataSpec, Sampler
    from aebench.models.backbones import Backbone

    class Same(Sampler):
        def sample(self, model: Autoencoder, n: int) -> Tensor:
            return torch.zeros(n, 2)

    class Echo(Autoencoder):
        def code(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return x.flatten(1)[:, :2]

        def raw(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return z.sum(1)[:, None, None, None].expand(-1, *self.data.shape)

    monkeypatch.setattr(classifier, "STEPS", 3)
    images, factors = stripes(60, 1, 8, 8)
    dataset = Held(images, factors[:, 0])
    seen = []
    plain = Classifier.features

    def count(self: Classifier, images: Tensor) -> Tensor:
        seen.append(len(images))
        return plain(self, images)

    monkeypatch.setattr(Classifier, "features", count)
    values = []
    for _ in range(2):
        model = Echo(DataSpec(dataset.shape), Backbone.choose("linear")())
        fitted = Fitted(model, dataset, Classifier(dataset), samplers={"same": Same()})
        values.append(FID().compute(fitted, "same")["fid"])
    assert seen == [20, 20, 20]  # real and generated, then generated alone
    assert values[0] == values[1] > 0
    assert math.isfinite(values[0])
