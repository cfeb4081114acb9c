"""What an object shows of itself in a notebook: a heading, a small table, perhaps a curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_STYLE = "text-align:left;vertical-align:top;padding:1px 12px 1px 0"
_WIDTH, _HEIGHT = 160, 28


def html_card(title: str, rows: Mapping[str, object], *, curve: Sequence[float] = ()) -> str:
    """Write a card as HTML."""
    table = "".join(
        f'<tr><th style="{_STYLE};font-weight:normal;opacity:0.65">{escape(name)}</th>'
        f'<td style="{_STYLE}">{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    drawn = _line(curve) if len(curve) > 1 else ""
    return f"<div><b>{escape(title)}</b>{drawn}<table>{table}</table></div>"


class ReprMixin:
    """Something that describes itself in a few words, on a line or as a card."""

    def summary(self) -> Mapping[str, str]:
        """What there is to say, by name."""
        raise NotImplementedError

    def __repr__(self) -> str:
        words = ", ".join(f"{what}: {word}" for what, word in self.summary().items())
        return f"{type(self).__name__}({words})"

    def _repr_html_(self) -> str:
        return html_card(type(self).__name__, self.summary())


def _line(numbers: Sequence[float]) -> str:
    """Draw numbers as a line of fixed size, as SVG."""
    low, high = min(numbers), max(numbers)
    step, scale = _WIDTH / (len(numbers) - 1), _HEIGHT / ((high - low) or 1)
    points = " ".join(
        f"{i * step:.1f},{(high - number) * scale + 1:.1f}" for i, number in enumerate(numbers)
    )
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT + 2}" style="margin-left:12px" role="img">'
        f'<polyline points="{points}" fill="none" stroke="currentColor"/></svg>'
    )
