"""A training loop in bare PyTorch, as fast as one writes it by hand: the limit of the others.

It imports torch alone. Run as a script (``bare.py FOLDER SHARE SHARES PRECISION``) it trains a
share of the cells of a :mod:`.grid` on one thread, one after another.
"""

import contextlib
import json
import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Loss = Callable[[Tensor], Tensor]
"""Images float32 (B, C, H, W) in [0, 1] → what is minimised, averaged over them: a scalar."""
AT_ONCE = 500
"""Validation images at a time."""


def fit(
    loss: Loss,
    parameters: list[nn.Parameter],
    train: Tensor,
    val: Tensor,
    epochs: int,
    batch_size: int,
    lr: float,
    graph: bool = False,
) -> float:
    """Minimise ``loss`` by Adam and keep the weights of the best epoch; its validation loss.

    Args:
        loss: what is minimised.
        parameters: what it is minimised over.
        train: images, uint8 (n, C, H, W), on the device of the parameters.
        val: images to validate on after every epoch.
        epochs: how often.
        batch_size: images a step; a last, smaller batch is left out.
        lr: the learning rate.
        graph: capture the step in a CUDA graph.
    """
    optimizer = torch.optim.Adam(parameters, lr=lr, fused=True, capturable=graph)
    index = torch.empty(batch_size, dtype=torch.int64, device=train.device)

    def step() -> None:
        optimizer.zero_grad()
        loss(train[index].float() / 255).backward()
        optimizer.step()

    act = captured(step, index, len(train)) if graph else step
    weights = [parameter.detach() for parameter in parameters]
    best, kept = math.inf, [weight.clone() for weight in weights]
    for _ in range(epochs):
        order = torch.randperm(len(train), device=train.device)
        for some in order.split(batch_size)[: len(train) // batch_size]:
            index.copy_(some)
            act()
        with torch.no_grad():
            parts = [len(some) * loss(some.float() / 255) for some in val.split(AT_ONCE)]
            found = float(torch.stack(parts).sum()) / len(val)
            if found < best:
                best = found
                torch._foreach_copy_(kept, weights)
    torch._foreach_copy_(weights, kept)
    return best


def captured(step: Callable[[], None], index: Tensor, n: int) -> Callable[[], None]:
    """``step`` as a CUDA graph, after three steps that make what it keeps in memory."""
    index.copy_(torch.randperm(n, device=index.device)[: len(index)])
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def autoencoding(
    encoder: nn.Module, decoder: nn.Module, beta: float | None, precision: str = "32"
) -> Loss:
    """Half the squared error an image, and β times the KL of a diagonal Gaussian.

    Args:
        encoder: images to codes (B, d), or where there is a β to means and log variances (B, 2d).
        decoder: codes to logits of pixels.
        beta: β; None for an autoencoder without a prior.
        precision: ``bf16-mixed`` computes the networks in bfloat16.
    """

    def mixed() -> AbstractContextManager[object]:
        if precision == "32":
            return contextlib.nullcontext()
        return torch.autocast("cpu", torch.bfloat16)

    def loss(x: Tensor) -> Tensor:
        with mixed():
            found = encoder(x)
        found = found.float()
        divergence = x.new_zeros(())
        if beta is not None:
            mean, log_variance = found.chunk(2, dim=1)
            variance = log_variance.exp()
            found = mean + variance.sqrt() * torch.randn_like(mean)
            divergence = 0.5 * beta * (mean.square() + variance - log_variance - 1).sum()
        with mixed():
            raw = decoder(found)
        squares = F.mse_loss(torch.sigmoid(raw.float()), x, reduction="sum")
        return (0.5 * squares + divergence) / len(x)

    return loss


def main(folder: Path, share: int, shares: int, precision: str) -> None:
    """Train every ``shares``-th cell of the work in ``folder`` and write the losses there."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    work = json.loads((folder / "work.json").read_text())
    images = torch.load(folder / "images.pt")
    found = {}
    for cell in work["cells"][share::shares]:
        encoder, decoder = torch.load(folder / cell["networks"], weights_only=False)
        torch.manual_seed(cell["seed"])
        found[cell["networks"]] = fit(
            autoencoding(encoder, decoder, cell["beta"], precision),
            [*encoder.parameters(), *decoder.parameters()],
            images["train"],
            images["val"],
            work["epochs"],
            work["batch_size"],
            work["lr"],
        )
    (folder / f"bare-{share}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
