"""The directive ``commands``: every command with its arguments and options, told by Typer."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def command_pages(module: str, name: str) -> str:
    """Give the commands of a Typer application in Markdown, one section each.

    Parameters
    ----------
    module
        Where the application is.
    name
        What it is called on the command line.
    """
    command = [sys.executable, "-m", "typer", module, "utils", "docs", "--name", name]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    _, first, rest = told.partition("\n## ")  # before it is a list that cuts sentences short
    return (first + rest).replace("* `--help`: Show this message and exit.\n", "")


class Commands(SphinxDirective):
    """Describe the commands of an application: its module, and its name."""

    required_arguments: ClassVar[int] = 2

    def run(self) -> list[nodes.Node]:
        """Put the sections in place."""
        text = command_pages(*self.arguments).replace("**Options**:\n\n\n", "")
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("commands", Commands)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
