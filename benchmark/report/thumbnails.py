"""A report's pictures: small, within its file or beside it."""

import base64
import hashlib
import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

INLINE_BYTES = 12 * 2**20
"""Data and pictures within the page; where they are more, the pictures stand beside it."""
LARGEST = (400, 264)
"""Pixels that a picture has at most, half as many again as it is shown in."""


def in_view(title: str) -> tuple[int, str]:
    """What pictures are sorted by: copies, then samples, then walks through the codes."""
    order = ("reconstructions", "samples", "interpolations", "traversals")
    kind = title.partition("-")[0]
    return order.index(kind) if kind in order else len(order), title


class Pictures:
    """Pictures as thumbnails, within the page or beside it.

    Args:
        out: the file of the page.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(f"{out.stem}-pictures")
        self.contents: dict[str, bytes] = {}
        self.size = 0
        self.inline = True

    def add(self, title: str, path: Path) -> dict[str, Any]:
        """A picture as the template shows it."""
        from PIL import Image

        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail(LARGEST)
            buffer = io.BytesIO()
            small.save(buffer, "WEBP", quality=80, method=4)
        content = buffer.getvalue()
        name = hashlib.sha256(content).hexdigest()[:16]
        self.contents[name] = content
        self.size += len(content)
        words = title.replace("-", ", ", 1).replace("_", " ")
        return {"content": name, "title": words, "width": small.width, "height": small.height}

    def address(self, name: str) -> str:
        if self.inline:
            return f"data:image/webp;base64,{base64.b64encode(self.contents[name]).decode()}"
        return f"{quote(self.folder.name)}/{name}.webp"

    def write(self, taken: int) -> None:
        """Write what has no room within the page; what an earlier page had there is removed.

        Args:
            taken: the size of the data within the page.
        """
        self.inline = taken + 4 * self.size / 3 <= INLINE_BYTES
        kept = {} if self.inline else self.contents
        if kept:
            self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("*.webp") if self.folder.is_dir() else ():
            if re.fullmatch(r"[0-9a-f]{16}", old.stem) and old.stem not in kept:
                old.unlink()
        for name, content in kept.items():
            (self.folder / f"{name}.webp").write_bytes(content)
