"""The cells of a :mod:`.grid` by Pythae: ``with_pythae.py FOLDER``, in an environment that has it.

One after another in one process, by its ``TrainingPipeline``; what the work does not state is
Pythae's default. It imports nothing of ours.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from pythae.models import AE, VAE, AEConfig, BetaVAE, BetaVAEConfig, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor, nn


class Encoder(BaseEncoder):
    """A network to codes, or to means and log variances."""

    def __init__(self, net: nn.Module, has_variance: bool) -> None:
        BaseEncoder.__init__(self)
        self.net, self.has_variance = net, has_variance

    def forward(self, x: Tensor) -> Any:
        found = self.net(x)
        if not self.has_variance:
            return ModelOutput(embedding=found)
        mean, log_variance = found.chunk(2, dim=1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """A network from codes to logits of pixels."""

    def __init__(self, net: nn.Module) -> None:
        BaseDecoder.__init__(self)
        self.net = net

    def forward(self, z: Tensor) -> Any:
        return ModelOutput(reconstruction=torch.sigmoid(self.net(z)))


class Losses(TrainingCallback):
    """Notes the validation loss of every epoch."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_log(self, training_config: Any, logs: Any, **kwargs: Any) -> None:
        self.found.append(logs["eval_epoch_loss"])


def model_of(cell: dict[str, Any], shape: tuple[int, ...], latent: int, networks: Any) -> Any:
    """Pythae's model of a cell on networks that are given."""
    nets = {"encoder": Encoder(networks[0], cell["beta"] is not None)}
    nets["decoder"] = Decoder(networks[1])
    held = {"input_dim": shape, "latent_dim": latent}
    if cell["model"] == "ae":
        return AE(AEConfig(**held), **nets)
    if cell["model"] == "vae":
        return VAE(VAEConfig(**held), **nets)
    return BetaVAE(BetaVAEConfig(**held, beta=cell["beta"]), **nets)


def main(folder: Path) -> None:
    """Train every cell of the work in ``folder`` and write the losses there, an AE's halved."""
    work = json.loads((folder / "work.json").read_text())
    images = {name: held.float() / 255 for name, held in torch.load(folder / "images.pt").items()}
    found = {}
    for cell in work["cells"]:
        networks = torch.load(folder / cell["networks"], weights_only=False)
        losses = Losses()
        config = BaseTrainerConfig(
            output_dir=str(folder / "pythae"),
            num_epochs=work["epochs"],
            per_device_train_batch_size=work["batch_size"],
            per_device_eval_batch_size=work["batch_size"],
            learning_rate=work["lr"],
            seed=cell["seed"],
            no_cuda=True,
        )
        model = model_of(cell, tuple(images["train"].shape[1:]), work["latent_dim"], networks)
        pipeline = TrainingPipeline(model=model, training_config=config)
        pipeline(train_data=images["train"], eval_data=images["val"], callbacks=[losses])
        # Its autoencoder minimises the whole squared error, its others half of it.
        found[cell["networks"]] = min(losses.found) / (2 if cell["model"] == "ae" else 1)
    (folder / "pythae.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
