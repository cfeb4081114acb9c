"""What everything that is shown goes through: lines as they are, complaints, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

out = Console()
err = Console(stderr=True)


def say(text: str) -> None:
    """Print one line, as it is."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def complain(problem: object) -> None:
    """Print what is wrong, to the standard error, which may be a log: without secrets."""
    from popdask.pipelines.runlog import without_keys

    text = f"popdask: {without_keys(str(problem))}"
    err.print(text, highlight=False, markup=False, soft_wrap=True)


def show_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")  # a path that is cut is no path
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table)
