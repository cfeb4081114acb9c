"""Who made the rasters, and what they ask for in return."""

from __future__ import annotations

from dataclasses import dataclass

CC_BY = "Creative Commons Attribution 4.0 International (CC BY 4.0)"
CC_BY_URL = "https://creativecommons.org/licenses/by/4.0/"


@dataclass(frozen=True)
class Credit:
    """The credit that a data set asks for."""

    title: str
    """Its name."""
    citation: str
    """How it is cited."""
    page: str
    """Where it is described."""
    licence: str = CC_BY
    """What may be done with it."""
    licence_url: str = CC_BY_URL
    """Where the licence is."""

    def __str__(self) -> str:
        return f"{self.title}: {self.citation} {self.licence}."


def credits_text(files: dict[str, dict[str, str]], credits: dict[str, Credit]) -> str:
    """Write the credits of a folder.

    Parameters
    ----------
    files
        By name of a file: ``credit``, a key of `credits`, and ``made``, how it differs from what
        was published ("" where it does not).
    credits
        The credits by key.

    Returns
    -------
    str
        A paragraph for each data set, followed by its files.
    """
    paragraphs = []
    for key, credit in sorted(credits.items()):
        names = sorted(name for name, file in files.items() if file["credit"] == key)
        lines = [credit.title, credit.citation, f"{credit.licence}, {credit.licence_url}"]
        lines += [credit.page, ""]
        lines += [f"  {name}{_changed(files[name]['made'])}" for name in names]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs) + "\n"


def _changed(made: str) -> str:
    return f"  (changed: {made})" if made else "  (as published)"
