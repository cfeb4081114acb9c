"""Tables in files: text as offices write it, Parquet, and features by GDAL or as GeoParquet.

*Text.* Commas or semicolons, decimal points or commas, UTF-8, UTF-16 or Latin-1, blanks around
names and values: a file says none of it. What separates is what the header has most of; a comma is
a decimal one where something else separates and numbers have it; text that is no UTF-8 is that of
Windows in western Europe, which has the letters of Latin-1. A compressed table is unpacked up to a
bound, since a small archive can hold any number of zeros.

*Written tables.* A column has one type, whatever is in it: a list of nothing says not of what, nor
does an empty column of text, and readers of several files refuse them side by side. Tracks and
links are lines from centroid to centroid; one that stays where it is has no length, and is a point.

What cannot be read is a bad input, said in one sentence, whichever library found it out.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import lzma
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely
from shapely.errors import ShapelyError

from popdask.errors import InputError
from popdask.io.paths import Path_, atomic_path, fsspec_options, members, naming, split_band
from popdask.io.rasters import check_tables, check_there, is_remote, missing_file, other_kind

#: What may stand between columns, the likeliest first.
SEPARATORS = (";", "\t", "|", ",")

#: A compressed table may unpack to so many bytes, or to so many times its own.
LARGE, RATIO = 256 << 20, 200

#: Files of an archive that are tables by themselves.
_TABLES = (".csv", ".tsv", ".tab")

#: Lines from which is told how numbers are written.
_LINES = 2000

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # which begins like that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: What sets thousands apart, beside a point where the decimals have a comma.
_APART = "\u00a0\u2009\u202f'’ \t"

_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_DECIMAL = re.compile(rf"[-+]?[0-9][0-9.{_APART}]*,[0-9]+(?:[eE][-+]?[0-9]+)?")
_POINT = re.compile(r"[-+]?\d[\d.]*\.\d+")
#: A number however it is written, or the code of a cell: what stands in rows, not in the header.
_VALUE = re.compile(
    rf"[-+]?[.,]?[0-9][0-9.,{_APART}]*(?:[eE][-+]?[0-9]+)?"
    r"|(?:CRS[0-9]+RES)?[0-9]+k?mN-?[0-9]+E-?[0-9]+|[0-9.]+[a-z-]+_-?[0-9]+_-?[0-9]+"
)
_COMMAS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")
_REMARK = re.compile(r'#|"?sep=.?"?\s*$', re.IGNORECASE)
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(\.\d{3})+")


@dataclass(frozen=True)
class Form:
    """How a table is written."""

    encoding: str
    """Its encoding, as Python calls it."""
    separator: str
    """What stands between its columns."""
    decimal: str
    """What stands before the decimals of its numbers."""
    columns: tuple[str, ...]
    """Names of its columns, without blanks around them."""
    before: int = 0
    """How many lines stand before the line of the names."""


def read_text_table(path: Path_, dtype: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Read a table of text, however it is written."""
    content = _content(os.fspath(path))
    _check_is_text(content)
    form = form_of(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # it would cut rows off
        try:
            table = pd.read_csv(
                io.BytesIO(content),
                sep=form.separator,
                decimal=form.decimal,
                encoding=form.encoding,
                names=list(form.columns),
                header=0,
                skiprows=form.before,
                index_col=False,
                skipinitialspace=True,
                dtype=dict(dtype or {}),
            )
        except pd.errors.ParserWarning as error:
            header = f"{form.separator} ".join(form.columns)[:60]
            raise ValueError(
                f"it has rows of more columns than its first line, {header!r}: that is to name "
                "them all, without titles before it"
            ) from error
    for column in table.select_dtypes(include=["object", "string"]):
        table[column] = _tidy(table[column], form, keep=column in (dtype or {}))
    return table


def _check_is_text(content: bytes) -> None:
    """Refuse what is no text whatever its name says."""
    if kind := other_kind(content[:64]):
        raise ValueError(f"it is {kind}, not a table of text: save it as CSV")


def form_of(content: bytes) -> Form:
    """Describe how a table is written."""
    encoding = _encoding(content)
    lines = io.TextIOWrapper(io.BytesIO(content), encoding, newline="")
    given = [(i, line) for i, line in enumerate(itertools.islice(lines, _LINES)) if line.strip()]
    if not given:
        raise ValueError("it is empty")
    begin, separator = _header([line for _, line in given])
    head = [line for _, line in given[begin:]]
    if _CONTROLS.search(head[0]):
        raise ValueError("it is no text")
    least = csv.field_size_limit(LARGE)  # outlines are long texts
    try:
        rows = csv.reader(head, delimiter=separator, skipinitialspace=True)
        first = next(rows)
        names = [first[0].removeprefix("#"), *first[1:]]
        columns = tuple(name.strip() or f"Unnamed: {i}" for i, name in enumerate(names))
        texts = [text.strip() for row in rows for text in row]
    finally:
        csv.field_size_limit(least)
    decimal = "." if separator == "," else _decimal(texts)
    return Form(encoding, separator, decimal, columns, given[begin][0])


def _header(lines: list[str]) -> tuple[int, str]:
    """Which line names the columns, behind remarks with ``#`` and Excel's ``sep=;``."""
    begin = next((i for i, line in enumerate(lines) if not _REMARK.match(line)), 0)
    separator = max(SEPARATORS, key=lines[begin].count)
    counts = [line.count(separator) for line in lines[: begin + 1]]
    texts = (text.strip(' "\r\n') for text in lines[begin].split(separator))
    # The last remark is the header where a row follows, not names.
    named = (
        begin > 0 and counts[begin - 1] == counts[begin] > 0 and any(map(_VALUE.fullmatch, texts))
    )
    return begin - named, separator


def _decimal(texts: list[str]) -> str:
    """Return what stands before decimals, where commas do not separate columns."""
    commas = [text for text in texts if _DECIMAL.fullmatch(text)]
    if commas and all(_COMMAS.fullmatch(text) for text in commas):
        raise ValueError(
            f"{commas[0]} may be {commas[0].replace(',', '')} or have decimals, and no other "
            "number tells: write thousands without commas"
        )
    if commas:
        return ","
    points = [text for text in texts if _POINT.fullmatch(text)]
    if not points or not all(_THOUSANDS.fullmatch(text) for text in points):
        return "."
    if any(text.count(".") > 1 for text in points):
        return ","
    raise ValueError(
        f"{points[0]} may be {points[0].replace('.', '')} or have decimals, and no other number "
        "tells: write thousands without points"
    )


def _encoding(content: bytes) -> str:
    for mark, name in _MARKS:
        if content.startswith(mark):
            return name
    head = content[:2000]
    if head.count(0) > len(head) // 4:  # letters of two bytes, of which one is mostly 0
        return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
    for name in ("utf-8", "cp1252"):
        try:
            content.decode(name)
        except UnicodeDecodeError:
            continue
        return name
    return "latin-1"


def _content(path: str) -> bytes:
    """The bytes of a file, unpacked where its name says that it is compressed."""
    import fsspec  # type: ignore[import-untyped]

    if is_remote(path):
        with fsspec.open(path, "rb", compression="infer", **fsspec_options(path)) as file:
            return bytes(file.read())
    size = Path(path).stat().st_size
    most = max(LARGE, RATIO * size)
    if path.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive, archive.open(_table_in(path)) as packed:
            content = bytes(packed.read(most + 1))
    else:
        with fsspec.open(path, "rb", compression="infer") as file:
            content = bytes(file.read(most + 1 if _is_compressed(path) else -1))
    if _is_compressed(path) and len(content) > most:
        raise InputError(
            f"{path} unpacks from {size:,} bytes to more than {most:,}, which a table does not; "
            "expected a table; unpack it yourself, if it is one"
        )
    return content


def _table_in(path: str) -> str:
    """Name the one table of an archive: what else it holds is to read, or of a system."""
    inside = members(path)
    tables = [name for name in inside if name.lower().endswith(_TABLES)]
    if len(tables) != 1 and len(inside) != 1:
        shown = ", ".join(inside[:5]) + (", …" if len(inside) > 5 else "")
        raise ValueError(
            f"it holds {len(inside)} files ({shown}), of which a table can be one: unpack it"
        )
    return (tables or inside)[0]


def _is_compressed(path: str) -> bool:
    return Path(path).suffix.lower() in (".gz", ".bz2", ".xz", ".zip", ".lzma", ".zst")


def _tidy(column: pd.Series, form: Form, *, keep: bool) -> pd.Series:
    """Take blanks away, and read numbers whose thousands are set apart; `keep` leaves them text."""
    texts = column.map(lambda value: value.strip() if isinstance(value, str) else value)
    given = [text for text in texts if isinstance(text, str) and text]
    if keep or not given or not _are_numbers(given, form):
        return texts
    blank = str.maketrans(dict.fromkeys(_apart(form)))

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return value.translate(blank).replace(form.decimal, ".")
        return value

    return pd.to_numeric(texts.map(plain))


def _apart(form: Form) -> str:
    # Between commas, those within quotes set thousands apart.
    commas = "," if form.separator == "," else ""
    return _APART + ("." if form.decimal == "," else commas)


def _are_numbers(texts: list[str], form: Form) -> bool:
    """Return whether all texts are numbers, their thousands set apart or not."""
    decimals = rf"(?:{re.escape(form.decimal)}\d+)?"
    plain = re.compile(rf"[-+]?\d+{decimals}", re.ASCII)
    grouped = re.compile(
        rf"[-+]?\d{{1,3}}(?P<mark>[{_apart(form)}])\d{{3}}(?:(?P=mark)\d{{3}})*{decimals}", re.ASCII
    )
    return all(plain.fullmatch(text) or grouped.fullmatch(text) for text in texts)


PARQUET = {".parquet", ".pq"}
UNREADABLE = (
    *(OSError, EOFError, ValueError, RuntimeError, pa.ArrowException, ShapelyError),
    *(csv.Error, zlib.error, zipfile.BadZipFile, lzma.LZMAError),
)


def read_table(
    path: Path_, expected: str = "a table", *, dtype: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Read a table: Parquet, or a folder of it, by its name; or else text, such as CSV."""
    # `dtype` are types of columns of text, which are otherwise found out.
    with _readable(path, expected):
        if parts := parts_of(path):
            table = _joined(path, {part: pd.read_parquet(part) for part in parts})
        elif _is_parquet(path):
            table = _with_index(pd.read_parquet(path))
        else:
            table = read_text_table(path, dtype)
    if table.empty:
        raise InputError(
            f"{path} has no rows; expected {expected}; it may have been cut off, or filtered away: "
            "write it again"
        )
    return table


def _with_index(table: pd.DataFrame) -> pd.DataFrame:
    """The same table, with what its rows are called as a column."""
    return table.reset_index() if any(table.index.names) else table


def _joined(path: Path_, parts: Mapping[Path, Any]) -> Any:
    """The rows of all parts of a table, which have the same columns."""
    first = next(iter(parts))
    for part, table in parts.items():
        if odd := sorted(set(map(str, table)) ^ set(map(str, parts[first]))):
            raise InputError(
                f"{part} has other columns than {first.name} ({', '.join(odd[:5])}); expected the "
                f"same in all parts of {path}; write them alike, or move what is no part away"
            )
    return pd.concat(list(map(_with_index, parts.values())), ignore_index=True)


def parts_of(path: Path_) -> list[Path]:
    """List the Parquet files of a folder; none where it is a file, or has none."""
    place = Path(path)
    files = sorted(place.rglob("*")) if place.is_dir() else []
    return [file for file in files if file.suffix.lower() in PARQUET and file.name[0] not in "._"]


def read_features(path: Path_, expected: str = "features") -> gpd.GeoDataFrame:
    """Read features with geometry from a file, or a layer of it, as in ``places.gpkg#towns``."""
    name, layer = split_band(os.fspath(path))
    check_tables(name)
    with _readable(name, expected):
        if parts := parts_of(name):
            features = _joined(path, {part: gpd.read_parquet(part) for part in parts})
        elif _is_parquet(name):
            features = gpd.read_parquet(name)
        else:
            features = gpd.read_file(name, layer=layer or _only_layer(name, expected))
    if not isinstance(features, gpd.GeoDataFrame):
        raise InputError(
            f"{path} has no geometry; expected {expected}; give a file of features, not a table"
        )
    lost = np.flatnonzero(features.geometry.isna())
    if lost.size:
        raise InputError(
            f"{path} has {lost.size} rows without a geometry, first row {lost[0]}; expected "
            f"{expected}; remove them, or give them their place"
        )
    return features


def _only_layer(path: str, expected: str) -> str | None:
    """Name the layer of a file that has shapes; None where it has none."""
    layers = [name for name, shapes in pyogrio.list_layers(path).tolist() if shapes]
    if len(layers) > 1:
        raise InputError(
            f"{path} holds {len(layers)} layers ({', '.join(layers[:5])}); expected one of "
            f"{expected}; name it, as in {path}#{layers[0]}"
        )
    return layers[0] if layers else None


def has_geometry(path: Path_) -> bool:
    """Distinguish GeoParquet from a Parquet file without geometry, by its header."""
    with _readable(path, "a Parquet file"):
        part = next(iter(parts_of(path)), path)
        return b"geo" in (pq.read_schema(part).metadata or {})


def _is_parquet(path: Path_) -> bool:
    return Path(path).suffix.lower() in PARQUET


@contextmanager
def _readable(path: Path_, expected: str) -> Iterator[None]:
    """Say in one sentence that a file is missing, or that what reads it cannot."""
    name = os.fspath(path)
    check_there(name, expected)
    try:
        yield
    except InputError:  # which is a ValueError, too
        raise
    except FileNotFoundError as error:
        raise missing_file(name, expected) from error
    except UNREADABLE as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{name} cannot be read ({reason}); expected {expected}; it may be damaged or of "
            "another format: correct its path, or write it again"
        ) from error


#: Types of the columns of which the values may not tell them.
_TYPES = {
    "parent": pa.list_(pa.int64()),
    "parents": pa.list_(pa.int64()),
    "event": pa.large_string(),
    "events": pa.large_string(),
}


def write_geoparquet(frame: pd.DataFrame, path: Path_) -> Path:
    """Write a table as Parquet, a GeoDataFrame as GeoParquet, whole or not at all.

    Parameters
    ----------
    frame : DataFrame or GeoDataFrame
        One row per community, track, link or event. A GeoDataFrame has a CRS; the bounds of its
        geometry become the column ``bbox``, by which readers skip what lies elsewhere. ``parent``
        and ``parents`` are lists of int64, ``event`` and ``events`` text, also where all are empty.
    path : path
        A file of that name is replaced, its folder made where it is missing.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = write_geoparquet(pd.DataFrame({"people": [3, 5]}), f"{folder}/links.parquet")
    ...     int(pd.read_parquet(path).people.sum())
    8
    """
    path = Path(path)
    with atomic_path(path) as unfinished, naming(path):
        if isinstance(frame, gpd.GeoDataFrame):
            frame.to_parquet(
                unfinished, index=False, schema_version="1.1.0", write_covering_bbox=True
            )
        else:
            frame.to_parquet(unfinished, index=False)
        _fix_types(unfinished)
    return path


def _fix_types(path: Path) -> None:
    """Give columns without values the types that they have with some."""
    schema = pq.read_schema(path)
    fixed = schema
    for i, field in enumerate(schema):
        if field.name in _TYPES and field.type != _TYPES[field.name]:
            fixed = fixed.set(i, field.with_type(_TYPES[field.name]))
    if fixed is schema:
        return
    table = pq.read_table(path, schema=schema)
    columns = [
        column if column.type == field.type else pa.array(column.to_pylist(), type=field.type)
        for column, field in zip(table.columns, fixed, strict=True)
    ]
    pq.write_table(pa.Table.from_arrays(columns, schema=fixed), path)


#: GDAL writes this into a GeoPackage for the time of its last change: same layers, same bytes.
_UNDATED = "1970-01-01T00:00:00.000Z"


def with_tracks(communities: gpd.GeoDataFrame, tracks: pd.DataFrame) -> gpd.GeoDataFrame:
    """Add to every community the track it belongs to.

    Parameters
    ----------
    communities : GeoDataFrame
        The table of :func:`popdask.tracking.describe.summarize`: a row per community and frame.
    tracks : DataFrame
        The table of :func:`popdask.tracking.tracks.tracks`: a row per event.

    Returns
    -------
    GeoDataFrame
        With ``track`` (int64) after ``community``, in the order of ``communities``.

    Examples
    --------
    >>> import shapely
    >>> key = {"time": pd.to_datetime(["2006-01-01"]), "community": [0]}
    >>> found = gpd.GeoDataFrame(key, geometry=[shapely.box(0, 0, 1, 1)], crs=3035)
    >>> with_tracks(found, pd.DataFrame({**key, "track": [7]}))["track"].tolist()
    [7]
    """
    key = ["time", "community"]
    numbers = tracks.drop_duplicates(key).set_index(key)["track"]
    found = numbers.reindex(pd.MultiIndex.from_frame(pd.DataFrame(communities[key])))
    numbered = communities.copy()
    numbered.insert(2, "track", found.to_numpy(dtype=np.int64))
    return numbered


def track_lines(communities: gpd.GeoDataFrame, tracks: pd.DataFrame) -> gpd.GeoDataFrame:
    """Draw each track as the line of its centroids in the order of time.

    Parameters
    ----------
    communities, tracks
        As for `with_tracks`.

    Returns
    -------
    GeoDataFrame
        One row per track, by number: ``track`` (int64); ``first`` and ``last`` (time);
        ``people_first`` and ``people_last``; ``frames`` (int64); ``events``, what happened to it in
        the order of time, such as ``"appear, grow, split"``, without ``continue``; ``parents``
        (list of int64), the other tracks that had a part in it; ``geometry`` (LineString, or Point
        where it lives for one frame or never moves).

    Examples
    --------
    >>> when = pd.to_datetime(["2000", "2001"])
    >>> towns = {"time": when, "community": 0, "population": [60.0, 90.0]}
    >>> places = gpd.GeoSeries.from_xy([0, 2], [0, 1], crs="EPSG:25833")
    >>> communities = gpd.GeoDataFrame({**towns, "centroid": places}, geometry="centroid")
    >>> told = {"time": when, "community": 0, "track": 7, "event": ["appear", "grow"]}
    >>> (row,) = track_lines(communities, pd.DataFrame({**told, "parent": [[], [7]]})).itertuples()
    >>> row.track, row.people_first, row.people_last, row.events, row.geometry.wkt
    (7, 60.0, 90.0, 'appear, grow', 'LINESTRING (0 0, 2 1)')
    """
    places = with_tracks(communities, tracks).sort_values(["track", "time"], kind="stable")
    lives = pd.DataFrame(places[["track", "time", "population"]]).groupby("track", as_index=False)
    table = lives.agg(
        first=("time", "first"),
        last=("time", "last"),
        people_first=("population", "first"),
        people_last=("population", "last"),
        frames=("time", "size"),
    )
    ordered = tracks.sort_values(["track", "time"], kind="stable").groupby("track")
    event_lists = ordered["event"].agg(lambda events: ", ".join(events[events != "continue"]))
    table["events"] = event_lists.reindex(table["track"]).astype("str").to_numpy()
    parents = [_parents(ordered.get_group(track)) for track in table["track"]]
    table["parents"] = pd.Series(parents, dtype=object)
    centres = np.asarray(places["centroid"])
    starts = np.cumsum(table["frames"].to_numpy())[:-1]
    lines = [_line(points) for points in np.split(centres, starts)] if len(table) else []
    return gpd.GeoDataFrame(table, geometry=lines, crs=communities.crs)


def link_lines(
    links: pd.DataFrame, communities: gpd.GeoDataFrame, times: Any = None
) -> gpd.GeoDataFrame:
    """Draw each link as the line from its source to its target.

    Parameters
    ----------
    links : DataFrame
        The table of :func:`popdask.tracking.link.link`.
    communities : GeoDataFrame
        As for `with_tracks`.
    times : array of datetime64, optional
        The times of all frames; by default those in ``communities``.

    Returns
    -------
    GeoDataFrame
        The links with ``until``, the time of the target, after ``time``; ``geometry`` (LineString,
        or Point where the two centroids are one).

    Examples
    --------
    >>> import shapely
    >>> times = pd.to_datetime(["2006-01-01", "2007-01-01"])
    >>> boxes = [shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)]
    >>> found = gpd.GeoDataFrame({"time": times, "community": [0, 0]}, geometry=boxes, crs=3035)
    >>> found["centroid"] = found.centroid
    >>> links = pd.DataFrame({"time": times[:1], "source": [0], "target": [0], "people": [5.0]})
    >>> link_lines(links, found).length.tolist()
    [2.0]
    """
    stamps = pd.DatetimeIndex(np.unique(communities["time"] if times is None else times))
    following = pd.Series(stamps[1:], index=stamps[:-1])
    # by its index, since pandas cannot map to an empty series of times, as of a single frame
    until = pd.Series(following.reindex(links["time"]).to_numpy(), links.index)
    until = links.get("next", until)  # which is beyond the following frame where there is a gap
    place = communities.set_index(["time", "community"])["centroid"]
    ends = [
        np.asarray(place.reindex(pd.MultiIndex.from_arrays([when, links[name]])))
        for when, name in ((links["time"], "source"), (until, "target"))
    ]
    table = links.drop(columns="next", errors="ignore")
    table.insert(1, "until", until)
    lines = [_line(np.array(pair, dtype=object)) for pair in zip(*ends, strict=True)]
    return gpd.GeoDataFrame(table, geometry=lines, crs=communities.crs)


def write_gpkg(layers: Mapping[str, gpd.GeoDataFrame], path: Path_) -> Path:
    """Write tables with geometry as the layers of a GeoPackage, whole or not at all.

    Parameters
    ----------
    layers : dict of GeoDataFrame
        By name. Lists become text, and geometries besides the active one are left out: a
        GeoPackage has no room for them.
    path : path
        A file of that name is replaced, its folder made where it is missing.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> towns = gpd.GeoDataFrame({"people": [3]}, geometry=[shapely.Point(0, 0)], crs=25833)
    >>> with TemporaryDirectory() as folder:
    ...     path = write_gpkg({"towns": towns}, f"{folder}/towns.gpkg")
    ...     pyogrio.list_layers(path).tolist()
    [['towns', 'Point']]
    """
    path = Path(path)
    with atomic_path(path) as unfinished, _undated(), naming(path):
        for name, layer in layers.items():
            pyogrio.write_dataframe(_flat(layer), unfinished, layer=name, driver="GPKG")
    return path


def _parents(events: pd.DataFrame) -> list[int]:
    """The other tracks that are parents in any event of a track, ascending."""
    found = set(itertools.chain.from_iterable(events["parent"])) - set(events["track"])
    return sorted(int(parent) for parent in found)


def _line(points: np.ndarray) -> shapely.Geometry:
    corners = shapely.get_coordinates(points)
    moves = bool((corners != corners[0]).any())
    return shapely.LineString(corners) if moves else shapely.Point(corners[0])


def _flat(layer: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The same table with the types that a GeoPackage has."""
    others = [name for name in layer.columns if layer[name].dtype == "geometry"]
    others.remove(layer.geometry.name)
    flat = layer.drop(columns=others)
    for name in flat.columns:
        if flat[name].dtype == object:
            flat[name] = flat[name].map(lambda values: ", ".join(map(str, values)))
    return flat


@contextmanager
def _undated() -> Iterator[None]:
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _UNDATED})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
