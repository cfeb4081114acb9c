"""Run the command line with ``python -m popdask``."""

from popdask.cli.entry import main

main()
