"""Small rasters as they are published, and the archives that they are published in."""

import io
import zipfile

import numpy as np
import rasterio
from rasterio.transform import from_origin

from popdask.datasets.frames import MOLLWEIDE, WGS84


def raster(values, transform, crs, nodata, dtype="float32"):
    """The bytes of a GeoTIFF."""
    values = np.asarray(values, dtype)
    height, width = values.shape
    profile = {"width": width, "height": height, "count": 1, "dtype": dtype, "crs": crs}
    with rasterio.MemoryFile() as file:
        with file.open(driver="GTiff", transform=transform, nodata=nodata, **profile) as out:
            out.write(values, 1)
        return file.read()


def worldpop(year, shape=(40, 30), seed=0):
    """Norway as WorldPop has it, with no data in a corner."""
    people = np.random.default_rng(seed + year).gamma(0.5, 40, shape)
    people[:5, :5] = -99999
    return raster(people, from_origin(5, 62, 1 / 120, 1 / 120), "EPSG:4326", -99999)


def tile(name, year, projection="mollweide", cells=100):
    """A zipped tile of GHS-POP of fewer cells, whose values tell where they are."""
    grid = {"mollweide": MOLLWEIDE, "wgs84": WGS84}[projection]
    row, column = (int(part[1:]) - 1 for part in name.split("_"))
    side = grid.side / cells
    down, right = np.mgrid[0:cells, 0:cells]
    values = (row * cells + down) * 10_000 + column * cells + right + year / 10_000
    transform = from_origin(grid.left + column * grid.side, grid.top - row * grid.side, side, side)
    return raster(values, transform, grid.crs, -200, "float64")


def zipped(members):
    """The bytes of an archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def publish_tile(site, name, year, code="54009_1000", projection="mollweide"):
    """Put a tile where the Joint Research Centre has it."""
    stem = f"GHS_POP_E{year}_GLOBE_R2023A_{code}_V1_0_{name}"
    folder = f"GHS_POP_E{year}_GLOBE_R2023A_{code}/V1-0/tiles"
    archive = zipped({f"{stem}.tif": tile(name, year, projection), "readme.txt": b"GHS-POP"})
    site.add(f"{folder}/{stem}.zip", archive)


def publish_norway(site, *years):
    """Put Norway where WorldPop has it."""
    for year in years:
        path = f"Global_2000_2020_1km/{year}/NOR/nor_ppp_{year}_1km_Aggregated.tif"
        site.add(path, worldpop(year))
