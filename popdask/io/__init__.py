"""Rasters, cubes, tables and catalogues: what is read, and what is written for other programs.

Every file is made beside its place and moved there when it is whole, and the same results give the
same bytes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cube": [
            "open_cube",
            "open_frames",
            "write_cube",
        ],
        "export": [
            "cog_paths",
            "colours_path",
            "write_catalog",
            "write_cogs",
            "write_colours",
            "write_geotiff",
        ],
        "frames": [
            "beyond_texts",
            "check_beyond",
            "find_frames",
            "people_beyond",
            "stamps",
            "time_form",
        ],
        "grids": [
            "cell_size_m",
            "grid_of",
            "in_cells",
            "pixel_area_km2",
        ],
        "pyramid": [
            "write_pyramid",
        ],
        "rasters": [
            "frame_fingerprint",
            "frame_version",
        ],
        "tables": [
            "link_lines",
            "track_lines",
            "with_tracks",
            "write_geoparquet",
            "write_gpkg",
        ],
    },
)
