"""One linear map each way: the networks of the linear autoencoder."""

from torch import Tensor

from .mlp import MLP


class Linear(MLP):
    """An affine encoder and an affine decoder, whose output is the mean image itself.

    With a Gaussian observation model an ``ae`` on it has PCA's optimum (Baldi and Hornik 1989).
    """

    name = "linear"
    description = "one affine map each way, no output squashing"

    def __init__(self) -> None:
        super().__init__(hidden=())

    def squash(self, raw: Tensor) -> Tensor:
        return raw  # a squashed decoder would not be linear
