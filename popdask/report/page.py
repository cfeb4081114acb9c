"""The report as one page: its template, styles and scripts, pictures as SVG, and its file.

Everything that comes from files is text: the template escapes it, and in scripts it stands as JSON
without angle brackets.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from bokeh.resources import Resources
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

from popdask.io.paths import write_text
from popdask.plot.style import INK, MAIN_COLOUR, period, print_figure
from popdask.report import plots
from popdask.report.places import (
    figure_table,
    latest_stages,
    places_content,
    population_content,
    record_tables,
    scenes_content,
)
from popdask.report.plots import (
    Content,
    Overview,
    cell_words,
    finest,
    layer_key,
    layer_setup,
    map_table,
    pack,
    pyramid,
    themes,
)
from popdask.store.content import MAIN, Finished
from popdask.store.repository import RegionStore
from popdask.tracking.names import GEONAMES_CREDIT

#: What the template says of itself.
_GENERATOR = b'<meta name="generator" content="popdask">'

SCRIPTS = ("unpack.js", "raster.js", "world.js", "table.js", "panel.js", "report.js")
LARGE = 400_000  # bytes, from which a figure may be smaller with its map or its marks as pixels
MOST_BYTES = 20_000_000
CONTENTS = {
    "communities": places_content,
    "population": population_content,
    "scenes": scenes_content,
    "settlements": places_content,
}
PARTS = {
    "map": "Map",
    "timeline": "Splits and mergers",
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
    "followed": [],
    "sizes": [],
    "balance": None,
    "scores": None,
    "analysis": "How good the analysis is",
}


def render(**filling: Any) -> str:
    """Fill the page's template."""
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        _asset("report.html")
    )
    bokeh = "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)
    return template.render(
        style=Markup(_asset("report.css")),
        # Its own text must not end the script element that it stands in.
        bokeh=Markup(bokeh.replace("</script", "<\\/script")),
        scripts=Markup("\n".join(map(_asset, SCRIPTS))),
        notices=_asset("notices.txt"),
        **filling,
    )


def is_page(path: Path) -> bool:
    """Return whether a file is a page of popdask's.

    Examples
    --------
    >>> is_page(Path("out/nowhere.html"))
    False
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _GENERATOR in file.read(1000)


def packed_json(value: Any) -> str:
    """Write a value as compressed JSON."""
    return pack(json.dumps(value, separators=(",", ":"), allow_nan=False).encode())


def inline_json(value: Any) -> Markup:
    """Write a value as JSON that can stand in a script element, whatever texts are in it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _asset(name: str) -> str:
    return (files("popdask.report") / "assets" / name).read_text(encoding="utf-8")


def layer_elements(frames: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, str]]:
    """List the packed frames of all layers, each with the id of its element."""
    return [
        {"id": f"{layer}-{position}", "codes": frame["codes"]}
        for layer, packed in frames.items()
        for position, frame in enumerate(packed)
    ]


@dataclass(frozen=True)
class Picture:
    """A figure of a report, with the words that go with it.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> Picture("How many classes", "The bend is where more do not help.", Figure()).wide
    False
    """

    title: str
    """What it shows."""
    text: str
    """How to read it, in a sentence or two."""
    figure: Figure
    """The figure itself."""
    wide: bool = False
    """Whether it takes the whole width of the page."""


def markup(picture: Picture, number: int) -> str:
    """Write a figure as markup that needs no other file."""
    text = _svg(picture.figure)
    if len(text) > LARGE:
        text = min(text, *_with_pixels(picture.figure), key=len)
    return _inlined(text, number, picture.title)


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    plain: Any = {"svg.fonttype": "none", "svg.hashsalt": "popdask", "font.family": "sans-serif"}
    for ground in (figure.patch, *(axes.patch for axes in figure.axes)):
        ground.set(facecolor="none", edgecolor="none")
    with rc_context(plain):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        print_figure(figure, buffer, "svg", dpi=110, metadata=nothing)
    return buffer.getvalue().decode()


def _with_pixels(figure: Figure) -> Iterator[str]:
    """Write a figure whose maps have a pixel for each cell, then with its marks as pixels too."""
    for image in (image for axes in figure.axes for image in axes.images):
        image.set_interpolation("none")
    yield _svg(figure)
    for marks in (mark for axes in figure.axes for mark in [*axes.collections, *axes.lines]):
        marks.set_rasterized(True)
    yield _svg(figure)


def _inlined(text: str, number: int, title: str) -> str:
    """Cut what a page does not need, and let ink and ids be the page's."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor").replace("#000000", "currentColor")
    text = text.replace(MAIN_COLOUR, "var(--main)")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>f{number}-", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


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

    Examples
    --------
    >>> write_report(RegionStore("out/nowhere.icechunk"), "out/report.html")
    Traceback (most recent call last):
    popdask.errors.InputError: out/nowhere.icechunk holds no results yet: run the job first.
    """
    record = region.run_record() if record is None else record
    pipeline = record.get("settings", {}).get("pipeline", "communities")
    content = CONTENTS[pipeline](region, branch)
    filling = {**EMPTY, **content.filling}
    filling["credits"] = [*credits, *_credits_of_names(record)]
    stages = _stages(region)
    filling["record"] = record_tables(record, stages)
    filling["record_note"] = _record_note(stages)
    filling["version"] = record.get("versions", {}).get("popdask", "")
    filling["tables"] = packed_json(content.tables)
    filling["plots"] = packed_json(plots.document(content.plots))
    filling["pictures"] = [
        {
            "title": each.title,
            "text": each.text,
            "markup": Markup(markup(each, number)),
            "wide": each.wide,
            "table": figure_table(each.figure),
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


def _credits_of_names(record: Mapping[str, Any]) -> list[str]:
    """Whom to credit for the names of places."""
    settings = record.get("settings", {}).get("settlements") or {}
    return [GEONAMES_CREDIT + "."] if settings.get("names") == "geonames" else []


def _page(title: str, content: Content, filling: Mapping[str, Any], maps: Overview) -> str:
    """Fill the page with all that it shows."""
    cell = cell_words(content.grid, maps.factor)
    shown = {"tables"} if filling["followed"] else set()
    shown |= {"timeline"} if filling["followed"] and len(content.times) > 1 else set()
    shown |= {"map", "record"} | ({"people"} if filling.get("balance") else set())
    shown |= {"scores"} if filling["scores"] else set()
    shown |= {"analysis"} if filling["pictures"] else set()
    return render(
        title=title,
        lead=content.lead,
        numbers=content.numbers,
        map_note=content.map_note,
        parts=[{"id": f"part-{part}", "title": PARTS[part]} for part in PARTS if part in shown],
        layers=[layer_key(layer, maps, cell) for layer in content.layers],
        map_table=map_table(content.layers, maps, content.times),
        labels=content.times,
        period=period(content.times),
        counted="population" in maps.frames,
        frames=layer_elements(maps.frames),
        setup=inline_json(_setup(content, maps, cell)),
        **filling,
    )


def _setup(content: Content, maps: Overview, cell: str) -> dict[str, Any]:
    """Say what the page's script needs to know before it unpacks anything."""
    grid = content.grid
    return {
        "labels": content.times,
        "period": period(content.times),
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
        "colours": {name: dict(each) for name, each in content.colours.items()},
        "followed": content.followed,
    }


def _stages(region: RegionStore) -> list[Finished]:
    """List the stages as they were computed last, by a finished run or the one under way."""
    # Exports are left out: this report may be one of them.
    finished = [stage for run in region.history() for stage in run.stages]
    stages = latest_stages([*finished, *region.stages_since()])
    return [stage for stage in stages if stage.stage not in EXPORTS]


def _record_note(stages: list[Finished]) -> str:
    """Say when the results were computed."""
    if not stages:
        return "What the results were made from and with."
    return f"The results were computed on {stages[-1].started[:10]}, from and with what is below."
