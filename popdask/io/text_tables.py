"""Tables as text, as statistical offices write them: how they are written is found out.

Commas or semicolons, decimal points or commas, UTF-8, UTF-16 or Latin-1, blanks around names and
values: a file says none of it. What separates is what the header has most of; a comma is a decimal
one where something else separates and numbers have it; text that is no UTF-8 is that of Windows in
western Europe, which has the letters of Latin-1.

A compressed table is unpacked up to a bound, since a small archive can hold any number of zeros.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from popdask.errors import InputError
from popdask.io.kinds import is_elsewhere
from popdask.io.names import members
from popdask.io.paths import Path_, fsspec_options

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
#: How files begin that are often given in the place of text.
_OTHERS = {
    b"pk\x03\x04": "an Excel file or an archive",
    b"\xd0\xcf\x11\xe0": "an Excel file",
    b"par1": "a Parquet file",
    b"sqlite format": "a GeoPackage or a database",
    b"%pdf": "a PDF file",
    b"<": "a page of the web, or XML",
    b"{": "JSON",
}
#: What sets thousands apart, beside a point where the decimals have a comma.
_APART = "\u00a0\u2009\u202f'’ \t"

_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_DECIMAL = re.compile(rf"[-+]?[0-9][0-9.{_APART}]*,[0-9]+(?:[eE][-+]?[0-9]+)?")
_POINT = re.compile(r"[-+]?\d[\d.]*\.\d+")
_COMMAS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")
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
    for mark, kind in _OTHERS.items():
        if content[:64].lstrip().lower().startswith(mark):
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
    """Which line names the columns, behind remarks with ``#``, and what separates them."""
    begin = next((i for i, line in enumerate(lines) if not line.startswith("#")), 0)
    separator = max(SEPARATORS, key=lambda mark: lines[begin].count(mark))
    counts = [line.count(separator) for line in lines[: begin + 1]]
    named = begin > 0 and counts[begin - 1] == counts[begin] > 0  # the last remark is the header
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

    if is_elsewhere(path):
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
    if keep or not given or not all(_numbers(given, form)):
        return texts
    blank = str.maketrans(dict.fromkeys(_apart(form)))
    plain = texts.map(lambda value: _plain(value, blank, form) if isinstance(value, str) else value)
    return pd.to_numeric(plain)


def _plain(text: str, blank: Mapping[int, None], form: Form) -> str:
    return text.translate(blank).replace(form.decimal, ".")


def _apart(form: Form) -> str:
    # Between commas, those within quotes set thousands apart.
    commas = "," if form.separator == "," else ""
    return _APART + ("." if form.decimal == "," else commas)


def _numbers(texts: list[str], form: Form) -> Iterator[bool]:
    """Return for each text whether it is a number, its thousands set apart or not."""
    decimals = rf"(?:{re.escape(form.decimal)}\d+)?"
    plain = re.compile(rf"[-+]?\d+{decimals}", re.ASCII)
    grouped = re.compile(
        rf"[-+]?\d{{1,3}}(?P<mark>[{_apart(form)}])\d{{3}}(?:(?P=mark)\d{{3}})*{decimals}", re.ASCII
    )
    for text in texts:
        yield bool(plain.fullmatch(text) or grouped.fullmatch(text))
