"""Fill values that nobody declared: the largest value of a type, where people would be.

A raster that fills the sea with 65535 and does not say so holds millions of people that do not
exist. One cell may hold the largest value of its type by chance; several cells of one frame do not.
A block that meets the value asks the whole frame, so the answer does not depend on the chunks.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import MaskFlags

from popdask.errors import InputError

#: No integer type holds more: 1e20, 9.97e36 and 3.4e38 are fill values, in a single cell too.
BEYOND_PEOPLE = 2.0**64

#: A cell may hold so many people, where another nodata value shows that somebody thought of it.
_PLAUSIBLE = 2**16


def largest_value(dtype: np.dtype[Any]) -> int | float:
    """Give the largest value of a type.

    Examples
    --------
    >>> largest_value(np.dtype("uint16")), largest_value(np.dtype("int32"))
    (65535, 2147483647)
    """
    return int(np.iinfo(dtype).max) if dtype.kind in "iu" else float(np.finfo(dtype).max)


def check_largest_file(
    values: np.ma.MaskedArray[Any, Any],
    source: rasterio.DatasetReader,
    path: str,
    nodata: float | None = None,
) -> None:
    """Refuse a raster that holds its type's largest value in several cells, undeclared.

    Parameters
    ----------
    values : numpy.ma.MaskedArray
        A window of the raster, as stored.
    source : rasterio.DatasetReader
        The raster; it is read whole only where the window holds the value once.
    path : str
        What to call it in the error.
    nodata : float, optional
        A value that means no data by setting.

    Raises
    ------
    InputError
        If several cells hold the value, and it is not declared; where another value is, up to
        65535 counts as people.
    """
    largest = largest_value(values.dtype)
    held = count_largest(values, largest)
    if not held or nodata == largest:
        return
    declared = nodata is not None or source.mask_flag_enums[0] != [MaskFlags.all_valid]
    if declared and largest < _PLAUSIBLE:
        return
    if held > 1 or _held_in(source, largest) > 1:
        raise undeclared_error(path, values.dtype, largest)


def is_suspect(dtype: np.dtype[Any], fills: Collection[float]) -> bool:
    """Tell whether several cells with the largest value are none of people, as `fills` say.

    Examples
    --------
    >>> is_suspect(np.dtype("int16"), []), is_suspect(np.dtype("int16"), [-1.0])
    (True, False)
    """
    largest = largest_value(dtype)
    if any(float(fill) == float(largest) for fill in fills):
        return False
    return not fills or largest >= _PLAUSIBLE


def count_largest(values: Any, largest: float) -> int:
    """Count the cells with data that hold a value."""
    return int(np.ma.filled(values == largest, False).sum())


def undeclared_error(source: str, dtype: np.dtype[Any], largest: float) -> InputError:
    """Make the error for a frame that holds its type's largest value in several cells."""
    shown = f"{largest:g}" if dtype.kind == "f" else str(largest)
    people = "; where so many people live there, declare another value, such as nodata=-1"
    return InputError(
        f"{source} holds {shown}, the largest value of {dtype}, in several cells and does not "
        "declare it; expected counts of people, or a declared nodata value; declare it "
        f"(gdal_edit.py -a_nodata {shown}) or pass nodata={shown}"
        f"{people if largest < _PLAUSIBLE else ''}"
    )


def _held_in(source: rasterio.DatasetReader, largest: float) -> int:
    """Count the cells of a whole raster that hold a value, block by block, up to two."""
    held = 0
    for _, window in source.block_windows(1):
        held += count_largest(source.read(1, window=window, masked=True), largest)
        if held > 1:
            break
    return held
