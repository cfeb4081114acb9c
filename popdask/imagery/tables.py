"""Tables in files: Parquet or CSV, and features with geometry in what GDAL or GeoParquet reads.

What cannot be read is a bad input, told in one sentence, whichever library found it out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pyarrow
import pyarrow.parquet
from shapely.errors import ShapelyError

from popdask.cube.rasters import is_remote, missing_file
from popdask.errors import InputError
from popdask.whole import Path_

PARQUET = {".parquet", ".pq"}
UNREADABLE = (OSError, ValueError, RuntimeError, pyarrow.ArrowException, ShapelyError)


def read_table(
    path: Path_, expected: str = "a table", *, dtype: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    r"""Read a table from a file.

    Parameters
    ----------
    path : path or URL
        Parquet, where it is called .parquet or .pq, or else CSV.
    expected : str, optional
        What the file should be, for the words of an error.
    dtype : mapping, optional
        Types of columns of CSV; others are found out.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    InputError
        If the file is missing or cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "people.csv")
    ...     _ = path.write_text("cell,people\n007,5\n")
    ...     read_table(path, dtype={"cell": str})
      cell  people
    0  007       5
    """
    with _readable(path, expected):
        if _is_parquet(path):
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=dtype)


def read_features(path: Path_, expected: str = "features") -> gpd.GeoDataFrame:
    """Read features with geometry from a file.

    Parameters
    ----------
    path : path or URL
        GeoParquet, where it is called .parquet or .pq, or else whatever GDAL reads.
    expected : str, optional
        What the file should hold, for the words of an error.

    Returns
    -------
    geopandas.GeoDataFrame

    Raises
    ------
    InputError
        If the file is missing, cannot be read or has no geometry.

    Examples
    --------
    >>> import tempfile
    >>> from shapely.geometry import Point
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "points.parquet")
    ...     gpd.GeoDataFrame({"people": [3]}, geometry=[Point(1, 2)]).to_parquet(path)
    ...     read_features(path)
       people     geometry
    0       3  POINT (1 2)
    """
    with _readable(path, expected):
        features = gpd.read_parquet(path) if _is_parquet(path) else gpd.read_file(path)
    if not isinstance(features, gpd.GeoDataFrame):
        raise InputError(
            f"{path} has no geometry; expected {expected}; give a file of features, not a table"
        )
    return features


def has_geometry(path: Path_) -> bool:
    """Tell GeoParquet from a Parquet file without geometry, by its header.

    Parameters
    ----------
    path : path or URL
        A Parquet file.

    Raises
    ------
    InputError
        If the file is missing or is not Parquet.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pd.DataFrame({"people": [3]}).to_parquet(f"{folder}/people.parquet")
    ...     has_geometry(f"{folder}/people.parquet")
    False
    """
    with _readable(path, "a Parquet file"):
        return b"geo" in (pyarrow.parquet.read_schema(path).metadata or {})


def _is_parquet(path: Path_) -> bool:
    return Path(path).suffix.lower() in PARQUET


@contextmanager
def _readable(path: Path_, expected: str) -> Iterator[None]:
    """Tell in one sentence that a file is missing, or that what reads it cannot."""
    name = os.fspath(path)
    if not is_remote(name) and not Path(name).exists():
        raise missing_file(name, expected)
    try:
        yield
    except FileNotFoundError as error:
        raise missing_file(name, expected) from error
    except UNREADABLE as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{name} cannot be read ({reason}); expected {expected}; it may be damaged or of "
            "another format: correct its path, or write it again"
        ) from error
