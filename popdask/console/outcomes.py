"""What a run has found: communities and people, estimates and their scores, groups of cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from popdask.console.lines import say, show_table
from popdask.console.words import count, written

if TYPE_CHECKING:
    import pandas as pd

    from popdask.pipelines.communities import Outcome
    from popdask.pipelines.population import Outcome as Estimates
    from popdask.pipelines.scenes import Outcome as Groups


def show_outcome(outcome: Outcome) -> None:
    """Print what a run has found: communities and people of each frame, events of the tracks."""
    from popdask.tracking.lineage import EVENTS, split_off

    if outcome.plan.done:
        say("nothing to do")
    communities = outcome.communities.groupby("time").size()
    rows = [
        (
            f"{row.time:%Y-%m-%d}",
            f"{communities.get(row.time, 0):,}",
            f"{row.inside:,.0f}",
            f"{row.outside:,.0f}",
            f"{row.raster:,.0f}",
        )
        for row in outcome.balance.itertuples()
    ]
    say("")
    show_table(["frame", "communities", "people in them", "outside", "in the raster"], rows)
    events = outcome.tracks["event"].value_counts()
    say(
        f"\n{count(outcome.tracks['track'].nunique(), 'track')}: "
        + ", ".join(f"{events.get(event, 0):,} {event}" for event in EVENTS)
    )
    if splits := events.get("split", 0):
        tracks = outcome.tracks
        began = split_off(tracks["event"], tracks["track"], tracks["parent"]).sum()
        say(
            f"the {count(splits, 'piece')} that communities split into began "
            f"{count(began, 'new track')}; the others go on as the old ones"
        )
    say(f"results: {outcome.store.path}")


def show_estimates(outcome: Estimates) -> None:
    """Print what a population run has found: people of each frame, scores, zones, communities."""
    if outcome.plan.done:
        say("nothing to do")
    rows = [
        (f"{row.time:%Y-%m-%d}", f"{row.people:,.0f}", f"{row.inhabited:,}", f"{row.cells:,}")
        for row in outcome.people.itertuples()
    ]
    say("")
    show_table(["frame", "people", "inhabited cells", "cells with data"], rows)
    if outcome.scores is not None:
        say("\nestimates against known people")
        show_scores(outcome.scores)
    if outcome.zones is not None:
        zones = count(len(outcome.zones), "zone")
        say(f"\n{zones} with known totals: {_how(outcome.zones['how'])}")
    if outcome.followed is not None:
        show_outcome(outcome.followed)
    if outcome.grouped is not None:
        show_scenes(outcome.grouped)
    say(f"results: {outcome.store.path}")


def show_scenes(outcome: Groups) -> None:
    """Print what a scenes run has found: the cells of each group."""
    if outcome.plan.done:
        say("nothing to do")
    names = [n for n in map(str, outcome.groups) if n.startswith(("kmeans", "hdbscan"))]
    for name in names:
        sizes = outcome.groups[name].value_counts().sort_index()
        numbers = zip(sizes.index.tolist(), sizes.tolist(), strict=True)
        parts = [f"{'none' if group < 0 else group}: {cells:,}" for group, cells in numbers]
        say(f"{name:<10} {', '.join(parts)}")
    say(f"results: {outcome.store.path}")


def show_scores(scores: pd.DataFrame) -> None:
    """Print the scores of estimates side by side, a table for each set of cells."""
    for where, rows in scores.groupby("where", sort=False) if "where" in scores else [("", scores)]:
        say(f"\n{where!s} ({count(rows['cells'].iloc[0], 'cell')})" if where else "")
        cells = [
            [str(row["model"]), *(written(row[name], form) for name, (_, form) in SCORES.items())]
            for _, row in rows.iterrows()
        ]
        show_table(["model", *(header for header, _ in SCORES.values())], cells)


#: What is shown of a score table: by column, how it is called and written.
SCORES = {
    "matthews": ("MCC", ".3f"),
    "accuracy": ("accuracy", ".3f"),
    "mae": ("MAE", ".2f"),
    "r2": ("R²", ".3f"),
    "people": ("people", ",.0f"),
    "true_people": ("true", ",.0f"),
    "relative_error": ("error", "+.2%"),
}


def _how(column: pd.Series) -> str:
    return ", ".join(f"{zones:,} {how}" for how, zones in column.value_counts().items())


#: What shows the outcome of a run, by pipeline.
SHOW: Mapping[str, Callable[[Any], None]] = {
    "communities": show_outcome,
    "population": show_estimates,
    "scenes": show_scenes,
}
