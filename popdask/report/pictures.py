"""Figures inside the page: charts as SVG that take the page's ink, everything else as PNG."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from popdask.figures.colours import INK, MAIN

LARGEST_SVG = 400_000  # bytes; a figure of very many marks is smaller as pixels


@dataclass(frozen=True)
class Picture:
    """A figure of a report, with the words that go with it."""

    title: str
    """What it shows."""
    text: str
    """How to read it, in a sentence or two."""
    figure: Figure | Path
    """The figure itself, or a PNG file."""
    wide: bool = False
    """Whether it takes the whole width of the page."""


def markup(picture: Picture, number: int) -> str:
    """Write a figure as markup that needs no other file.

    Parameters
    ----------
    picture
        The figure.
    number
        Sets the figure's ids apart from those of others on the page.

    Returns
    -------
    str
        An ``<svg>`` without background in the colours of the page's theme, or an ``<img>`` of PNG.
        The same figure is the same text.
    """
    if isinstance(picture.figure, Path):
        return _image(picture.figure.read_bytes())
    buffer = io.BytesIO()
    plain: Any = {"svg.fonttype": "none", "svg.hashsalt": "popdask", "font.family": "sans-serif"}
    with rc_context(plain):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        picture.figure.savefig(buffer, format="svg", transparent=True, metadata=nothing, dpi=110)
    text = buffer.getvalue().decode()
    if len(text) > LARGEST_SVG:
        return _png(picture.figure)
    return _inlined(text, number)


def _inlined(text: str, number: int) -> str:
    """Cut what a page does not need, and let ink and ids be the page's."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor").replace("#000000", "currentColor")
    text = text.replace(MAIN, "var(--main)")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>f{number}-", text)
    return re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None}, facecolor="white")
    return _image(buffer.getvalue())


def _image(content: bytes) -> str:
    data = base64.b64encode(content).decode("ascii")
    return f'<img alt="" src="data:image/png;base64,{data}">'
