"""Cells: images with their place on a grid and the people who live in them, cut and split."""

from popdask.imagery.cells.counts import counts_from_points, counts_from_raster, counts_from_table
from popdask.imagery.cells.cutting import as_bands, cut_cells, drop_padding
from popdask.imagery.cells.dataset import (
    cells_grid,
    load_tables,
    make_cells,
    open_cells,
    write_cells,
)
from popdask.imagery.cells.folder import list_folder, read_cells, write_folder
from popdask.imagery.cells.joining import join_cells
from popdask.imagery.cells.split import fold_cells, select_fold, split_cells, split_fingerprint
from popdask.imagery.grid import CellGrid

__all__ = [
    "CellGrid",
    "as_bands",
    "cells_grid",
    "counts_from_points",
    "counts_from_raster",
    "counts_from_table",
    "cut_cells",
    "drop_padding",
    "fold_cells",
    "join_cells",
    "list_folder",
    "load_tables",
    "make_cells",
    "open_cells",
    "read_cells",
    "select_fold",
    "split_cells",
    "split_fingerprint",
    "write_cells",
    "write_folder",
]
