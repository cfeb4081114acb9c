"""What the tables of every job file have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    """The region's Icechunk repository, a folder."""
    folder: PlaceName | None = None
    """Folder of the exports; without it, the store's name without ``.icechunk``."""


class Job(Settings):
    """One region and one product."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    """The region's name, of letters, digits, ``_``, ``.`` and ``-``."""
    pipeline: str
    """The product."""
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
