"""The names of the files that the settlements job exports."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from popdask.config.jobs import SettlementsJob
from popdask.io import export

#: The arrays that are exported as rasters.
RASTERS = ("population", "degurba", "settlement")


def export_names(job: SettlementsJob, times: Iterable[np.datetime64 | str]) -> list[str]:
    """Name the files that a job exports, within their folder."""
    formats, name, stamps = set(job.output.export), job.name, export.stamps(times)
    tables = ("settlements", "settlement_tracks", "settlement_events", "settlement_links")
    by_format = {
        "cog": [f"{name}_{kind}_{stamp}.tif" for kind in RASTERS for stamp in stamps],
        "geotiff": [f"{name}_{kind}.tif" for kind in RASTERS],
        "geoparquet": [f"{name}_{kind}.parquet" for kind in tables],
        "gpkg": [f"{name}.gpkg"],
        "stac": [f"{name}_{what}.json" for what in ("collection", *stamps)],
        "report": [f"{name}_report.html"],
    }
    credits = [f"{name}_CREDITS.txt"] if formats and job.settlements.by_geonames else []
    written = [file for kind, files in by_format.items() if kind in formats for file in files]
    return written + credits
