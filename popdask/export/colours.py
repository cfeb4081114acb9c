"""Colours of the values of a raster, for programs that read with GDAL.

A TIFF has room for the colours of 8 and 16 bits without sign only; labels are −1 where there is
none, and may be many. GDAL reads the colours of any whole numbers from the file
``{raster}.aux.xml`` beside the raster, where it keeps what a format has no room for. So rasters of
labels keep their type and their −1, and still open in colour.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from popdask.errors import InputError
from popdask.whole import Path_, write_text


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
    >>> from popdask.export import write_cogs
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
    """Name the file beside a raster in which GDAL keeps what the format has no room for."""
    raster = Path(raster)
    return raster.with_name(f"{raster.name}.aux.xml")
