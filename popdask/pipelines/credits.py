"""Whom to credit for the files that a run has read: what is on record beside them, or in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rasterio

#: Tags of a raster that tell who made it.
TAGS = ("attribution", "credit", "source", "copyright", "tifftag_copyright", "license", "licence")


def credits_of(record: Mapping[str, Any]) -> list[str]:
    """List the credits of a run's input files, each once.

    Parameters
    ----------
    record
        As of :meth:`popdask.store.RegionStore.run_record`.

    Returns
    -------
    list of str
        From the manifest of `popdask fetch` in a file's folder; else from the tags of the file.
        Files that are no longer there, or not on this machine, have none.
    """
    paths = [Path(str(file.get("path", ""))) for file in record.get("inputs", {}).values()]
    return list(dict.fromkeys(credit for path in paths if path.is_file() for credit in _of(path)))


def _of(path: Path) -> list[str]:
    from popdask.fetch.credits import Credit  # fetching imports much that reading does not need
    from popdask.fetch.frames import MANIFEST

    manifest = path.with_name(MANIFEST)
    if manifest.exists():
        told = json.loads(manifest.read_text(encoding="utf-8"))
        title = told["files"].get(path.name, {}).get("credit")
        if title is not None:
            return [str(Credit(**told["credits"][title]))]
    if path.suffix.lower() not in (".tif", ".tiff", ".vrt"):
        return []
    with rasterio.open(path) as file:
        tags = {name.lower(): text.strip() for name, text in file.tags().items()}
    return [tags[name] for name in TAGS if tags.get(name)]
