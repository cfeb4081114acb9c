"""Tables as Parquet, and with geometry as GeoParquet 1.1."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pandas as pd

from popdask.whole import Path_, whole


def write_geoparquet(frame: pd.DataFrame, path: Path_) -> Path:
    """Write a table as Parquet, a GeoDataFrame as GeoParquet, whole or not at all.

    Parameters
    ----------
    frame : DataFrame or GeoDataFrame
        One row per community, track, link or event. A GeoDataFrame has a CRS; the bounds of its
        geometry become the column ``bbox``, by which readers skip what lies elsewhere.
    path : path
        A file of that name is replaced, its folder made where it is missing.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = write_geoparquet(pd.DataFrame({"people": [3, 5]}), f"{folder}/links.parquet")
    ...     int(pd.read_parquet(path).people.sum())
    8
    """
    path = Path(path)
    with whole(path) as unfinished:
        if isinstance(frame, gpd.GeoDataFrame):
            frame.to_parquet(
                unfinished, index=False, schema_version="1.1.0", write_covering_bbox=True
            )
        else:
            frame.to_parquet(unfinished, index=False)
    return path
