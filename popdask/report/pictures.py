"""Figures inside the page: SVG that takes the page's ink, where need be around pixels."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from popdask.figures.colours import INK, MAIN

LARGE = 400_000  # bytes, from which a figure may be smaller with its map or its marks as pixels


@dataclass(frozen=True)
class Picture:
    """A figure of a report, with the words that go with it."""

    title: str
    """What it shows."""
    text: str
    """How to read it, in a sentence or two."""
    figure: Figure
    """The figure itself."""
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
        An ``<svg>`` without background in the colours of the page's theme. The same figure is the
        same text.
    """
    text = _svg(picture.figure)
    if len(text) > LARGE:
        text = min(text, *_with_pixels(picture.figure), key=len)
    return _inlined(text, number)


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    plain: Any = {"svg.fonttype": "none", "svg.hashsalt": "popdask", "font.family": "sans-serif"}
    with rc_context(plain):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing, dpi=110)
    return buffer.getvalue().decode()


def _with_pixels(figure: Figure) -> Iterator[str]:
    """Write a figure whose maps have a pixel for each cell, then with its marks as pixels too."""
    for image in (image for axes in figure.axes for image in axes.images):
        image.set_interpolation("none")
    yield _svg(figure)
    for marks in (mark for axes in figure.axes for mark in [*axes.collections, *axes.lines]):
        marks.set_rasterized(True)
    yield _svg(figure)


def _inlined(text: str, number: int) -> str:
    """Cut what a page does not need, and let ink and ids be the page's."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor").replace("#000000", "currentColor")
    text = text.replace(MAIN, "var(--main)")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>f{number}-", text)
    return re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
