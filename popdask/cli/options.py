"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="The job file (TOML).")]
JobFiles = Annotated[
    list[Path], typer.Argument(metavar="JOB…", help="Job files, and folders of them.")
]
Logs = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Where the logs of runs are; by default beside each store."
    ),
]
Cluster = Annotated[
    str,
    typer.Option(
        metavar="SPEC",
        help="Where to run: local, a scheduler's address (tcp://…, tls://…), or a TOML file.",
    ),
]
ClusterIfAny = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC", help="Where to run, as for `popdask run`; by default, in this process."
    ),
]
