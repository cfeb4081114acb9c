"""The directive ``settings``: every setting of a kind of file, from its pydantic models.

A model is a table of the file, its docstring says what the table is for, and the docstring under
each field what the setting means. A table that another kind of file has too is described once.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from docutils import nodes
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from popdask.config import CommunitiesJob, PopulationJob, ScenesJob, SettlementsJob
from popdask.config.load import Bounds, ClusterFile, Seconds, table_of
from popdask.config.settings import Place

#: The kinds of files, by the name that the directive takes.
KINDS: dict[str, type[BaseModel]] = {
    "communities": CommunitiesJob,
    "population": PopulationJob,
    "scenes": ScenesJob,
    "settlements": SettlementsJob,
    "cluster": ClusterFile,
}

_WORDS = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
_LIMITS = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}
_BOUNDS, _SECONDS = (get_args(alias)[1] for alias in (Bounds, Seconds))


@dataclass(frozen=True)
class Table:
    """One table of a kind of file."""

    kind: str
    path: tuple[str, ...]
    model: type[BaseModel]
    optional: bool
    same: dict[str, Table] = field(default_factory=dict)
    """Tables within it that are described elsewhere, by key."""

    @property
    def anchor(self) -> str:
        """What links to the table go to."""
        return "-".join((self.kind, *self.path))

    @property
    def title(self) -> str:
        """How the table stands in a file."""
        return f"`[{'.'.join(self.path)}]`" if self.path else "Top of the file"


def all_tables() -> list[Table]:
    """List the tables of all kinds of files; a model that is met again is the same table."""
    known: dict[type[BaseModel], Table] = {}
    return [table for kind, model in KINDS.items() for table in _tables(kind, (), model, known)]


def _tables(
    kind: str,
    path: tuple[str, ...],
    model: type[BaseModel],
    known: dict[type[BaseModel], Table],
    optional: bool = False,
) -> Iterator[Table]:
    table = known[model] = Table(kind, path, model, optional)
    below: list[Table] = []
    for key, info in model.model_fields.items():
        inner = table_of(info)
        if inner in known:
            table.same[key] = known[inner]
        elif inner is not None:
            below += _tables(kind, (*path, key), inner, known, not info.is_required())
    yield table
    yield from below


def describe(table: Table, level: int = 2) -> str:
    """Describe a table in Markdown: what it is for, and each of its settings.

    Parameters
    ----------
    table
        The table.
    level
        Of its heading.
    """
    heading = f"{'#' * level} {table.title}"
    lines = [f"({table.anchor})=", heading, "", _text(table.model.__doc__)]
    lines += ["", "The table may be left out."] if table.optional else []
    lines += ["", "| setting | takes | default | meaning |", "|---|---|---|---|"]
    for key, info in table.model.model_fields.items():
        if key in table.same:
            other = table.same[key]
            name, where = "`[" + ".".join((*table.path, key)) + "]`", f"[{other.title}]"
            link = f"as {where}(#{other.anchor}) of the kind {other.kind}"
            lines.append(f"| {name}{{#{table.anchor}-{key}}} | table | | {link} |")
        elif table_of(info) is None:
            key = info.alias or key
            name = f"`{key}`{{#{table.anchor}-{key}}}"
            cells = (name, takes(info), default(info), _text(info.description))
            lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join([*lines, "", ""])


def takes(info: FieldInfo) -> str:
    """Say what a setting may be."""
    return _takes(info.annotation, info.metadata)


def _takes(kind: Any, metadata: Iterable[Any] = ()) -> str:
    marks = list(_flat(metadata))
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _takes(inner[0], [*inner[1:], *marks])
    if any(mark is _BOUNDS for mark in marks):
        return "whole number, or a list of two"
    if any(mark is _SECONDS for mark in marks):
        return 'time, as `"10 min"`, or seconds'
    if any(isinstance(mark, Place) for mark in marks):
        return "path or URL"
    if "path" in marks:
        return "path"
    if origin in (Union, types.UnionType):
        return " or ".join(_takes(one) for one in inner if one is not type(None))
    if origin is Literal:
        return " or ".join(f"`{toml(value)}`" for value in inner)
    return " ".join([_plain(kind, origin, inner), *_limits(marks)])


def _plain(kind: Any, origin: Any, inner: tuple[Any, ...]) -> str:
    if origin is tuple and inner[-1] is Ellipsis:
        return f"list of {_takes(inner[0])}"
    if origin is tuple:
        return f"list of {len(inner)}: each {_takes(inner[0])}"
    if origin is dict:
        return "table"
    return _WORDS[kind]


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    for mark in metadata:
        if isinstance(mark, FieldInfo):
            yield from mark.metadata
        else:
            yield mark


def _limits(marks: Iterable[Any]) -> Iterator[str]:
    for mark in marks:
        for name, words in _LIMITS.items():
            if (limit := getattr(mark, name, None)) is not None:
                yield words.format(f"{limit:g}")
        if pattern := getattr(mark, "pattern", None):
            yield f"that matches `{pattern}`"


def default(info: FieldInfo) -> str:
    """Say what a setting is where the file does not give it."""
    if info.is_required():
        return "**required**"
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined:
        return "none"
    text = _takes(info.annotation, info.metadata)
    if text.startswith("time"):
        return f'`"{value / 60:g} min"`'
    return f"`{toml(value)}`"


def toml(value: Any) -> str:
    """Write a value as it stands in a file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml, value))}]"
    return "{}" if value == {} else str(value)


def _text(docstring: str | None) -> str:
    return " ".join((docstring or "").split())


class SettingsReference(SphinxDirective):
    """Describe the tables of a kind of file, with headings of a level."""

    required_arguments: ClassVar[int] = 1
    option_spec: ClassVar = {"level": int}

    def run(self) -> list[nodes.Node]:
        """Put a section for each table in place."""
        (kind,) = self.arguments
        level = self.options.get("level", 2)
        tables = [table for table in all_tables() if table.kind == kind]
        text = "\n".join(describe(table, level) for table in tables)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("settings", SettingsReference)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
