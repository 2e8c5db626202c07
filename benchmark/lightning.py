"""A model as a ``LightningModule``, for those who train by Lightning's ``Trainer``.

Nothing here needs it: importing Lightning takes longer than importing all of aebench.
"""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from ..models import Autoencoder, Batch, Terms


class LightningAutoencoder(LightningModule):
    """Steps a model as :func:`~aebench.benchmark.train.train` does, and logs its terms each epoch.

    ``train/…`` and ``val/…`` are means over the images of an epoch. What precedes the first step is
    the caller's: the model's ``lr`` and ``make_optimizer``, its ``initialise`` and ``perceive``.

    Args:
        model: the model; its weights are what is trained.
    """

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model

    def on_train_start(self) -> None:
        self.model.steps = int(self.trainer.estimated_stepping_batches)
        self.model.steps_done = 0

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Terms:
        """A step on images (B, C, H, W) in [0, 1], and their labels (B,) where there are any."""
        optimizers = self.optimizers(use_pl_optimizer=False)
        found = self.model.step(
            Batch(*batch), optimizers if isinstance(optimizers, list) else [optimizers]
        )
        self.model.steps_done += 1
        self._log("train", found, len(batch[0]))
        return found

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Terms:
        found = self.model.terms(Batch(*batch))
        self._log("val", found, len(batch[0]))
        return found

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return self.model.configure_optimizers()

    def _log(self, split: str, terms: Terms, images: int) -> None:
        named: dict[str, Any] = {f"{split}/{name}": term for name, term in terms.items()}
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=images)
