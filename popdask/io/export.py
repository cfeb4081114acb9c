"""Arrays as GeoTIFF, a Cloud Optimized one or a band for each frame, and the colours of labels.

A frame is fetched in strips of rows, so that a large one need not fit into memory; it is written by
this process alone, so that a cluster's workers need not share its disk.

A TIFF has room for the colours of 8 and 16 bits without sign only; labels are −1 where there is
none, and may be many. GDAL reads the colours of any whole numbers from the file
``{raster}.aux.xml`` beside the raster, where it keeps what a format has no room for. So rasters of
labels keep their type and their −1, and still open in colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
import xarray as xr
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from popdask.errors import InputError
from popdask.io.frames import stamps
from popdask.io.grids import grid_of
from popdask.io.paths import Path_, atomic_path, naming, write_text


def write_colours(raster: Path_, colours: np.ndarray) -> Path:
    """Write the colours of the values of a one-band raster beside it, whole or not at all.

    Parameters
    ----------
    raster : path
        The raster, of whole numbers.
    colours : ndarray
        The colour of the values 0, 1, …: sRGB in [0, 1], float (n, 3).

    Returns
    -------
    Path
        ``{raster}.aux.xml``.

    Raises
    ------
    InputError
        If the colours are none.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import rasterio
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import xr_zeros
    >>> from popdask.io import write_cogs
    >>> classes = xr_zeros(GeoBox.from_bbox((0, 0, 4, 2), "EPSG:3035", resolution=1), "int16")
    >>> with TemporaryDirectory() as folder:
    ...     (raster,) = write_cogs(classes, folder, "classes")
    ...     _ = write_colours(raster, np.array([[0.2, 0.4, 0.6]]))
    ...     with rasterio.open(raster) as file:
    ...         file.colormap(1)
    {0: (51, 102, 153, 255)}
    """
    colours = np.asarray(colours, dtype=np.float64)
    if colours.ndim != 2 or colours.shape[1] != 3 or not ((colours >= 0) & (colours <= 1)).all():
        raise InputError(
            f"the colours of {Path(raster).name} are an array {colours.shape}; expected (n, 3) "
            "numbers in [0, 1]: give red, green and blue of each value"
        )
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    ElementTree.SubElement(band, "ColorInterp").text = "Palette"
    table = ElementTree.SubElement(band, "ColorTable")
    for red, green, blue in np.rint(colours * 255).astype(int):
        entry = {"c1": str(red), "c2": str(green), "c3": str(blue), "c4": "255"}
        ElementTree.SubElement(table, "Entry", entry)
    ElementTree.indent(root)
    return write_text(colours_path(raster), ElementTree.tostring(root, encoding="unicode") + "\n")


def colours_path(raster: Path_) -> Path:
    """Name the file beside a raster in which GDAL keeps what the format has no room for.

    Examples
    --------
    >>> colours_path("out/classes.tif").name
    'classes.tif.aux.xml'
    """
    raster = Path(raster)
    return raster.with_name(f"{raster.name}.aux.xml")


TILE = 512
STRIP_CELLS = 2**26


def write_cogs(
    array: xr.DataArray,
    folder: Path_,
    name: str,
    *,
    frames: Sequence[int] | None = None,
    strip_cells: int = STRIP_CELLS,
) -> list[Path]:
    """Write every time step as a Cloud Optimized GeoTIFF, whole or not at all.

    Parameters
    ----------
    array : DataArray
        (time, y, x) or (y, x) with a CRS, on NumPy or Dask. Whole numbers and booleans are labels
        (nodata −1 where signed, overviews by the most frequent value), real numbers are amounts
        (nodata NaN, overviews by the mean).
    folder : path
        Made where it is missing. Files of the same name are replaced.
    name : str
        The files are ``{name}_2006.tif``, with month and day where a frame is not of 1 January,
        and ``{name}.tif`` for an array without time.
    frames : list of int, optional
        Positions of the time steps to write; all of them by default.
    strip_cells : int
        Cells fetched at once, at least one row of tiles.

    Returns
    -------
    list of Path
        The files of all time steps, in the order of time, written now or not.

    Raises
    ------
    InputError
        If the array has other dimensions, or no CRS.

    Notes
    -----
    What other programs have noted beside a file that is replaced (``.tif.aux.xml``) goes with it.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import xr_zeros
    >>> grid = GeoBox.from_bbox((0, 0, 4, 2), "EPSG:3035", resolution=1)
    >>> community = xr_zeros(grid, "int32", time=["2006-01-01", "2011-01-01"])
    >>> with TemporaryDirectory() as folder:
    ...     [path.name for path in write_cogs(community, folder, "community")]
    ['community_2006.tif', 'community_2011.tif']
    """
    _check(array, name)
    paths = cog_paths(array, folder, name)
    if "time" not in array.dims:
        array = array.expand_dims("time")
    for i, path in enumerate(paths):
        if frames is None or i in frames:
            _write_cog(array[i], path, name, strip_cells)
    return paths


def cog_paths(array: xr.DataArray, folder: Path_, name: str) -> list[Path]:
    """Name the files that `write_cogs` writes, in the order of time.

    Examples
    --------
    >>> import pandas as pd
    >>> times = {"time": pd.to_datetime(["2006", "2011"])}
    >>> array = xr.DataArray(np.zeros((2, 1, 1)), times, ("time", "y", "x"))
    >>> [str(path) for path in cog_paths(array, "out", "people")]
    ['out/people_2006.tif', 'out/people_2011.tif']
    """
    if "time" not in array.dims:
        return [Path(folder, f"{name}.tif")]
    return [Path(folder, f"{name}_{stamp}.tif") for stamp in stamps(array["time"].values)]


def write_geotiff(array: xr.DataArray, path: Path_, *, strip_cells: int = STRIP_CELLS) -> Path:
    """Write all time steps as the bands of one tiled GeoTIFF, whole or not at all.

    Parameters
    ----------
    array : DataArray
        As for `write_cogs`. A band is described by its time.
    path : path
        A file of that name is replaced, its folder made where it is missing.
    strip_cells : int
        Cells fetched at once, at least one row of tiles.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If the array has other dimensions, or no CRS.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import xr_zeros
    >>> grid = GeoBox.from_bbox((0, 0, 4, 2), "EPSG:3035", resolution=1)
    >>> people = xr_zeros(grid, "float32", time=["2006-01-01", "2011-01-01"])
    >>> with TemporaryDirectory() as folder:
    ...     with rasterio.open(write_geotiff(people, f"{folder}/people.tif")) as file:
    ...         file.descriptions
    ('2006', '2011')
    """
    path = Path(path)
    _check(array, path.stem)
    if "time" in array.dims:
        names = stamps(array["time"].values)
    else:
        array, names = array.expand_dims("time"), [path.stem]
    with atomic_path(path) as unfinished, naming(path):
        _write_tiled(array, unfinished, names, strip_cells, zlevel=6)
    return path


def _check(array: xr.DataArray, name: str) -> None:
    if array.dims not in [("time", "y", "x"), ("y", "x")]:
        raise InputError(
            f"the array {name!r} has the dimensions {array.dims}; expected (time, y, x) or (y, x); "
            "select or transpose them"
        )
    grid_of(array)


def _write_cog(frame: xr.DataArray, path: Path, name: str, strip_cells: int) -> None:
    """Write one frame (y, x); GDAL makes a COG of a whole tiled file only."""
    resampling = "AVERAGE" if frame.dtype.kind == "f" else "MODE"
    with atomic_path(path) as unfinished, naming(path):
        tiled = unfinished.with_name("tiled.tif")
        _write_tiled(frame.expand_dims("time"), tiled, [name], strip_cells, zlevel=1)
        rasterio.shutil.copy(
            tiled,
            unfinished,
            driver="COG",
            compress="DEFLATE",
            predictor="YES",
            blocksize=TILE,
            overview_resampling=resampling,
            bigtiff="IF_SAFER",
        )
        colours_path(path).unlink(missing_ok=True)


def _write_tiled(
    array: xr.DataArray, path: Path, names: Sequence[str], strip_cells: int, *, zlevel: int
) -> None:
    """Write frames (time, y, x) as bands."""
    grid = grid_of(array)
    height, width = grid.shape
    dtype = np.dtype("uint8") if array.dtype == bool else array.dtype
    nodata = {"i": -1, "f": np.nan}.get(dtype.kind)
    profile = {"height": height, "width": width, "count": len(array), "dtype": dtype.name}
    profile |= {"transform": grid.transform, "crs": str(grid.crs), "nodata": nodata}
    profile |= {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "interleave": "band"}
    profile |= {"compress": "DEFLATE", "zlevel": zlevel, "bigtiff": "IF_SAFER"}
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        file.update_tags(**_tags(array))
        for band, (frame, name) in enumerate(zip(array, names, strict=True), start=1):
            file.set_band_description(band, name)
            _write_band(file, band, frame.astype(dtype), strip_cells)


def _write_band(file: DatasetWriter, band: int, frame: xr.DataArray, strip_cells: int) -> None:
    height, width = frame.shape
    for rows in row_strips(height, width, TILE, strip_cells):
        strip = frame[rows].compute().values
        file.write(strip, band, window=Window(0, rows.start, width, strip.shape[0]))


def row_strips(
    height: int, width: int, step: int, strip_cells: int = STRIP_CELLS
) -> Iterator[slice]:
    """Rows that are held at once: a multiple of a step, at least one, of so many cells at most."""
    rows = max(strip_cells // (width * step), 1) * step
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def _tags(array: xr.DataArray) -> dict[str, str]:
    tags = {key: str(array.attrs[key]) for key in ("units", "long_name") if key in array.attrs}
    if "time" in array.coords and array["time"].size == 1:
        tags["time"] = str(array["time"].values.ravel()[0])[:19]
    return tags
