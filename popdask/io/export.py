"""Arrays as GeoTIFF, the colours of labels, and a catalogue of what is exported.

A GeoTIFF is a Cloud Optimized one for each frame, or one with a band for each.

A frame is fetched in strips of rows, so that a large one need not fit into memory; it is written by
this process alone, so that a cluster's workers need not share its disk.

A TIFF has room for the colours of 8 and 16 bits without sign only; labels are −1 where there is
none, and may be many. GDAL reads the colours of any whole numbers from the file
``{raster}.aux.xml`` beside the raster, where it keeps what a format has no room for. So rasters of
labels keep their type and their −1, and still open in colour.

The catalogue is a SpatioTemporal Asset Catalog (STAC 1.1): an item per frame, one collection.
Everything is read from the files themselves: place and type of a raster, rows and columns of a
table. Links are relative, so the folder can be moved and put behind a web server as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow.parquet
import pystac
import rasterio
import rasterio.shutil
import rasterio.warp
import shapely
import shapely.affinity
import shapely.geometry
import xarray as xr
from pystac.extensions.classification import Classification, ClassificationExtension
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.table import Column, TableExtension
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from popdask.errors import InputError
from popdask.io.frames import stamps, time_form
from popdask.io.grids import grid_of
from popdask.io.paths import Path_, atomic_path, naming, write_text

TILE = 512
STRIP_CELLS = 2**26
_GEOTIFF = pystac.MediaType.GEOTIFF.value
_COG = pystac.MediaType.COG.value
_MEDIA = {
    ".tif": _GEOTIFF,
    ".gpkg": pystac.MediaType.GEOPACKAGE.value,
    ".parquet": "application/vnd.apache.parquet",
    ".zarr": pystac.MediaType.ZARR.value,
}
_CORNERS = 9  # points along a side of the footprint, which is curved in longitude and latitude
_DIGITS = 7  # of a degree: a centimetre

Frames = Mapping[Any, Mapping[str, Path]]
Sums = Mapping[Path, str]


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


def write_catalog(
    folder: Path_,
    name: str,
    frames: Frames,
    others: Mapping[str, Path] | None = None,
    *,
    description: str | None = None,
    sha256: Sums | None = None,
) -> list[Path]:
    """Write a collection of some exported files, with an item for each frame.

    Parameters
    ----------
    folder : path
        Of the collection, ``{name}_collection.json``, and the items, ``{name}_2006.json``. The
        files lie there too, or below.
    name : str
        The region's name.
    frames : dict
        By time the rasters of each frame, each by what it is: ``{time: {"population": path}}``. All
        lie on one grid.
    others : dict of path, optional
        Files of all frames, by what they are: GeoTIFF, GeoPackage, (Geo)Parquet.
    description : str, optional
        Of the collection, as CommonMark.
    sha256 : dict of str, optional
        Checksums of files, in hexadecimal; they become multihashes.

    Returns
    -------
    list of Path
        The items in the order of time, and the collection.

    Raises
    ------
    InputError
        If there is no raster.

    Notes
    -----
    Footprint and bounds are in WGS 84, cut at the antimeridian. Where a raster has colours, they
    are told as its classes if there are 256 of them at most. A frame's time is taken for UTC.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import xr_zeros
    >>> from popdask.io import write_cogs
    >>> grid = GeoBox.from_bbox((6e5, 6e6, 7e5, 61e5), "EPSG:25833", resolution=1000)
    >>> people = xr_zeros(grid, "float32", time=["2006-01-01"])
    >>> with TemporaryDirectory() as folder:
    ...     (raster,) = write_cogs(people, folder, "north_people")
    ...     item, collection = write_catalog(folder, "north", {"2006": {"people": raster}})
    ...     found = pystac.Collection.from_file(str(collection))
    ...     [item.properties["proj:code"] for item in found.get_items()]
    ['EPSG:25833']
    """
    folder, sha256 = Path(folder).absolute(), sha256 or {}
    if not frames or not all(frames.values()):
        raise InputError(f"the catalogue of {name} has no rasters: give one for each frame")
    stamps = pd.DatetimeIndex(list(frames))
    form = time_form(stamps)
    ordered = sorted(zip(stamps, frames.values(), strict=True), key=lambda one: one[0])
    items = [_item(f"{name}_{at.strftime(form)}", at, rasters, sha256) for at, rasters in ordered]
    collection = _collection(folder, name, description, items[0], stamps)
    for item in items:
        collection.add_item(item)
        item.set_self_href(str(folder / f"{item.id}.json"))
    for key, path in (others or {}).items():
        collection.add_asset(key, _asset(key, path, sha256))
        _describe_table(collection.assets[key], path)
    return _written(collection)


def _collection(
    folder: Path, name: str, description: str | None, item: pystac.Item, stamps: pd.DatetimeIndex
) -> pystac.Collection:
    """Describe what all frames of the region share."""
    assert item.bbox is not None
    collection = pystac.Collection(
        name,
        description or f"The exported results of {name}, one item for each frame.",
        pystac.Extent(
            pystac.SpatialExtent([item.bbox]),
            pystac.TemporalExtent([[_utc(stamps.min()), _utc(stamps.max())]]),
        ),
        catalog_type=pystac.CatalogType.SELF_CONTAINED,
        license="other",
    )
    collection.set_self_href(str(folder / f"{name}_collection.json"))
    return collection


def _item(name: str, stamp: pd.Timestamp, rasters: Mapping[str, Path], sha256: Sums) -> pystac.Item:
    """Describe where a frame lies and when it is, and which rasters it has."""
    with rasterio.open(next(iter(rasters.values()))) as file:
        geometry, bbox = footprint(file.crs, _bounds(file))
        item = pystac.Item(name, geometry, bbox, _utc(stamp), {})
        code = file.crs.to_epsg()
        ProjectionExtension.ext(item, add_if_missing=True).apply(
            code=f"EPSG:{code}" if code else None,
            wkt2=None if code else file.crs.to_wkt(version="WKT2_2019"),
            bbox=_bounds(file),
            shape=list(file.shape),
            transform=list(file.transform)[:6],
        )
    for key, path in rasters.items():
        item.add_asset(key, _asset(key, path, sha256))
        _describe_raster(item.assets[key], path)
    return item


def _asset(key: str, path: Path, sha256: Sums) -> pystac.Asset:
    """Describe a file by what it is, its size and its checksum; to be described further."""
    media = _MEDIA.get(path.suffix)
    asset = pystac.Asset(str(path.absolute()), key.replace("_", " "), None, media, ["data"])
    if path.is_dir():  # a Zarr group has neither size nor checksum of its own
        return asset
    asset.extra_fields["file:size"] = path.stat().st_size
    if path in sha256:
        asset.extra_fields["file:checksum"] = f"1220{sha256[path]}"  # SHA2-256, 32 bytes
    return asset


def _describe_raster(asset: pystac.Asset, path: Path) -> None:
    FileExtension.ext(asset, add_if_missing=True)
    with rasterio.open(path) as file:
        if file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG":
            asset.media_type = _COG
        asset.extra_fields["data_type"] = file.dtypes[0]
        if file.nodata is not None:
            asset.extra_fields["nodata"] = "nan" if np.isnan(file.nodata) else int(file.nodata)
        if "units" in file.tags():
            asset.extra_fields["unit"] = file.tags()["units"]
        colours = _colours(file)
    if colours:
        ClassificationExtension.ext(asset, add_if_missing=True).classes = [
            Classification.create(value, name=f"{asset.title}-{value}", color_hint=colour)
            for value, colour in colours.items()
        ]


def _describe_table(asset: pystac.Asset, path: Path) -> None:
    FileExtension.ext(asset, add_if_missing=True)
    if path.suffix != ".parquet":
        return
    metadata = pyarrow.parquet.read_metadata(path)
    table = TableExtension.ext(asset, add_if_missing=True)
    schema = metadata.schema.to_arrow_schema()
    table.columns = [Column({"name": field.name, "type": str(field.type)}) for field in schema]
    table.row_count = metadata.num_rows
    if b"geo" in (schema.metadata or {}):
        table.primary_geometry = json.loads(schema.metadata[b"geo"])["primary_column"]


def _colours(file: rasterio.DatasetReader) -> dict[int, str]:
    """The colours of a raster's values, RRGGBB; none where they are too many to be told."""
    try:
        found = file.colormap(1)
    except ValueError:  # so rasterio says that there are none
        return {}
    hexadecimal = {value: "{:02X}{:02X}{:02X}".format(*rgba) for value, rgba in found.items()}
    return hexadecimal if len(hexadecimal) <= 256 else {}


def footprint(crs: Any, bounds: Sequence[float]) -> tuple[dict[str, Any], list[float]]:
    """Outline in WGS 84 of what lies west, south, east and north, and its bounds there."""
    west, south, east, north = bounds
    x, y = np.linspace(west, east, _CORNERS), np.linspace(south, north, _CORNERS)
    ring: list[Any] = [(x, south), (east, y), (x[::-1], north), (west, y[::-1])]
    points = np.concatenate([np.column_stack(np.broadcast_arrays(*side))[:-1] for side in ring])
    corners = [tuple(map(float, point)) for point in [*points, points[0]]]
    outline = {"type": "Polygon", "coordinates": [corners]}
    geometry = rasterio.warp.transform_geom(
        crs, "OGC:CRS84", outline, antimeridian_cutting=True, precision=_DIGITS
    )
    ends = rasterio.warp.transform_bounds(crs, "OGC:CRS84", west, south, east, north)
    geometry, ends = _turned(geometry, ends)
    return geometry, [round(end, _DIGITS) for end in ends]


def _turned(
    geometry: dict[str, Any], bounds: tuple[float, ...]
) -> tuple[dict[str, Any], tuple[float, ...]]:
    """Bring longitudes beyond ±180°, which GDAL leaves as they are, back to the other side."""
    west, south, east, north = bounds
    if west >= -180 and east <= 180:
        return geometry, bounds
    world, outline = shapely.box(-180, -90, 180, 90), shapely.geometry.shape(geometry)
    sides = [
        shapely.intersection(shapely.affinity.translate(outline, turn), world)
        for turn in (-360, 0, 360)
    ]
    cut = shapely.union_all([side for side in sides if side.area > 0])
    if east - west >= 360:
        west, east = -180.0, 180.0
    else:
        west, east = (west + 180) % 360 - 180, 180 - (180 - east) % 360
    return shapely.geometry.mapping(cut), (west, south, east, north)


def _bounds(file: rasterio.DatasetReader) -> list[float]:
    """West, south, east and north; rasterio's south is the north where rows run northward."""
    left, bottom, right, top = file.bounds
    return [min(left, right), min(bottom, top), max(left, right), max(bottom, top)]


def _utc(stamp: pd.Timestamp) -> datetime:
    return stamp.to_pydatetime().replace(tzinfo=UTC)


def _written(collection: pystac.Collection) -> list[Path]:
    """Write the items, then the collection that links to them."""
    paths = []
    parts: list[pystac.Item | pystac.Collection] = [*collection.get_items(), collection]
    for part in parts:
        part.make_asset_hrefs_relative()
        text = json.dumps(part.to_dict(include_self_link=False), indent=2, ensure_ascii=False)
        paths.append(write_text(part.get_self_href() or "", f"{text}\n"))
    return paths
