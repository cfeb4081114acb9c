"""What the tables of every job file have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from popdask.cards import card

Positive = Annotated[int, Field(ge=1)]


class Place:
    """Marks settings that are paths or URLs: variables expand, and paths become absolute."""


#: A path or URL, or a pattern of them.
PlaceName = Annotated[str, Place()]


class Settings(BaseModel):
    """One table of the job file: immutable, and closed to names that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Output(Settings):
    """Where the results go."""

    store: PlaceName
    """The region's Icechunk repository, a folder or ``s3://bucket/prefix``."""
    folder: PlaceName | None = None
    """Local folder of the exports; without it, the store's name without ``.icechunk``."""


class Job(Settings):
    """One region and one product."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    """The region's name, of letters, digits, ``_``, ``.`` and ``-``."""
    pipeline: str
    """The product."""
    output: Output

    def _repr_html_(self) -> str:
        """Every setting, as a notebook shows it."""
        told = {name: _told(value) for name, value, _ in settings_rows(self)}
        return card(type(self).__name__, told)

    @property
    def export_folder(self) -> Path:
        """Folder of the exports: beside the store, or where the run is if that is on S3."""
        if self.output.folder is not None:
            return Path(self.output.folder)
        store = Path(self.output.store)
        if "://" in self.output.store:
            store = Path(store.name)
        if store.suffix == ".icechunk":
            return store.with_suffix("")
        return store.with_name(f"{store.name}-export")

    @model_validator(mode="after")
    def _exports_are_local(self) -> Job:
        store, folder = self.output.store, self.output.folder
        if folder is not None and "://" in folder:
            raise ValueError(f"[output] folder is {folder}: exports go to a local folder, name one")
        if folder is None and "://" in store and getattr(self.output, "export", None):
            raise ValueError(
                f"[output] store is {store}: exports of a store on S3 need a local [output] "
                "folder, name one"
            )
        return self

    @model_validator(mode="after")
    def _catalogues_have_rasters(self) -> Job:
        formats = getattr(self.output, "export", ())
        if "stac" in formats and "cog" not in formats:
            raise ValueError(
                f'[output] export is {list(formats)}, and "stac" is a catalogue of the COGs: add '
                '"cog"'
            )
        return self

    @model_validator(mode="after")
    def _exports_beside_the_store(self) -> Job:
        if "://" in self.output.store:
            return self
        if Path(self.output.store) in (self.export_folder, *self.export_folder.parents):
            raise ValueError(
                f"[output] folder is {self.export_folder}, which is within the store: choose a "
                "folder beside it"
            )
        return self


def settings_rows(job: Job) -> list[tuple[str, Any, str]]:
    """Every setting of a job with its value and meaning, in the file's order.

    Returns
    -------
    list of (name, value, meaning)
        Dotted names, such as ``flow.alpha``.
    """
    return list(_rows(job))


def _rows(settings: Settings, *above: str) -> Iterator[tuple[str, Any, str]]:
    for key, field in type(settings).model_fields.items():
        value = getattr(settings, key)
        if isinstance(value, Settings):
            yield from _rows(value, *above, key)
        else:
            yield ".".join((*above, key)), value, field.description or ""


def _told(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_told, value))
    return "not given" if value is None else str(value)
