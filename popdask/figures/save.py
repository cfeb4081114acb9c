"""Figures as files: a reader sees the old one or the new one."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from popdask.whole import whole


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 120) -> Path:
    """Write a figure in one step: a reader sees the old file or the new one, never half of one.

    Parameters
    ----------
    figure
        A figure.
    path
        The file; its suffix says the format. Its folder is made if needed.
    dpi
        Dots per inch.

    Returns
    -------
    Path
        The file.
    """
    with whole(path) as unfinished:
        figure.savefig(unfinished, dpi=dpi)
    return Path(path)
