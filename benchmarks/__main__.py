"""Run the benchmarks and print one table: ``python -m benchmarks [--quick] [NAME …]``."""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path

from benchmarks.machine import Machine, Row, table
from popdask.cluster import keep_freed_memory

NAMES = (
    "encode",
    "dbscan",
    "links",
    "flow",
    "tracking",
    "graph",
    "plan",
    "scaling",
    "estimate",
    "quality",
    "regions",
    "events",
    "moves",
    "planet",
    "gpu",
)
ABOUT = """\
Times are seconds of the processor, all threads together, so that other work on the machine matters
little; a ratio says how many times faster popdask is. All rows are of one run. A limit is the share
of what one thread of this machine can do, or of the room that is given. Memory is what was taken
beyond the input. popdask and its peers use freed memory again, as popdask's workers do, instead of
giving it back to the system. Tracking gives the recall/precision of appear, vanish, split, merge;
an event counts if it is found in its frame at its place. Events are those that were planted in real
grids; false ones are counted per 100 steps of a settlement or community from one frame to the next.
"""


def main() -> None:
    """Measure the parts asked for, and print their rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all runs")
    parser.add_argument("--output", type=Path, help="a Markdown file for the table")
    parser.add_argument("--cells", type=int, help="of the planet; the world has 648000000")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")

    keep_freed_memory()  # as popdask's workers do
    machine = Machine()
    about, rows = f"Machine: {machine}.", list[Row]()
    for name in options.names or NAMES:
        start = time.perf_counter()
        module = import_module(f"benchmarks.{name}")
        size = {"cells": options.cells} if name == "planet" else {}
        for row in module.rows(machine, quick=options.quick, **size):
            rows.append(row)
            print(f"{time.perf_counter() - start:5.0f} s  {row}", file=sys.stderr)
    print(f"{about}\n\n{table(rows)}")
    if options.output:
        text = f"# Measured by `make bench`\n\n{about}\n\n{ABOUT}\n{table(rows)}\n"
        options.output.write_text(text)


if __name__ == "__main__":
    main()
