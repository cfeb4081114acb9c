"""Run the command line with ``python -m popdask``."""

from popdask.cli import main

main()
