"""What the tables of every job file have in common, and those of aerial images and their cells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path, PurePath, PurePosixPath
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from popdask._repr_html import html_card
from popdask.io.paths import bucket_and_key, is_object, without_keys

Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Above0 = Annotated[float, Field(gt=0)]
Part = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
#: A text that would be taken for a number.
_NUMBER = r"\s*[-+]?[\d_.]+(e[-+]?\d+)?\s*|(?i:\s*[-+]?(nan|inf|infinity)\s*)"


def _time_as_text(value: Any) -> Any:
    told = isinstance(value, int | date) and not isinstance(value, bool)
    return str(value) if told else value


#: A time as text; TOML has numbers and dates, too.
TimeText = Annotated[str, BeforeValidator(_time_as_text)]


class Place:
    """Marks settings that are paths or URLs: variables expand, and paths become absolute."""


#: A path or URL, or a pattern of them.
PlaceName = Annotated[str, Place()]


def _formats(value: Any) -> Any:
    """A single format is a list of one, and some formats have two names."""
    given = value if isinstance(value, list | tuple) else [value]
    names = {"geopackage": "gpkg", "parquet": "geoparquet"}
    return [names.get(one, one) if isinstance(one, str) else one for one in given]


#: Marks a list of formats, which may be written as one text.
Formats = BeforeValidator(_formats)


class Settings(BaseModel):
    """One table of a file of settings: immutable, and closed to names that it does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        field, listed = cls.model_fields[str(info.field_name)], isinstance(value, list | tuple)
        for one in value if listed else (value,):
            _check_kind(one, field, listed)
        return value


def _check_kind(value: Any, field: FieldInfo, listed: bool) -> None:
    """Refuse what would be taken for another kind: true for 1, 1 for true, and texts for both."""
    words, kinds = _words_and_kinds(field.annotation, listed)
    if not isinstance(value, bool | int | float | str) or kinds & {Any, type(value)}:
        return
    if any(isinstance(part, BeforeValidator) for part in (*field.metadata, *kinds)):
        return  # which makes of "10 min" what it is
    numbers = (kinds | {type(word) for word in words}) & {int, float}
    quoted = sorted(f'"{word}"' for word in words if isinstance(word, str))
    if isinstance(value, bool):
        if numbers:
            raise ValueError(_expected("a number", *["a text"] * (str in kinds), *quoted))
    elif value in words:
        return
    elif bool in kinds:
        raise ValueError(_expected("true", "false", *quoted))
    elif isinstance(value, str) and numbers and re.fullmatch(_NUMBER, value):
        raise ValueError("expected a number, which stands without quotes")


def _expected(*kinds: str) -> str:
    return f"expected {' or '.join(filter(None, (', '.join(kinds[:-1]), kinds[-1])))}"


def _words_and_kinds(annotation: Any, listed: bool) -> tuple[set[Any], set[Any]]:
    """The values that a setting takes by name, and the kinds of others: alone, or in its list."""
    parts, origin = get_args(annotation), get_origin(annotation)
    if origin in (tuple, list, dict):
        listed, parts = False, parts if listed and origin is not dict else ()
    elif origin is Literal:
        return (set(), set()) if listed else (set(parts), set())
    elif not parts:
        alone = not listed or isinstance(annotation, BeforeValidator)
        return set(), {annotation} if alone else set()
    found = [_words_and_kinds(part, listed) for part in parts]
    return set().union(*(words for words, _ in found)), set().union(*(kinds for _, kinds in found))


class Output(Settings):
    """Where the results go."""

    store: PlaceName
    """The region's Icechunk repository, a folder or ``s3://bucket/prefix``."""
    folder: PlaceName | None = None
    """Where the exports go, a folder or ``s3://bucket/prefix``; without it, beside the store."""


class Job(Settings):
    """One region and one product.

    Examples
    --------
    >>> Job(name="oslo", pipeline="settlements", output={"store": "out/oslo.icechunk"}).name
    'oslo'
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]*[\w-][\w.-]*$", max_length=100)]
    """The region's name, of letters, digits, ``_``, ``.`` and ``-``."""
    title: str | None = None
    """What the results say they are; without it, the name. The next run puts a change into the
    store, whatever else it computes."""
    institution: str | None = None
    """Who the results say made them; a change shows as that of the title."""
    pipeline: str
    """The product."""
    output: Output

    def _repr_html_(self) -> str:
        """Every setting, as a notebook shows it."""
        rows = {name: without_keys(shown(value)) for name, value, _ in settings_rows(self)}
        return html_card(type(self).__name__, rows)

    @property
    def naming(self) -> dict[str, str | None]:
        """What the results are called: settings on which nothing that is computed depends."""
        return {"title": self.title, "institution": self.institution}

    @property
    def export_place(self) -> str:
        """Where the exports go, a folder or ``s3://bucket/prefix``; by default beside the store."""
        place = self.output.folder or _beside(self.output.store)
        return place.rstrip("/") if is_object(place) else str(Path(place))

    @property
    def export_folder(self) -> Path:
        """Local folder of figures and other work, and of the exports unless they are on S3.

        It lies beside the store, or in the working directory if that is on S3.
        """
        if not is_object(self.export_place):
            return Path(self.export_place)
        store = self.output.store
        return Path(_beside(PurePosixPath(store).name if "://" in store else store))

    @model_validator(mode="after")
    def _exports_make_sense(self) -> Job:
        folder, formats = self.output.folder or "", getattr(self.output, "export", ())
        if is_object(folder):
            bucket_and_key(folder)
        elif "://" in folder:
            raise ValueError(
                f"[output] folder is {folder}: exports go to a local folder or to "
                "s3://bucket/prefix, name one"
            )
        if "stac" in formats and "cog" not in formats:
            raise ValueError(
                f'[output] export is {list(formats)}, and "stac" is a catalogue of the COGs: add '
                '"cog"'
            )
        store, place = PurePath(self.output.store), PurePath(self.export_place)
        if store in (place, *place.parents):
            raise ValueError(
                f"[output] folder is {self.export_place}, which is within the store: choose a "
                "folder beside it"
            )
        return self


def settings_rows(job: Job) -> list[tuple[str, Any, str]]:
    """Every setting of a job with its value and meaning, in the file's order.

    Returns
    -------
    list of (name, value, meaning)
        Dotted names, such as ``flow.alpha``.

    Examples
    --------
    >>> job = Job(name="oslo", pipeline="settlements", output={"store": "out/oslo.icechunk"})
    >>> [name for name, _, _ in settings_rows(job)][:2]
    ['name', 'title']
    """
    return list(_rows(job))


def _rows(settings: Settings, *above: str) -> Iterator[tuple[str, Any, str]]:
    for key, field in type(settings).model_fields.items():
        value = getattr(settings, key)
        if isinstance(value, Settings):
            yield from _rows(value, *above, key)
        else:
            yield ".".join((*above, key)), value, field.description or ""


def shown(value: Any) -> str:
    """Write the value of a setting as people would.

    Examples
    --------
    >>> shown(None), shown(True), shown((0, 0, 1)), shown({"hidden": [64, 32]})
    ('–', 'yes', '0, 0, 1', 'hidden = [64, 32]')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        value = tuple(f"{name} = {each}" for name, each in value.items())
    if isinstance(value, tuple):
        return ", ".join(map(shown, value)) or "–"
    return "–" if value is None else str(value)


def _beside(store: str) -> str:
    """Name a store's exports: as the store without ``.icechunk``, or with ``-export``."""
    store = store.rstrip("/")
    if PurePosixPath(store).suffix == ".icechunk":
        return store.removesuffix(".icechunk")
    return f"{store}-export"


class Band(Settings):
    """A raster that models see behind the bands of the image."""

    name: str
    """What it is called."""
    path: PlaceName
    """A file with one band, of any resolution and CRS; the same for all times."""
    resampling: Literal["auto", "nearest", "bilinear", "average"] = "auto"
    """How it comes onto the image's pixels; ``auto`` averages finer ones, else is bilinear."""
    normalisation: Literal["none", "log"] = "none"
    """Take it as it is, or log(1 + x), for counts and lights."""


class Input(Settings):
    """The mosaics to estimate people in, and how they are read."""

    mosaic: PlaceName | Annotated[tuple[PlaceName, ...], Field(min_length=1)]
    """Pattern of the mosaics' files, such as ``photo_{time:%Y}.tif``; several fill each other."""
    time: TimeText | None = None
    """Time of a mosaic whose name does not give it, such as ``"2023"``."""
    start: TimeText | None = None
    """First time to use; without it, the first that is found."""
    end: TimeText | None = None
    """Last time to use (included); without it, the last that is found."""
    align: bool = False
    """Reproject mosaics in another CRS than the cells'."""
    nodata: Annotated[float, Field(allow_inf_nan=True)] | None = None
    """Value of pixels without data, beside what the files declare."""


class Grid(Settings):
    """The grid of cells, and the pixels in them."""

    grid: str | None = None
    """Name of a grid: ``dk_100m``, ``eu_1km`` …; or give ``size`` and ``crs``."""
    size: Above0 = 100.0
    """Side of a cell in units of the CRS."""
    crs: str | None = None
    """CRS of the grid; without it, the mosaic's."""
    resolution: Above0 | None = None
    """Size of the pixels wanted; without it, the nearest to the mosaic's that fits the cells."""


class Drawn(Settings):
    """A drawn country, made before the run, where there are no photographs."""

    folder: PlaceName
    """Where its files go: ``training.tif``, ``mosaic_2015.tif``, and the people in them."""
    seed: Seed = 0
    """Another seed is another country."""
    years: Annotated[tuple[int, ...], Field(min_length=1)] = (2015, 2025)
    """Years of the mosaics; the first is that of the training mosaic too."""
    training_km: tuple[float, float] = (8.0, 8.0)
    """Extent of the training mosaic northward and eastward."""
    mosaic_km: tuple[float, float] = (3.0, 3.0)
    """Extent of the mosaics, which show another place."""
    resolution: Above0 = 1.0
    """Side of a pixel in metres, a multiple of 0.5."""
    bands: Literal[1, 3, 4] = 1
    """Grey, colour, or colour and near infrared."""


class Images(Input):
    """The mosaics to estimate people in, and what else is known of every pixel."""

    bands: tuple[Band, ...] = ()
    """Rasters that models see behind the bands of the image, such as buildings."""


class Cells(Grid):
    """The grid of cells, and those of known people that the models learn from."""

    context: Annotated[int, Field(ge=0)] = 0
    """Rings of neighbouring cells that a model sees around each cell."""
    mosaic: PlaceName | tuple[PlaceName, ...] | None = None
    """Files to cut labelled cells from; without it, the first mosaic of the input."""
    counts: PlaceName | None = None
    """People by cell: a raster, a table (cell, people) in Parquet or text, squares, or points."""
    totals: PlaceName | Annotated[int, Field(ge=2)] | None = None
    """Learn from sums alone: polygons with known people in ``column``; or cells per side of squares
    in which the counts are added up, to try it."""
    column: str = "people"
    """Column of the people in a table or of polygons, or the weight of points."""
    share: bool = False
    """Share the people of a raster on another grid among the cells, by area."""
    missing: Literal["unknown", "zero"] = "unknown"
    """What cells are that the counts do not list."""
    folder: PlaceName | None = None
    """A folder with a file for each cell, instead of mosaic and counts."""
    skip_unnamed: bool = False
    """Skip files of the folder whose names do not parse."""
    join: Positive = 1
    """Join so many by so many cells into one."""
    split: Literal["random", "blocks"] = "blocks"
    """Draw validation cells in squares that keep a distance, or one by one."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the cells that scores are computed on."""
    block: Positive = 10
    """Cells per side of a square."""
    gap: Positive | None = None
    """Cells between training and validation squares; without it 1, or twice the context."""
    selection: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the training cells that epochs and rules are chosen by; 0: by the scored cells."""
    folds: Annotated[int, Field(ge=0)] = 0
    """Cross-validation: so many models, each blind to a part of the cells; 0 for a single split."""
    seed: Seed = 0
    """Seed of the split."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Cells:
        if self.context and self.join > 1:
            raise ValueError(
                f"context is {self.context} and join {self.join}, and joined cells show no "
                "neighbours: leave one of them out, or cut the larger cells from the mosaic"
            )
        if self.totals is not None and self.folder is not None:
            raise ValueError(
                f"totals is {self.totals} and folder {self.folder}, of which each file tells the "
                "people of its cell: leave one of them out"
            )
        known = self.counts is None or self.missing == "zero"
        if isinstance(self.totals, str) and not known:
            raise ValueError(
                f"totals is {self.totals} and counts {self.counts}, where cells that are not "
                "counted are unknown, so that no zone with one of them could be learned from: set "
                'missing = "zero" if nobody lives in them, or leave counts out'
            )
        if isinstance(self.totals, int) and self.counts is None:
            raise ValueError(
                f"totals is {self.totals}, squares in which counts are added up, and there are no "
                "counts: give counts, or a file of zones with their people"
            )
        return self

    @property
    def labelled(self) -> bool:
        """Whether there are cells or zones of known people."""
        return any(one is not None for one in (self.folder, self.counts, self.totals))


class Features(Settings):
    """How a cell is described: 1536 features of EfficientNet-B3."""

    weights: PlaceName | Literal["imagenet"] | None = None
    """None for a random network, ``imagenet`` for the published weights, or a file of them."""
    bands: tuple[int, ...] | None = None
    """Bands to show, by position from 0: one, or three; by default all."""
    white: Above0 | None = None
    """The value that is white; by default the largest of the images' type."""
    size: Positive = 300
    """Rows and columns that a cell is resized to."""
    batch_size: Positive = 32
    """Cells that pass through the network at once on a GPU."""
    device: Device = "auto"
    """Where: ``auto`` is a GPU where the worker has one."""
    seed: Seed = 0
    """Of a random network."""


class Groups(Settings):
    """How cells are grouped."""

    k: tuple[Positive, ...] = (3, 4, 5)
    """Numbers of groups of KMeans."""
    pca: Positive = 128
    """Principal components, at most."""
    dimensions: Annotated[int, Field(ge=2)] = 20
    """Dimensions that UMAP leaves."""
    neighbours: Annotated[int, Field(ge=2)] = 50
    """Cells that UMAP takes to be around each."""
    min_dist: Part = 0.05
    """How close UMAP may put cells."""
    epochs: Positive = 200
    """Of UMAP."""
    min_cluster_size: Annotated[int, Field(ge=2)] = 500
    """Cells of a group of HDBSCAN, at least."""
    min_samples: Positive = 50
    """Cells around a core of HDBSCAN, at least."""
    seed: Seed = 0
    """Of the components, UMAP and KMeans."""
