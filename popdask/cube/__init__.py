"""From rasters to a cube: population(time, y, x) on one grid, lazily."""

from popdask.cube.frames import find_frames, frame_fingerprint
from popdask.cube.grids import cell_size_m, grid_of, in_cells, pixel_area_km2
from popdask.cube.stack import open_cube, open_frames, write_cube

__all__ = [
    "cell_size_m",
    "find_frames",
    "frame_fingerprint",
    "grid_of",
    "in_cells",
    "open_cube",
    "open_frames",
    "pixel_area_km2",
    "write_cube",
]
