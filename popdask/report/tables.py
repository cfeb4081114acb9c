"""The tables of a report, as the columns that its page sorts, searches and draws.

Frames are positions in time, places are kilometres from the lower left corner of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from popdask.figures import number_colours
from popdask.figures.places import Grid

Columns = dict[str, list[Any]]


def community_columns(
    communities: pd.DataFrame, tracks: pd.DataFrame, times: np.ndarray, grid: Grid
) -> Columns:
    """List every community of every frame, with the track that it belongs to.

    Parameters
    ----------
    communities
        The table of :func:`popdask.tracking.summary.summarize`.
    tracks
        The table of :func:`popdask.tracking.linking.tracks`.
    times
        The frames.
    grid
        Where the cells lie.

    Returns
    -------
    dict of str to list
        ``frame``, ``community``, ``track``, ``people``, ``cells``, ``area`` (km²), ``x``, ``y``
        (km), ``velocity`` (km per year) and ``heading`` (degrees), None where there is none.
    """
    key = ["time", "community"]
    numbers = tracks.drop_duplicates(key)[[*key, "track"]]
    table = pd.DataFrame(communities).merge(numbers, on=key, how="left")
    table = table.sort_values(key, ignore_index=True)
    x, y = grid.place(np.asarray(table["centroid"]))
    return {
        "frame": _frames(table["time"], times),
        "community": table["community"].tolist(),
        "track": table["track"].fillna(-1).astype(int).tolist(),
        "people": plain(table["population"]),
        "cells": table["cells"].tolist(),
        "area": plain(table["area_km2"]),
        "x": plain(x.round(3)),
        "y": plain(y.round(3)),
        "velocity": plain(table["velocity"]),
        "heading": plain(table["heading"].round(1)),
    }


def link_columns(links: pd.DataFrame, times: np.ndarray) -> Columns:
    """List which community of a frame leads to which of the next, and with how many people."""
    return {
        "frame": _frames(links["time"], times),
        "source": links["source"].tolist(),
        "target": links["target"].tolist(),
        "people": plain(links["people"]),
    }


def event_columns(tracks: pd.DataFrame, times: np.ndarray) -> Columns:
    """List what happened to communities; that one goes on as it was is no news."""
    news = tracks[tracks["event"] != "continue"]
    parents = [[int(parent) for parent in found] for found in news["parent"]]
    return {
        "frame": _frames(news["time"], times),
        "event": news["event"].tolist(),
        "community": news["community"].tolist(),
        "track": news["track"].tolist(),
        "parents": parents,
    }


def track_colours(tracks: pd.DataFrame) -> Mapping[str, str]:
    """Give each track the colour that it has in every figure."""
    numbers = np.unique(tracks["track"].to_numpy(np.int64))
    colours = (number_colours(numbers) * 255).round().astype(int)
    return {
        str(number): "#{:02x}{:02x}{:02x}".format(*colour)
        for number, colour in zip(numbers.tolist(), colours.tolist(), strict=True)
    }


def plain(values: Any) -> list[Any]:
    """Turn numbers into those of JSON: whole ones without a point, NaN as None.

    Examples
    --------
    >>> plain(np.array([205.0, 0.5, np.nan]))
    [205, 0.5, None]
    """
    return [
        None if not np.isfinite(value) else int(value) if value == int(value) else float(value)
        for value in np.asarray(values, dtype=float)
    ]


def _frames(times: pd.Series, frames: np.ndarray) -> list[int]:
    found: list[int] = np.searchsorted(frames, times.to_numpy(frames.dtype)).tolist()
    return found
