"""What a report says of a model in words: its objective as MathML, its paper as a link."""

import re
import unicodedata
from functools import cache
from typing import Any

from markupsafe import Markup

MATHML = frozenset(
    {"math", "mfrac", "mi", "mn", "mo", "mover", "mpadded", "mphantom", "mroot", "mrow", "mspace"}
    | {"msqrt", "mstyle", "msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder"}
    | {"munderover"}
)
KEPT = frozenset(
    {"accent", "display", "displaystyle", "fence", "linethickness", "separator", "stretchy"}
    | {"width"}
)
LETTERS = {
    "script": "SCRIPT",
    "double-struck": "DOUBLE-STRUCK",
    "bold": "BOLD",
    "fraktur": "FRAKTUR",
}


@cache
def registered(model: str) -> dict[str, str]:
    """What the model of this name says of itself, if it is one of ours."""
    from ...models import Autoencoder
    from ..objective import described

    cls = Autoencoder.choices().get(model)
    return described(cls) if cls else {}


@cache
def mathml(latex: str) -> Markup:
    """LaTeX as MathML that has nothing but maths in it; as text where it cannot be read."""
    from xml.etree import ElementTree

    from latex2mathml.converter import convert

    if not latex:
        return Markup("")
    try:
        tree = ElementTree.fromstring(re.sub(' xmlns="[^"]*"', "", convert(latex)))
    except Exception:
        return Markup("<code>{}</code>").format(latex)
    if any(element.tag not in MATHML for element in tree.iter()):  # \text may hold HTML
        return Markup("<code>{}</code>").format(latex)
    for parent in list(tree.iter()):
        children = list(parent)
        for k in range(len(children) - 1, 0, -1):
            if function(children[k - 1]) and children[k].tag in ("mi", "mn", "msub", "msup"):
                parent.insert(k, ElementTree.Element("mspace", width="0.167em"))
    for element in tree.iter():
        if element.text in ("|", "‖", "∥"):
            element.tag, element.attrib = "mo", {"stretchy": "false"}
        elif variant := LETTERS.get(element.attrib.get("mathvariant", "")):
            element.text = letter(variant, element.text or "")
        normal = {"mathvariant": "normal"} if element.get("mathvariant") == "normal" else {}
        kept = {key: value for key, value in element.attrib.items() if key in KEPT}
        element.attrib = kept | normal
    return Markup(ElementTree.tostring(tree, encoding="unicode"))


def function(element: Any) -> bool:
    """Whether it is a name such as log, which stands apart from what follows."""
    name = element if element.tag == "mi" else element.find("mi")
    return name is not None and element.tag in ("mi", "msub", "munder") and len(name.text or "") > 1


def letter(variant: str, text: str) -> str:
    """A capital in script or double-struck: browsers read no other ``mathvariant`` than normal."""
    for name in (f"MATHEMATICAL {variant} CAPITAL {text}", f"{variant} CAPITAL {text}"):
        try:
            return unicodedata.lookup(name)
        except KeyError:
            continue
    return text


def link(reference: str) -> str:
    """Where a reference with an arXiv number or a DOI can be read; empty otherwise."""
    if found := re.search(r"arXiv:\s*(\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})", reference):
        return f"https://arxiv.org/abs/{found[1]}"
    if found := re.search(r"\b(10\.\d{4,9}/[\w.()/:;-]*\w)", reference):
        return f"https://doi.org/{found[1]}"
    return ""
