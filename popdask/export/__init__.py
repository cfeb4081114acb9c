"""Finished results as files that other programs read: rasters, tables, layers and a catalogue.

Every file is made beside its place and moved there when it is whole, and the same results give the
same bytes.
"""

from popdask.export.catalog import write_catalog
from popdask.export.colours import colours_path, write_colours
from popdask.export.rasters import cog_paths, time_form, write_cogs, write_geotiff
from popdask.export.tables import write_geoparquet
from popdask.export.vectors import link_lines, track_lines, with_tracks, write_gpkg

__all__ = [
    "cog_paths",
    "colours_path",
    "link_lines",
    "time_form",
    "track_lines",
    "with_tracks",
    "write_catalog",
    "write_cogs",
    "write_colours",
    "write_geoparquet",
    "write_geotiff",
    "write_gpkg",
]
