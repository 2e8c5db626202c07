"""What a model says of itself, read off its docstring: for a report that has no other source."""

import inspect
import re

BREAK = re.compile(r"\\\\(?:\[[^\]]*\])?")
ALIGNMENT = re.compile(r"(?<!\\)&")
STOP = re.compile(r"(?<!\\)[,.;]$")


def described(cls: type) -> dict[str, str]:
    """What a model says of itself: ``description``, ``objective`` and ``reference``.

    The description is the docstring's first line, the objective its first block of maths as one
    line of LaTeX. A class without a docstring has neither: its parent's need not hold.

    Args:
        cls: the model.
    """
    text = inspect.cleandoc(cls.__doc__ or "")
    return {
        "description": getattr(cls, "description", "") or text.partition("\n")[0],
        "objective": objective(text),
        "reference": getattr(cls, "reference", ""),
    }


def objective(text: str) -> str:
    r"""The first block of maths of a docstring as one line of LaTeX; empty where it has none.

    The lines of an alignment are joined by ``;``. A block with an environment of its own, such as
    ``\begin{cases}``, keeps its breaks.

    Args:
        text: the docstring, without the indentation of its code.
    """
    block = maths(text)
    if r"\begin{" not in block:
        lines = [ALIGNMENT.sub("", line).strip() for line in BREAK.split(block)]
        block = r";\quad ".join(STOP.sub("", line) for line in lines if line)
    return STOP.sub("", " ".join(block.split()))


def maths(text: str) -> str:
    """The first block of maths: what follows the directive until a blank line."""
    lines: list[str] = []
    for line in text.partition(".. math::")[2].splitlines():
        begun = any(lines)
        if (begun and not line.strip()) or (lines and line[:1].strip()):
            break
        lines.append("" if line.strip().startswith(":") else line.strip())  # an option
    return "\n".join(lines)
