"""Which files are the frames of a cube, of which time is each, and who lies beyond their grid.

A *frame* is a population raster of one time, in a file or behind a URL. A pattern such as
``pop_{time:%Y-%m}.tif`` is listed with its fields as wildcards; what stands in their place is read
with `datetime.strptime`, and files that do not fit are not frames.

Frames on other grids are brought onto one. Who is left out is counted one block of a frame at a
time: what the block has, less what of it lies on the grid, lies beyond.
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import math
import os
import re
import string
import unicodedata
import warnings
from calendar import monthrange
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pandas as pd

from popdask.errors import InputError
from popdask.io.paths import (
    failures,
    file_system,
    is_there,
    members,
    split_band,
    split_file,
    without_secrets,
)
from popdask.io.rasters import NO_GROUPS, is_remote, read_counts, read_grid, use_raster

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: GPW's list of years: "Population Count, v4.11 (2000, 2005, 2010): 30 arc-minutes".
_YEARS = re.compile(r"\(\d{4}(?:, ?\d{4})+\)")

#: Years that nanoseconds in 64 bits do not hold, or not to their end.
_FIRST_YEAR, _LAST_YEAR = 1677, 2262
Time = str | int | date | np.datetime64

#: What `datetime.strptime` takes for directives that read digits.
_DIRECTIVES = {
    "%": "%",
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "j": r"\d{1,3}",
    "f": r"\d{1,6}",
    "d": r"[ \d]?\d",
    **dict.fromkeys("mHIMS", r"\d{1,2}"),
}
CHUNK = 1024  # cells along a side of a block, where nothing else is asked for
_ROUNDING = 1e-9  # of the people of a raster
Frames = Mapping[Any, str]


def frame_time(time: Time) -> np.datetime64:
    """Turn a date, a text or a year into the time of a frame."""
    try:
        if isinstance(time, float | np.floating) and float(time).is_integer():
            time = int(time)
        stamp = pd.Timestamp(f"{time:04d}" if isinstance(time, int | np.integer) else time)
        if isinstance(time, float | np.floating) or stamp is pd.NaT:
            raise TypeError("neither a date nor a year")
        return stamp.as_unit("ns").to_datetime64()
    except pd.errors.OutOfBoundsDatetime as error:
        shown = time if isinstance(time, date) else repr(time)
        raise InputError(
            f"{shown} is not the time of a frame: expected one from 1678 to 2262, which "
            "nanoseconds in 64 bits hold; leave such frames out, by [input] start and end"
        ) from error
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{time!r} is not the time of a frame: expected a year such as 2006 or a date such as "
            "2006-05-01; correct it"
        ) from error


def time_text(time: Any) -> str:
    """Write the time of a frame as a date, with the hour where it is not midnight."""
    if not isinstance(time, str | date | np.datetime64):
        return str(time)
    stamp = pd.Timestamp(time)
    day = stamp.strftime("%Y-%m-%d")
    if stamp == stamp.normalize():
        return day
    return f"{day} {stamp.strftime('%H:%M:%S').removesuffix(':00')}"


def year_text(time: Any) -> str:
    """Write the time of a frame as a year where it is the first of January, else as `time_text`."""
    return time_text(time).removesuffix("-01-01")


def find_frames(
    pattern: str, start: Time | None = None, end: Time | None = None
) -> dict[np.datetime64, str]:
    """Find the files that a pattern names, with their times.

    Parameters
    ----------
    pattern : str
        A path or URL with ``{year}`` or ``{time:FORMAT}`` where the time stands, FORMAT as in
        `datetime.strptime`; ``*`` matches anything within a name, except a digit directly
        beside a time. The time may also stand in the name of a subdataset
        (``NETCDF:"pop.nc":pop_{year}``), of a file in an archive (``/vsizip/pop.zip/{year}.tif``),
        or of a band (``pop.tif#pop_{year}``, ``gpw.nc#{year}``).
    start, end : str, int, date, or numpy.datetime64, optional
        The first and last time wanted, both included: an end of "2019" takes in all of 2019.

    Returns
    -------
    dict of numpy.datetime64 to str
        Path of each frame, sorted by time.

    Raises
    ------
    InputError
        If the pattern has no time in it, finds nothing, or finds two files for one time.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for year in (2000, 2005, 2010):
    ...         Path(folder, f"pop_{year}.tif").touch()
    ...     [str(time)[:4] for time in find_frames(f"{folder}/pop_{{year}}.tif", end="2005")]
    ['2000', '2005']
    """
    wildcard, expression, formats = _parse_pattern(pattern)
    found: dict[np.datetime64, str] = {}
    for name, path in sorted(_list_names(wildcard)):
        moment = _time_in(name, expression, formats)
        if moment is None or _is_left_out(moment, start, end):
            continue
        time = frame_time(moment)
        if found.get(time, path) != path:
            raise InputError(
                f"the pattern {pattern!r} finds both {found[time]} and {path} for "
                f"{time_text(time)}; expected one file per time; narrow the pattern"
            )
        found[time] = path
    if not found:
        raise InputError(_nothing_found(pattern, wildcard))
    first = None if start is None else _period(start).start_time
    last = None if end is None else _period(end).end_time
    wanted = {
        time: found[time]
        for time in sorted(found)
        if (first is None or time >= first) and (last is None or time <= last)
    }
    if first is not None and last is not None and first > last:
        raise InputError(f"start={start!r} is later than end={end!r}; exchange them")
    if not wanted:
        raise InputError(
            f"the pattern {pattern!r} finds {len(found)} frames from {time_text(min(found))} to "
            f"{time_text(max(found))}, none of them within start={start!r} and end={end!r}; "
            "widen start and end"
        )
    return wanted


def frames_of_times(name: str, times: Iterable[Time]) -> dict[np.datetime64, str]:
    """Return the frames of one raster whose name has no time; several are its first bands."""
    stamps = [frame_time(time) for time in times]
    if any(later <= earlier for earlier, later in pairwise(stamps)):
        raise InputError(
            f"[input] times are {', '.join(map(time_text, stamps))}; expected each once, and in "
            "order; correct them"
        )
    if len(stamps) == 1:
        return {stamps[0]: name}
    return {stamp: f"{name}#band={band}" for band, stamp in enumerate(stamps, 1)}


def _parse_pattern(pattern: str) -> tuple[str, re.Pattern[str], list[str]]:
    """Split a pattern into a wildcard, an expression with one group per format, the formats."""
    wildcard, expression = "", ""
    formats: list[str] = []
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise InputError(
            f"the pattern {pattern!r} is wrong ({error}); expected {{year}} or {{time:%Y-%m}}; "
            "close its braces"
        ) from error
    for text, field, spec, _ in parts:
        literal = re.sub(r"\*+", "*", text)
        wildcard += glob.escape(literal).replace("[*]", "*")
        expression += _expression(literal, after_time=bool(formats), before_time=field is not None)
        if field is None:
            continue
        form = {"year": "%Y", "time": spec}.get(field)
        if not form:
            raise InputError(
                f"the pattern {pattern!r} has the field {{{field}}}; expected {{year}} or "
                "{time:FORMAT} with a format such as %Y-%m; rename it"
            )
        wildcard += "*"
        if form in formats:
            expression += f"(?P=time{formats.index(form)})"
        else:
            expression += f"(?P<time{len(formats)}>{_form(form)})"
            formats.append(form)
    if not formats:
        raise InputError(
            f"the pattern {pattern!r} has no time in it; expected {{year}} or {{time:FORMAT}} "
            "where the files, or the bands behind a #, differ; put it there, or give [input] times"
        )
    directives = _directives(formats)
    for twice in {name for name in directives if directives.count(name) > 1}:
        raise InputError(
            f"the pattern {pattern!r} reads %{twice} in several formats; expected it in one, which "
            "may be repeated; split them, as in {time:%Y}/pop_{time:%Y}-{time:%m}.tif"
        )
    _check_formats(pattern, formats)
    # fsspec takes two stars for folders within folders, or refuses them.
    expression = _composed(expression)
    return re.sub(r"\*+", "*", wildcard), re.compile(expression), formats


def _directives(formats: Iterable[str]) -> list[str]:
    return re.findall("%(.)", " ".join(formats).replace("%%", ""))


def _check_formats(pattern: str, formats: list[str]) -> None:
    """Refuse formats that write times which they cannot read, such as of quarters."""
    moment = datetime(2020, 3, 18, tzinfo=UTC)
    try:
        _parse_time([moment.strftime(form) for form in formats], formats)
    except ValueError as error:
        several = "the formats" if len(formats) > 1 else "the format"
        raise InputError(
            f"the pattern {pattern!r} has {several} {', '.join(map(repr, formats))}, by which no "
            f"time is read ({error}); expected directives of datetime.strptime such as %Y-%m; "
            "correct it"
        ) from error


def _parse_time(texts: Iterable[str], formats: list[str]) -> datetime:
    """Read a time by its formats; a week without a day is that of its Monday."""
    directives = set(_directives(formats))
    monday = directives & set("WUV") and not directives & set("aAuw")
    text, form = " ".join(texts), " ".join(formats)
    return datetime.strptime(f"{text} 1", f"{form} %u") if monday else datetime.strptime(text, form)


def _expression(literal: str, after_time: bool, before_time: bool) -> str:
    """Match text before, between or after times; a star beside one leaves it all of its digits."""
    expression = re.escape(literal).replace(r"\*", "[^/]*")
    if after_time and literal.startswith("*"):
        expression = rf"(?!\d){expression}"
    if before_time and literal.endswith("*"):
        expression = rf"{expression}?(?<!\d)"
    return expression


def _form(form: str) -> str:
    """Match what a format may read, as narrowly as its digits are known."""

    def expression(part: re.Match[str]) -> str:
        if part[1]:
            return _DIRECTIVES.get(part[1], "[^/]+?")
        return r"\s+" if part[0].isspace() else re.escape(part[0])

    return "(?i:" + re.sub(r"%(.)|\s+|.", expression, form) + ")"


def _list_names(wildcard: str) -> list[tuple[str, str]]:
    """List the rasters of a wildcard: files, and bands, subdatasets and archived files in them."""
    base, band = split_band(wildcard)
    split = split_file(base)
    if split is None:
        files = _list_files(base)
    else:
        begin, file, end = split
        found = _list_files(file.strip('"{}'))
        names = [(f'"{each}"' if file[0] == '"' else each) for each in found]
        files = [begin + each + end for each in names]
        if "*" in end:
            files = [
                inner
                for name, own in zip(names, found, strict=True)
                for inner in parts_of(begin + name, own)
            ]
    if band is None:
        return [(file, file) for file in files]
    if re.fullmatch(r"band=\d+", band):
        return [(f"{file}#{band}",) * 2 for file in files]
    return [
        (f"{file}#{called}", f"{file}#band={number}")
        for file in files
        for number, name in enumerate(band_names(file), 1)
        for called in _called(name)
    ]


def _called(band: str) -> list[str]:
    """What a pattern may call a band: that of a moment by its day, month and year, too."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?", band):
        return list(dict.fromkeys((band, band[:10], band[:7], band[:4])))
    return [band] if band else []


def parts_of(name: str, file: str) -> list[str]:
    """List what a file holds: files of an archive, or subdatasets."""
    from rasterio.errors import NotGeoreferencedWarning

    if name.startswith(("/vsizip/", "/vsitar/")):
        return [f"{name}/{member}" for member in members(file)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # what holds others has no place
        found = use_raster(file, lambda source: list(source.subdatasets), "a file of subdatasets")
    variables = [each.partition(Path(file).name)[2].lstrip('":') for each in found]
    return [f"{name}:{variable}" for variable in variables]


def band_names(path: str) -> list[str]:
    """What the bands of a raster say of themselves: a name, a year, a day; empty where nothing."""
    # A band is named by its description. GPW names the years of its first bands all together, in
    # the name of the variable; CF conventions give each band a time.
    return use_raster(path, _band_names, "a raster")


def _band_names(source: Any) -> list[str]:
    found = []
    for band in range(1, source.count + 1):
        tags = source.tags(band)
        years = _YEARS.search(f"{tags.get('NETCDF_VARNAME', '')} {tags.get('long_name', '')}")
        listed = re.findall(r"\d{4}", years[0]) if years else []
        described = source.descriptions[band - 1] or _moment_of(tags, source.tags())
        found.append(listed[band - 1] if band <= len(listed) else described)
    return found


def _moment_of(tags: Mapping[str, str], dataset: Mapping[str, str]) -> str:
    """When a band of a netCDF file is, by its axis of time; empty where it has none."""
    for key, value in tags.items():
        axis = key.removeprefix("NETCDF_DIM_")
        units = dataset.get(f"{axis}#units") or _units_of_years(axis, value)
        if axis != key and re.match(r"(?i)(\w+ since|years?$|yr$)", units):
            try:
                return _moment(float(value), units, dataset.get(f"{axis}#calendar", "standard"))
            except (ValueError, OverflowError):  # units that nobody reads
                return ""
    return ""


def _units_of_years(axis: str, value: str) -> str:
    """The units of an axis of time that names none and holds whole years."""
    named = axis.lower() in ("time", "year") and value.isdecimal()
    return "year" if named and _FIRST_YEAR < int(value) < _LAST_YEAR else ""


def _moment(passed: float, units: str, calendar: str) -> str:
    """Write as ISO text what has passed since a moment, in a calendar."""
    kind, _, since = units.lower().partition(" since ")
    if not since:
        return f"{math.floor(passed):04d}"
    begin = re.match(r"(-?\d+)-(\d+)-(\d+)", since)
    if begin and re.fullmatch("(common_)?years?|months?", kind):  # of the calendar, and whole
        first, month, day = map(int, begin.groups())
        months = math.floor(passed * (1 if kind.startswith("month") else 12) + 1e-6)
        year, month = divmod(12 * first + month - 1 + months, 12)
        return f"{year:04d}-{month + 1:02d}-{day:02d}"
    import cftime  # type: ignore[import-untyped]

    at = cftime.num2date(passed, units, calendar) + timedelta(seconds=0.5)
    day = min(at.day, monthrange(at.year, at.month)[1])  # some calendars have a 30th of February
    text = f"{at.year:04d}-{at.month:02d}-{day:02d}T"
    text += f"{at.hour:02d}:{at.minute:02d}:{at.second:02d}"
    return text.removesuffix(":00").removesuffix("T00:00")


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _without_accents(wildcard: str) -> str:
    """The wildcard with stars for all characters that may be written in two ways."""
    return "".join(
        "*" if unicodedata.normalize("NFD", one) != one or unicodedata.combining(one) else one
        for one in _composed(wildcard)
    )


def _list_files(wildcard: str) -> list[str]:
    if not is_remote(wildcard):
        # Accents are letters of their own in the names that some systems write, but look the same.
        wanted, anything = _composed(wildcard), re.sub(r"\*+", "*", _without_accents(wildcard))
        found = glob.glob(anything)  # noqa: PTH207
        return [path for path in found if fnmatch.fnmatchcase(_composed(path), wanted)]
    system, path = file_system(wildcard)
    refusals: tuple[type[Exception], ...] = (ValueError, *failures())  # the first: of all buckets
    try:
        return [system.unstrip_protocol(file) for file in system.glob(path)]
    except refusals as error:
        shown = re.sub(r"\[(.)\]", r"\1", wildcard)
        raise InputError(
            f"{without_secrets(shown)} cannot be listed ({error}); expected a folder that you "
            "may list; check its name, the endpoint and the credentials"
        ) from error


def _is_left_out(moment: datetime, start: Time | None, end: Time | None) -> bool:
    """Whether a time that nanoseconds cannot hold is before the start or after the end."""
    if _FIRST_YEAR < moment.year < _LAST_YEAR:
        return False
    return (start if moment.year <= _FIRST_YEAR else end) is not None


def _time_in(path: str, expression: re.Pattern[str], formats: list[str]) -> datetime | None:
    match = expression.fullmatch(_composed(path))
    if match is None:
        return None
    try:
        return _parse_time(match.groups(), formats)
    except ValueError:
        return None  # another file whose name begins and ends alike: pop_2006_draft.tif


def _nothing_found(pattern: str, wildcard: str) -> str:
    wildcard = re.sub(r"\[([\[?])\]", r"\1", wildcard)  # what glob.escape did
    folder = Path(wildcard).parent
    if wildcard.partition("#")[0].endswith((".zarr", ".zarr/")):
        return f"the pattern {pattern!r} finds no frame: it names a Zarr group; {NO_GROUPS}"
    if held := _held_in(wildcard):
        return (
            f"the pattern {pattern!r} finds no frame: {held}; expected one per time; correct it, "
            "or give [input] times"
        )
    if is_remote(wildcard) or "*" in str(folder):
        held = "nothing there matches"
    elif not (is_there(str(folder)) and folder.is_dir()):
        held = f"there is no folder {folder.absolute()}"
    elif not os.access(folder, os.R_OK):
        held = f"the folder {folder} is not one that you may list"
    else:
        names = sorted(entry.name for entry in folder.iterdir())
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        files = f"{len(names)} file{'s' if len(names) != 1 else ''}"
        held = f"the folder {folder} holds {files}" + (f" ({shown})" if names else "")
        if any(pattern.count(f"{{{field}}}") > 1 for field in ("year", "time")):
            held += ", and a field that is repeated is one time: a star stands for another"
    return f"the pattern {pattern!r} finds no frame: {held}; expected one file per time; correct it"


def _held_in(wildcard: str) -> str:
    """Say which bands, subdatasets or archived files there are in the one file of a wildcard."""
    base, band = split_band(wildcard)
    begin, file, end = split_file(base) or ("", base, "")
    if "*" in file or not (band or end):
        return ""
    name, file = begin + file, file.strip('"{}')
    names = band_names(base) if band else parts_of(name, file)
    if not names and not band:
        archive = name.startswith("/vsi")
        return f"{file} holds {'no files' if archive else 'no subdatasets, but one raster at most'}"
    if not names:
        held = use_raster(base, lambda source: list(source.subdatasets), "a raster")
        return f"{file} holds {'; '.join(held[:5])}, of which one is to be named"
    shown = ", ".join([each.removeprefix(name).lstrip(":/") for each in names if each][:5])
    return f"{file} holds {shown}" if shown else f"the {len(names)} bands of {file} have no names"


def _period(time: Time) -> pd.Period:
    """Return the year, month or day that a text names; anything else is an instant."""
    if isinstance(time, str | float | int | np.number):
        frame_time(time)
        return pd.Period(time if isinstance(time, str) else str(int(time)))
    return pd.Period(pd.Timestamp(time), freq="ns")


def time_form(times: Any) -> str:
    """Return the form in which times stand in the names of files, as short as distinguishes them.

    Examples
    --------
    >>> time_form(pd.DatetimeIndex(["2006-01-01", "2011-01-01"]))
    '%Y'
    >>> time_form(pd.DatetimeIndex(["2006-01-01", "2006-07-01"]))
    '%Y-%m-%d'
    """
    stamps = pd.DatetimeIndex(times)
    form = "%Y" if (stamps.strftime("%m%d") == "0101").all() else "%Y-%m-%d"
    return "%Y-%m-%dT%H%M%S" if stamps.strftime(form).has_duplicates else form


def stamps(times: Any) -> list[str]:
    """Write times as they stand in the names of files.

    Examples
    --------
    >>> stamps(["2006-01-01", "2006-07-01"])
    ['2006-01-01', '2006-07-01']
    """
    index = pd.DatetimeIndex(list(times))
    return index.strftime(time_form(index)).tolist()


def covering_grid(grids: Sequence[GeoBox]) -> GeoBox:
    """Extend the first of some grids by whole cells, so that it holds the others."""
    from odc.geo.geobox import GeoBox

    first = grids[0]
    sides = [_reach(grid, first) for grid in grids]
    top, left = (math.floor(min(side[i] for side in sides)) for i in (0, 1))
    bottom, right = (math.ceil(max(side[i] for side in sides)) for i in (2, 3))
    transform = first.transform * first.transform.translation(left, top)
    return GeoBox((bottom - top, right - left), transform, first.crs)


def target_grid(grids: Sequence[GeoBox], align: bool | str) -> GeoBox:
    """The grid of a cube: that of its first frame, or with ``"cover"`` one that holds all."""
    return covering_grid(grids) if align == "cover" else grids[0]


def grids_of(
    paths: Iterable[str], align: bool | str, *, people: bool = True
) -> tuple[dict[str, GeoBox], GeoBox]:
    """Read the headers of frames: the grid of each, and the one of the cube that they make."""
    from popdask.io.grids import describe_grid, same_grid

    grids = {path: read_grid(path, people=people) for path in paths}
    first, grid = next(iter(grids)), target_grid(list(grids.values()), align)
    for path, other in grids.items():
        if not (align or same_grid(other, grid)):
            raise InputError(
                f"{path} has {describe_grid(other)}, but {first} has {describe_grid(grid)}; "
                "expected one grid for all frames; pass align=True to bring them onto the first"
            )
    return grids, grid


def people_beyond(
    frames: Frames, *, align: bool | str = True, nodata: float | None = None
) -> pd.DataFrame:
    """Count the people of frames that lie beyond the grid onto which they are brought.

    Parameters
    ----------
    frames : mapping
        ``{time: path or URL}``; the first in order of time gives the grid.
    align : bool or "cover", optional
        As for `open_frames`.
    nodata : float, optional
        As for `open_frames`.

    Returns
    -------
    DataFrame
        time, raster (people of the frame, for frames on another grid), beyond; a row for each frame
        on another grid.

    Raises
    ------
    InputError
        If a frame is missing, or holds impossible counts.

    Examples
    --------
    >>> import tempfile
    >>> from popdask.synthetic import moving_cities
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first, second = moving_cities(frames=6).write(folder)[:2]
    ...     len(people_beyond({"2000": first, "2001": second}))  # none is on another grid
    0
    """
    from popdask.io.grids import same_grid

    times = {frame_time(time): str(path) for time, path in frames.items()}
    paths = {time: times[time] for time in sorted(times)}
    grids = {time: read_grid(path) for time, path in paths.items()}
    target = target_grid(list(grids.values()), align)
    rows = []
    for time, grid in grids.items():
        if align is not False and not same_grid(grid, target):
            total, inside = _people(paths[time], grid, target, nodata)
            beyond = total - inside
            rows.append((time, total, beyond if beyond > _ROUNDING * total else 0.0))
    return pd.DataFrame(rows, columns=["time", "raster", "beyond"])


def beyond_texts(table: pd.DataFrame) -> Iterable[str]:
    """Say of each frame how many people lie beyond the grid, where some do.

    Examples
    --------
    >>> import pandas as pd
    >>> told = {"time": [pd.Timestamp(2006, 1, 1)], "raster": [200.0], "beyond": [3.0]}
    >>> list(beyond_texts(pd.DataFrame(told)))
    ['3.0 of the 200.0 people of 2006 (1.50%) lie beyond the grid of the first frame']
    """
    for _, row in table[table["beyond"] > 0].iterrows():
        day, total, beyond = year_text(row["time"]), row["raster"], row["beyond"]
        yield (
            f"{beyond:,.1f} of the {total:,.1f} people of {day} ({beyond / total:.2%}) "
            "lie beyond the grid of the first frame"
        )


def check_beyond(table: pd.DataFrame, most: float) -> None:
    """Refuse frames of which too large a share lies beyond the grid.

    Raises
    ------
    InputError
        If it is more than `most` of a frame's people.

    Examples
    --------
    >>> import pandas as pd
    >>> told = {"time": [pd.Timestamp(2006, 1, 1)], "raster": [200.0], "beyond": [3.0]}
    >>> check_beyond(pd.DataFrame(told), most=0.02)
    """
    over = table[table["beyond"] > most * table["raster"]]
    if len(over):
        (text,) = beyond_texts(over.iloc[:1])
        raise InputError(
            f"{text}, and would be left out; expected at most {most:.0%}; set [input] align = "
            '"cover" for a grid that holds all frames, begin with a frame that does, or set '
            "[input] max_beyond to the share that may be left out"
        )


def _people(path: str, grid: GeoBox, target: GeoBox, nodata: float | None) -> tuple[float, float]:
    """Count everyone of a raster, and those on the target grid, block by block."""
    tops, lefts = (range(0, size, CHUNK) for size in grid.shape)
    parts = [
        dask.delayed(_people_of_block)(path, grid, target, nodata, top, left)
        for top, left in itertools.product(tops, lefts)
    ]
    totals = dask.compute(*parts)
    return math.fsum(total for total, _ in totals), math.fsum(inside for _, inside in totals)


def _people_of_block(
    path: str, grid: GeoBox, target: GeoBox, nodata: float | None, top: int, left: int
) -> tuple[float, float]:
    from popdask.io.grids import share_out, source_window, turns

    window = (
        slice(top, min(top + CHUNK, grid.shape[0])),
        slice(left, min(left + CHUNK, grid.shape[1])),
    )
    people, inside = read_counts(path, *window, nodata=nodata), 0.0
    for turned in turns(grid, target):
        rows, columns = source_window(target, turned, *window)
        if rows.start < rows.stop and columns.start < columns.stop:
            moved = share_out(people, turned, window, target, rows, columns)
            inside += float(np.nansum(moved))
    return float(np.nansum(people, dtype="float64")), inside


def _reach(grid: GeoBox, first: GeoBox) -> tuple[float, float, float, float]:
    """Top, left, bottom and right of a grid, in cells of the first."""
    from popdask.io.grids import carry, describe_grid, turns

    rows, columns = (np.arange(size + 1) for size in grid.shape)
    ring_row = np.concatenate([0 * columns, 0 * columns + rows[-1], rows, rows])
    ring_column = np.concatenate([columns, columns, 0 * rows, 0 * rows + columns[-1]])
    reaches = []
    for turned in turns(grid, first):
        row, column = carry(ring_row, ring_column, turned, first)
        if np.isfinite(row).all() and np.isfinite(column).all():
            row, column = np.round(row, 6), np.round(column, 6)  # cells that meet but for rounding
            reaches.append((row.min(), column.min(), row.max(), column.max()))
    if not reaches:
        raise InputError(
            f"{describe_grid(grid)} cannot be carried onto {describe_grid(first)}; expected frames "
            'of one part of the Earth; set [input] align = true instead of "cover", or warp them'
        )
    middle = first.shape[1] / 2
    return min(reaches, key=lambda side: abs((side[1] + side[3]) / 2 - middle))


def displacement_warnings(displacements: pd.DataFrame) -> list[str]:
    """Say of every suspicious pair of frames how they lie, in one sentence each."""
    rows = displacements.loc[displacements["suspicious"], ["time", "next", "dy", "dx", "part"]]
    return [
        f"{year_text(time)} lies {_bearing(dy, dx)} of {year_text(after)}: places seem to "
        + (
            "grow and shrink at their borders; check how both were brought to the grid, or "
            "give finer cells"
            if part
            else "move that stand still; check the georeference of both, or move one of them by "
            "whole cells"
        )
        for time, after, dy, dx, part in rows.to_numpy(dtype=object)
    ]


def _bearing(dy: float, dx: float) -> str:
    """Say where the earlier frame lies, seen from the later, which is (dy, dx) cells further."""
    seen = [f"{cells:.1f} cells {way}" for cells, way in _ways(-dy, -dx) if cells >= 0.05]
    return " and ".join(seen)


def shift_text(shift: tuple[int, int]) -> str:
    """Say where a frame is moved."""
    moved = [
        f"{cells} cell{'s' if cells > 1 else ''} {way}" for cells, way in _ways(*shift) if cells
    ]
    return " and ".join(moved)


def _ways(down: float, right: float) -> list[tuple[float, str]]:
    """How far down and right is, and where to, on a grid whose rows run southward."""
    return [
        (abs(down), "south" if down > 0 else "north"),
        (abs(right), "east" if right > 0 else "west"),
    ]
