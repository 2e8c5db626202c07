"""A folder of images of the user's own."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..plugins import InputError
from .base import SPLITS, Dataset, Split, SplitName

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")


class Folder(Dataset):
    """The images below a folder: png, jpg, jpeg, bmp, webp, gif (the first frame).

    Sub-folders are classes, numbered in alphabetical order, and hold their images at any depth; a
    folder without sub-folders has no labels. Where the folder has the three sub-folders ``train``,
    ``val`` and ``test``, these are the splits, and the classes are their sub-folders; otherwise the
    images are split 70 / 10 / 20 by a fixed permutation. Images are read in the order of their
    paths and held in memory. Names that begin with a dot are passed over.

    Args:
        path: the folder.
        size: the side, or (height, width), to which every image is resized, bilinear and
            anti-aliased; None keeps the images as they are, which must then agree.
        channels: 3 for colour, 1 for grey.
        limits: ``train``, ``val`` and ``test``, see :class:`Dataset`.

    Raises:
        InputError: no folder, no images, an image that cannot be read, sizes that differ, or
            images both with and without a class.
    """

    name = "folder"
    description = "the images below a folder (`path`), its sub-folders being classes or splits"

    def __init__(
        self,
        *,
        path: str,
        size: int | tuple[int, int] | None = None,
        channels: Literal[1, 3] = 3,
        **limits: Any,
    ) -> None:
        super().__init__(**limits)
        sides = (size, size) if isinstance(size, int) else size
        if sides is not None and (len(sides) != 2 or min(sides) < 1):
            raise InputError(
                f"dataset {self.name!r}: size must be a number of pixels or (height, width), "
                f"not {size!r}"
            )
        self.path, self.size, self.channels = Path(path).expanduser(), sides, channels

    def load(self) -> dict[SplitName, Split]:
        if not self.path.is_dir():
            raise InputError(f"dataset {self.name!r}: no such folder: {self.path}")
        official = [split for split in SPLITS if (self.path / split).is_dir()]
        if len(official) == 2:
            missing = next(split for split in SPLITS if split not in official)
            raise InputError(
                f"dataset {self.name!r}: {self.path} has {official[0]} and {official[1]} but no "
                f"{missing}: add it, or rename them if they are classes"
            )
        if len(official) < 3:
            (split,) = self.read([self.path])
            return self.permuted(split)
        return dict(zip(SPLITS, self.read([self.path / split for split in SPLITS])))

    def read(self, roots: list[Path]) -> list[Split]:
        """The images below each root, with the classes numbered over all of them."""
        found = [images_below(root) for root in roots]
        for root, paths in zip(roots, found):
            if not paths:
                raise InputError(
                    f"dataset {self.name!r}: no images in {root}; read are {', '.join(SUFFIXES)}"
                )
        names = [
            [path.relative_to(root).parts[0] if path.parent != root else None for path in paths]
            for root, paths in zip(roots, found)
        ]
        every = {name for some in names for name in some}
        if None in every and len(every) > 1:
            loose = next(p for root, ps in zip(roots, found) for p in ps if p.parent == root)
            raise InputError(
                f"dataset {self.name!r}: {loose} is in no class, while other images are in "
                "sub-folders: move it into one"
            )
        classes = {name: i for i, name in enumerate(sorted(name for name in every if name))}
        pixels = torch.from_numpy(self.stacked([path for paths in found for path in paths]))
        return [
            Split(part, torch.tensor([classes[name] for name in some if name]) if classes else None)
            for part, some in zip(pixels.split([len(paths) for paths in found]), names)
        ]

    def stacked(self, paths: list[Path]) -> np.ndarray:
        """The images at ``paths``, uint8 (n, C, H, W)."""
        first = self.decoded(paths[0])
        pixels = np.empty((len(paths), *first.shape), np.uint8)
        for i, path in enumerate(paths):
            image = self.decoded(path)
            if image.shape != first.shape:
                (h, w), (height, width) = image.shape[1:], first.shape[1:]
                raise InputError(
                    f"dataset {self.name!r}: {path} is {h}×{w} where {paths[0]} is "
                    f"{height}×{width}: give a size to resize them to"
                )
            pixels[i] = image
        return pixels

    def decoded(self, path: Path) -> np.ndarray:
        """One image, uint8 (C, H, W)."""
        from PIL import Image

        try:
            with Image.open(path) as opened:
                if opened.mode.startswith(("I", "F")):  # Pillow would clip them, not scale
                    raise ValueError(f"its pixels ({opened.mode}) are not of 8 bits")
                image = opened.convert("L" if self.channels == 1 else "RGB")
        except Exception as error:  # Pillow's decoders raise of every kind
            raise InputError(f"dataset {self.name!r}: cannot read {path}: {error}") from None
        if self.size is not None:
            height, width = self.size
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)


def images_below(root: Path) -> list[Path]:
    """The images below ``root`` at any depth, in the order of their paths."""
    paths = [path.relative_to(root) for path in root.rglob("*")]
    return [
        root / path
        for path in sorted(paths, key=lambda path: path.parts)
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.parts)
        and (root / path).is_file()
    ]
