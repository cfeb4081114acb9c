"""From rasters to a cube: population(time, y, x) on one grid, lazily."""

from popdask.cube.frames import find_frames
from popdask.cube.grids import cell_size_m, grid_of, in_cells, pixel_area_km2
from popdask.cube.stack import open_cube, open_frames, write_cube
from popdask.cube.versions import frame_fingerprint, frame_version

__all__ = [
    "cell_size_m",
    "find_frames",
    "frame_fingerprint",
    "frame_version",
    "grid_of",
    "in_cells",
    "open_cube",
    "open_frames",
    "pixel_area_km2",
    "write_cube",
]
