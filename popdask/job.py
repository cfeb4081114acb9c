"""Job files: a region and its product, written down as data.

A job is a TOML file that one can read; :func:`load_job` turns it into typed, validated settings.
Every setting has a default, an unknown one is an error that offers the nearest name, relative
paths are relative to the job file, and ``${VARIABLES}`` expand from the environment.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from popdask.errors import InputError

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_DISTANCE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(km|m)\s*$")

Positive = Annotated[int, Field(ge=1)]


class _Settings(BaseModel):
    """One table of the job file: immutable, and closed to names that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Input(_Settings):
    """Where the frames come from, and how they are read."""

    frames: str
    """Pattern of the frames' files, such as ``pop_{time:%Y}.tif``."""
    start: str | None = None
    """First time to use, such as ``"2002"``; without it, the first that is found."""
    end: str | None = None
    """Last time to use (included); without it, the last that is found."""
    nodata: float | None = None
    """Value that means no data, in addition to what the files declare."""
    align: bool = False
    """Reproject frames that lie on another grid than the first, keeping their sums."""
    chunks: Literal["auto"] | Positive = "auto"
    """Edge of the square chunks, in cells."""

    @field_validator("start", "end", mode="before")
    @classmethod
    def _time_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | date) else value  # TOML has dates, too


class Flow(_Settings):
    """Horn-Schunck flow between frames."""

    iterations: Positive = 1
    """Relaxation steps."""
    alpha: Annotated[float, Field(gt=0)] = 10.0
    """Smoothness of the flow, in people per cell."""
    centering: tuple[Literal[-1, 0, 1], Literal[-1, 0, 1], Literal[-1, 0, 1]] = (0, 0, 0)
    """Differences along x, y and time: 0 centred, +1 forward, -1 backward."""
    warm_start: bool = True
    """Start each frame from the flow of the frame before."""


class Encoder(_Settings):
    """The autoencoder of 7 x 7 windows."""

    scope: Literal["shared", "frame"] = "shared"
    """One model for all frames (classes can be compared), or one for each frame."""
    latent: Positive = 16
    """Numbers that describe a window."""
    epochs: Positive = 200
    """Rounds of training, of 1000 windows each."""
    edge: Literal["neutral", "zero"] = "neutral"
    """What lies beyond the raster: nobody at rest, or 0 after scaling (as the original)."""
    seed: int = 0
    """Seed of the weights and of the windows."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train and encode; ``auto`` is a GPU where there is one."""


class Classes(_Settings):
    """KMeans on the encoded windows."""

    k: Annotated[int, Field(ge=2)] | Literal["auto"] = 10
    """Number of classes; ``auto`` is the knee of the SSE curve over 2...20."""
    sample: Annotated[int, Field(ge=100)] = 100_000
    """Cells that the classes are fitted on."""
    seed: int = 0
    """Seed of the sample and of the start."""


class Domain(_Settings):
    """The cells that are trained on, classified and grouped."""

    cells: Literal["settled", "data", "inhabited"] = "settled"
    """Cells that see people within 3 cells, all with data, or only those with people."""


class Communities(_Settings):
    """DBSCAN of each class's cells."""

    eps: Annotated[float, Field(gt=0)] | str = 10.0
    """Reach of a cell, in cells, or as a distance such as ``"2.5 km"``."""
    min_samples: Positive = 50
    """Cells within reach, itself included, that make a core."""
    min_people: Annotated[float, Field(ge=0)] = 0.0
    """Communities with fewer people are dissolved."""

    @field_validator("eps")
    @classmethod
    def _distance(cls, value: float | str) -> float | str:
        match = _DISTANCE.match(value) if isinstance(value, str) else None
        if isinstance(value, str) and not (match and float(match[1]) > 0):
            raise ValueError('expected a number of cells or a distance such as "2.5 km"')
        return value


class Links(_Settings):
    """Links between the communities of consecutive frames."""

    rule: Literal["cosine", "overlap", "cosine+overlap"] = "cosine+overlap"
    """By the cells that move together, by the people in common, or by both."""


class Output(_Settings):
    """Where the results go."""

    store: str
    """The region's Icechunk repository, a folder."""
    export: tuple[Literal["cog", "geoparquet"], ...] = ()
    """Further formats, written beside the store when the run is finished."""
    folder: str | None = None
    """Folder of the exports; without it, the store's name without ``.icechunk``."""


class Job(_Settings):
    """One region and one product."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    """The region's name, of letters, digits, ``_``, ``.`` and ``-``."""
    pipeline: Literal["communities"] = "communities"
    """The product."""
    input: Input
    flow: Flow = Flow()
    encoder: Encoder = Encoder()
    classes: Classes = Classes()
    domain: Domain = Domain()
    communities: Communities = Communities()
    links: Links = Links()
    output: Output

    @property
    def export_folder(self) -> Path:
        """Folder of the exports, beside the store."""
        store = Path(self.output.store)
        if self.output.folder is not None:
            return Path(self.output.folder)
        if store.suffix == ".icechunk":
            return store.with_suffix("")
        return store.with_name(f"{store.name}-export")

    @model_validator(mode="after")
    def _exports_beside_the_store(self) -> Job:
        if Path(self.output.store) in (self.export_folder, *self.export_folder.parents):
            raise ValueError(
                f"[output] folder is {self.export_folder}, which is within the store: choose a "
                "folder beside it"
            )
        return self


def load_job(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Job:
    """Read a job file.

    Parameters
    ----------
    path
        The TOML file.
    overrides
        Settings that replace those of the file, by dotted name, such as
        ``{"output.store": "out/test.icechunk"}``; paths in them are used as they are.

    Returns
    -------
    Job
        The settings, with paths made absolute and variables expanded.

    Raises
    ------
    InputError
        If the file is missing, is not TOML, or has a setting that is unknown or out of range.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such job file; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the job file cannot be read ({error}).") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: the job file is not valid TOML: {error}.") from error
    _resolve_paths(tables, path)
    for name, value in (overrides or {}).items():
        _set(tables, name, value)
    try:
        return Job.model_validate(tables)
    except ValidationError as error:
        raise InputError(f"{path}: {_sentence(error)}") from None


def _resolve_paths(tables: dict[str, Any], path: Path) -> None:
    """Expand variables in the paths and make them absolute, in place."""
    for table, key in (("input", "frames"), ("output", "store"), ("output", "folder")):
        value = tables.get(table, {}).get(key) if isinstance(tables.get(table), dict) else None
        if isinstance(value, str):
            text = _expand(value, path, f"[{table}] {key}")
            if not _is_url(text):
                text = os.path.normpath(path.parent.resolve() / text)
            tables[table][key] = text


def _expand(text: str, path: Path, setting: str) -> str:
    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], "")
        if not found:
            raise InputError(
                f"{path}: {setting} uses ${{{match[1]}}}, which is not set: "
                f"export {match[1]}=... before the run."
            )
        return found

    return _VARIABLE.sub(value, text)


def _is_url(text: str) -> bool:
    return "://" in text


def _set(tables: dict[str, Any], name: str, value: Any) -> None:
    *parents, key = name.split(".")
    for parent in parents:
        tables = tables.setdefault(parent, {})
    tables[key] = value


def _sentence(error: ValidationError) -> str:
    """All that is wrong with a job, as one sentence."""
    return "; ".join(dict.fromkeys(_complaint(dict(problem)) for problem in error.errors())) + "."


def _complaint(problem: dict[str, Any]) -> str:
    where = [part for part in problem["loc"] if isinstance(part, str) and part in _names()]
    if problem["type"] == "extra_forbidden":
        *tables, unknown = map(str, problem["loc"])
        return _unknown_setting(tables, unknown)
    if not problem["loc"]:
        return str(problem["msg"]).removeprefix("Value error, ")
    setting = f"[{where[0]}] {where[-1]}" if len(where) > 1 else str(problem["loc"][0])
    if problem["type"] == "missing":
        missing = ".".join(str(part) for part in problem["loc"])
        return f"the setting {missing} is missing"
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{setting} is {problem['input']!r}: {reason[:1].lower()}{reason[1:]}"


def _names() -> set[str]:
    tables = [field.annotation for field in Job.model_fields.values()]
    models = [table for table in tables if isinstance(table, type) and issubclass(table, _Settings)]
    return set(Job.model_fields).union(*(model.model_fields for model in models))


def _unknown_setting(tables: list[str], name: str) -> str:
    model = Job.model_fields[tables[0]].annotation if tables else Job
    known = list(model.model_fields)  # type: ignore[union-attr]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    where = f"[{tables[0]}] has no setting" if tables else "a job has no setting"
    return f"{where} {name!r} ({hint})"


def settings_rows(job: Job) -> list[tuple[str, Any, str]]:
    """Every setting of a job with its value and meaning, in the file's order.

    Returns
    -------
    list of (name, value, meaning)
        Dotted names, such as ``flow.alpha``.
    """
    rows: list[tuple[str, Any, str]] = []
    for key, field in type(job).model_fields.items():
        value = getattr(job, key)
        if isinstance(value, _Settings):
            rows += [
                (f"{key}.{name}", getattr(value, name), inner.description or "")
                for name, inner in type(value).model_fields.items()
            ]
        else:
            rows.append((key, value, field.description or ""))
    return rows
