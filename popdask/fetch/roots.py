"""Where files are fetched from: who publishes them, or a mirror."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from popdask.errors import InputError


def root_of(url: str | None, variable: str, published: str) -> str:
    """Give the root that files are fetched from, without a slash at its end.

    Parameters
    ----------
    url
        Of a mirror, if one is named.
    variable
        The environment variable that names one otherwise.
    published
        The root where the files are published.

    Raises
    ------
    InputError
        If it is not a URL.

    Examples
    --------
    >>> root_of("https://mirror.example.org/worldpop/", "POPDASK_WORLDPOP_URL", "")
    'https://mirror.example.org/worldpop'
    """
    root = url or os.environ.get(variable) or published
    parts = urlsplit(root)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(
            f"{variable if url is None else 'url'} is {root!r}; expected the root of a mirror such "
            "as https://mirror.example.org/worldpop; correct it."
        )
    return root.rstrip("/")


def shown(url: str) -> str:
    """Give a URL without user, password and query.

    Examples
    --------
    >>> shown("https://me:word@mirror.example.org/a/nor_ppp_2000.tif?token=abc")
    'https://mirror.example.org/a/nor_ppp_2000.tif'
    """
    return re.sub(r"//[^/@]*@", "//", url.split("?")[0])
