"""Figures, and empty sheets for charts in the style of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from matplotlib import figure
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from popdask.figures.colours import INK

COUNT = FuncFormatter(lambda number, _: f"{number:,.0f}")
PLAIN = FuncFormatter(lambda number, _: f"{number:,g}")


class Figure(figure.Figure):
    """A figure that a notebook shows, though pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def sheet(
    title: str, rows: Sequence[float] = (1.0,), *, width: float = 6.0, height: float = 3.6
) -> tuple[Figure, list[Axes]]:
    """Lay out charts below each other, of relative heights, on one x axis."""
    drawn = Figure((width, height), layout="constrained")
    axes = drawn.subplots(len(rows), sharex=True, height_ratios=rows, squeeze=False)[:, 0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(color="#c4c4be")
    axes[0].set_title(title, loc="left", fontweight="bold")
    return drawn, list(axes)


def say(ax: Axes, note: str) -> None:
    """Leave axes empty but for a note."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, note, transform=ax.transAxes, ha="center", va="center", color=INK)
