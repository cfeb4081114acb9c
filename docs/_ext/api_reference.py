"""The directives ``verbs`` and ``modules``: what `popdask` offers, and the modules it comes from.

Both read the package itself, so that a name that is added there is on the pages too.
"""

from __future__ import annotations

import builtins
import inspect
import re
from functools import cache
from importlib import import_module
from itertools import groupby
from types import ModuleType
from typing import Any, ClassVar

from docutils import nodes
from numpy.typing import ArrayLike
from pydantic import BaseModel
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import stringify_annotation

import popdask


def homes() -> dict[str, str]:
    """Tell the module of every public name of the package."""
    names = [name for name in popdask.__all__ if not name.startswith("_")]
    return {name: popdask._HOME_OF[name] for name in names}


def first_line(what: Any) -> str:
    """Give the first line of a docstring."""
    return (what.__doc__ or "").strip().splitlines()[0]


#: Packages that offer public names of their own.
PACKAGES = (
    "cluster",
    "config",
    "datasets",
    "errors",
    "imagery",
    "io",
    "metrics",
    "plot",
    "report",
    "store",
    "synthetic",
    "tracking",
)


#: What public functions take and give beside, or are made for.
BESIDE = frozenset(
    {
        ("popdask.blocks.sampling", "gather_cells"),
        ("popdask.blocks.sampling", "sample_cells"),
        ("popdask.imagery.evaluation", "scores_by_density"),
        ("popdask.imagery.model", "Normalisation"),
        ("popdask.imagery.networks", "Network"),
        ("popdask.imagery.scenes", "scene_examples"),
        ("popdask.imagery.training", "Progress"),
        ("popdask.tracking.diagnostics", "community_means"),
        ("popdask.tracking.diagnostics", "cosine_by_speed"),
        ("popdask.tracking.diagnostics", "error_by_population"),
        ("popdask.tracking.diagnostics", "silhouettes"),
        ("popdask.tracking.autoencoder", "EncoderConfig"),
        ("popdask.tracking.autoencoder", "Scaling"),
        ("popdask.tracking.registration", "ShiftedFrame"),
    }
)


@cache
def public() -> frozenset[tuple[str, str]]:
    """Every public function and class: the module that has it, and its name there."""
    offered = [(popdask, name) for name in homes()]
    for package in map(import_module, (f"popdask.{name}" for name in PACKAGES)):
        offered += [(package, name) for name in getattr(package, "__all__", ())]
    found = ((name, getattr(package, name)) for package, name in offered)
    told = ((what.__module__, name) for name, what in found if hasattr(what, "__module__"))
    return BESIDE.union(told)


def members(module: ModuleType) -> list[str]:
    """List the public functions and classes of a module, or of a package that offers them.

    Models of settings are left out: the references of job files and cluster files describe them.
    """
    offered = getattr(module, "__all__", vars(module))
    named = [name for name in offered if _is_public(name, getattr(module, name), module)]
    return [name for name in named if _is_code(getattr(module, name))]


def _is_public(name: str, what: Any, module: ModuleType) -> bool:
    home = getattr(what, "__module__", "")
    return (home, name) in public() and (home == module.__name__ or hasattr(module, "__all__"))


def _is_code(what: Any) -> bool:
    if inspect.isclass(what):
        return not issubclass(what, BaseModel)
    return inspect.isroutine(what)


class Verbs(SphinxDirective):
    """List every public name, under the module it comes from."""

    def run(self) -> list[nodes.Node]:
        """Put the table in place."""
        lines = [".. list-table::", "   :widths: 25 75", ""]
        for home, names in groupby(homes().items(), key=lambda item: item[1]):
            for name, _ in names:
                link = f":py:obj:`popdask.{name} <{home}.{name}>`"
                lines += [f"   * - {link}", f"     - {first_line(getattr(popdask, name))}"]
        return self.parse_text_to_nodes("\n".join(lines))


class Modules(SphinxDirective):
    """Document the modules of public names below some packages, and others that are named.

    The argument says which packages; ``not`` before them, all but those below them.
    """

    required_arguments: ClassVar[int] = 1
    optional_arguments: ClassVar[int] = 9
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Put a section for each module in place, in alphabetical order."""
        packages = tuple(f"{name}." for name in self.arguments if name != "not")
        wanted = self.arguments[0] != "not"
        found = {home for home in homes().values() if home.startswith(packages) == wanted}
        lines: list[str] = []
        for name in sorted(found | set(self.content)):
            if not members(import_module(name)):
                continue
            lines += [name, "-" * len(name), "", f".. automodule:: {name}"]
            lines += [f"   :members: {', '.join(members(import_module(name)))}", ""]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


#: Types that are long when they are written out, and what they are called.
_ALIASES = {stringify_annotation(ArrayLike, "smart"): "ArrayLike"}
_ARRAY = re.compile(r"~numpy\.ndarray\[tuple\[~typing\.Any, \.\.\.\], ~numpy\.dtype\[(.*?)\]\]")


def shorten_types(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str, str] | None:
    """Call types of arrays in a signature by their short names."""
    return None if signature is None else (_short(signature), _short(returns or ""))


def _short(text: str) -> str:
    for long, alias in _ALIASES.items():
        text = text.replace(long, alias)
    return _ARRAY.sub(r"NDArray[\1]", text)


def unlink_builtins(app: Sphinx, doctree: nodes.document) -> None:
    """Leave types such as ``bytes`` as words: an attribute of that name is another thing."""
    for node in list(doctree.findall(pending_xref)):
        if node.get("refdomain") == "py" and hasattr(builtins, node.get("reftarget", "")):
            node.replace_self(node.children)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("verbs", Verbs)
    app.connect("autodoc-process-signature", shorten_types)
    app.connect("doctree-read", unlink_builtins)
    app.add_directive("modules", Modules)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
