"""The directive ``picture``: Python that makes a ``figure``, and the figure that it makes.

The blocks of a page share their names, so that one goes on from the others; the pictures are thus
those of the code that is shown, drawn anew with every build.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Picture(SphinxDirective):
    """Run the block, and show it with the figure that it names ``figure``."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Put the picture and its code in place."""
        drawn = self.env.temp_data.setdefault("pictures", [])
        names: dict[str, Any] = self.env.temp_data.setdefault("names", {})
        code = "\n".join(self.content)
        exec(compile(code, f"{self.env.docname}, line {self.lineno}", "exec"), names)
        path = Path(self.env.doctreedir, "pictures", f"{self.env.docname}-{len(drawn) + 1}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        names["figure"].savefig(path, dpi=90, bbox_inches="tight")
        drawn.append(path)
        place = Path(self.env.doc2path(self.env.docname)).parent
        shown = nodes.image(uri=Path(os.path.relpath(path, place)).as_posix())
        shown["alt"] = self.arguments[0]
        listing = nodes.literal_block(code, code, language="python")
        return [shown, listing]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("picture", Picture)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
