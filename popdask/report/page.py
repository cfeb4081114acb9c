"""The page of a report: its template, styles and scripts, and what they are filled with.

Everything that comes from files is text: the template escapes it, and in scripts it stands as JSON
without angle brackets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from bokeh.resources import Resources
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from popdask.report.overview import pack

SCRIPTS = ("unpack.js", "raster.js", "world.js", "table.js", "panel.js", "report.js")


def render(**filling: Any) -> str:
    """Fill the page's template.

    Parameters
    ----------
    **filling
        What the template names; texts are escaped.

    Returns
    -------
    str
        The whole page: styles, scripts and data are in it.
    """
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        _asset("report.html")
    )
    bokeh = "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)
    return template.render(
        style=Markup(_asset("report.css")),
        bokeh=Markup(_script(bokeh)),
        scripts=Markup("\n".join(map(_asset, SCRIPTS))),
        **filling,
    )


def packed_json(value: Any) -> str:
    """Write a value as compressed JSON."""
    return pack(json.dumps(value, separators=(",", ":"), allow_nan=False).encode())


def inline_json(value: Any) -> Markup:
    r"""Write a value as JSON that can stand in a script element, whatever texts are in it.

    Examples
    --------
    >>> print(inline_json("</script>"))
    "\u003c/script>"
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _asset(name: str) -> str:
    return (files("popdask.report") / "assets" / name).read_text(encoding="utf-8")


def _script(text: str) -> str:
    """Keep a library's own text from ending the script element that it stands in."""
    return text.replace("</script", "<\\/script")


def layer_elements(frames: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, str]]:
    """List the packed frames of all layers, each with the id of its element."""
    return [
        {"id": f"{layer}-{position}", "codes": frame["codes"]}
        for layer, packed in frames.items()
        for position, frame in enumerate(packed)
    ]
