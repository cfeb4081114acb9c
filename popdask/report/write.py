"""The report of a region, put together and written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from popdask.report import page, plots
from popdask.report.communities import communities_content
from popdask.report.content import Content, cell_words
from popdask.report.imagery import population_content, scenes_content
from popdask.report.layers import layer_key, layer_setup, themes
from popdask.report.overview import Overview, finest, pyramid
from popdask.report.pictures import Picture, markup
from popdask.report.record import latest_stages, record_tables
from popdask.store import MAIN, Finished, RegionStore
from popdask.whole import write_text

MOST_BYTES = 20_000_000
CONTENTS = {
    "communities": communities_content,
    "population": population_content,
    "scenes": scenes_content,
}
PARTS = {
    "map": "Map",
    "timeline": "Splits and merges",
    "tables": "Tables",
    "people": "People",
    "scores": "Scores",
    "analysis": "Analysis",
    "record": "Run",
}


#: Stages that write files beside the store.
EXPORTS = ("export", "tables")

#: What a page shows nothing of, unless its content says otherwise.
EMPTY: Mapping[str, Any] = {
    "communities": False,
    "lanes": "",
    "balance": None,
    "scores": None,
    "analysis": "How good the analysis is",
}


def write_report(
    region: RegionStore,
    path: str | os.PathLike[str],
    *,
    pictures: Iterable[Picture] = (),
    credits: Iterable[str] = (),
    branch: str = MAIN,
    record: Mapping[str, Any] | None = None,
    max_bytes: int = MOST_BYTES,
) -> Path:
    """Write the report of a region's results: one HTML file that needs nothing else.

    Parameters
    ----------
    region
        The results of a job.
    path
        The file, written whole or not at all. Its folder is made where it is missing.
    pictures
        Figures that tell how good the analysis is.
    credits
        Whom to credit for the inputs, a line each.
    branch
        The branch of the results.
    record
        The record of the run; by default, that of the last finished one.
    max_bytes
        The most that the file may have: the map is drawn as fine as that allows, the rest is as
        large as it is.

    Returns
    -------
    Path
        The file. The same results, pictures and credits give the same bytes.

    Raises
    ------
    InputError
        If no run is finished yet.

    Notes
    -----
    Uses the current Dask client, if there is one, else Dask's default scheduler.
    """
    record = region.run_record() if record is None else record
    pipeline = record.get("settings", {}).get("pipeline", "communities")
    content = CONTENTS[pipeline](region, branch)
    filling = {**EMPTY, **content.filling}
    filling["credits"] = list(credits)
    stages = _stages(region)
    filling["record"] = record_tables(record, stages)
    filling["record_note"] = _record_note(stages)
    filling["version"] = record.get("versions", {}).get("popdask", "")
    filling["tables"] = page.packed_json(content.tables)
    filling["plots"] = page.packed_json(plots.document(content.plots))
    filling["pictures"] = [
        {
            "title": each.title,
            "text": each.text,
            "markup": page.Markup(markup(each, number)),
            "wide": each.wide,
        }
        for number, each in enumerate(pictures)
    ]
    fill = partial(_page, str(record.get("name", "")), content, filling)
    maps = finest(
        pyramid(content.rasters, {each.name: each.by for each in content.layers if each.by}),
        max_bytes,
        around=lambda level: len(fill(level.without_codes()).encode()),
    )
    return write_text(path, fill(maps))


def _page(title: str, content: Content, filling: Mapping[str, Any], maps: Overview) -> str:
    """Fill the page with all that it shows."""
    cell = cell_words(content.grid, maps.factor)
    shown = {"timeline", "tables"} if filling.get("communities") else set()
    shown |= {"map", "record"} | ({"people"} if filling.get("balance") else set())
    shown |= {"scores"} if filling["scores"] else set()
    shown |= {"analysis"} if filling["pictures"] else set()
    return page.render(
        title=title,
        lead=content.lead,
        numbers=content.numbers,
        map_note=content.map_note,
        parts=[{"id": f"part-{part}", "title": PARTS[part]} for part in PARTS if part in shown],
        layers=[layer_key(layer, maps, cell) for layer in content.layers],
        labels=content.times,
        frames=page.layer_elements(maps.frames),
        setup=page.inline_json(_setup(content, maps, cell)),
        **filling,
    )


def _setup(content: Content, maps: Overview, cell: str) -> dict[str, Any]:
    """Say what the page's script needs to know before it unpacks anything."""
    grid = content.grid
    return {
        "labels": content.times,
        "milliseconds": content.milliseconds,
        "layers": [layer_setup(layer, maps, cell) for layer in content.layers],
        "frames": {
            name: [{key: frame[key] for key in frame if key != "codes"} for frame in frames]
            for name, frames in maps.frames.items()
        },
        "map": {
            "rows": maps.rows,
            "cols": maps.cols,
            "width": grid.cell[0] * maps.factor,
            "height": grid.cell[1] * maps.factor,
            "size": list(grid.size),
            "upright": grid.upright,
            "amounts": "population",
        },
        "themes": themes(),
        "colours": dict(content.colours),
    }


def _stages(region: RegionStore) -> list[Finished]:
    """List the stages as they were computed last, by a finished run or the one under way.

    Exports are left out: this report may be one of them.
    """
    finished = [stage for run in region.history() for stage in run.stages]
    stages = latest_stages([*finished, *region.stages_since()])
    return [stage for stage in stages if stage.stage not in EXPORTS]


def _record_note(stages: list[Finished]) -> str:
    """Say when the results were computed."""
    if not stages:
        return "What the results were made from and with."
    return f"The results were computed on {stages[-1].started[:10]}, from and with what is below."
