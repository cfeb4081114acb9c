"""Changes of a repository's history, safe where answers of the server get lost.

A server may do what a request asks, and the answer may be lost. Icechunk then asks again and is
told that the branch has moved, or that the tag is there: by whom, it cannot know. A region has one
writer at a time, so here what was done is compared with what was wanted.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import icechunk
from icechunk import ConflictError, IcechunkError, Repository


def create(storage: icechunk.Storage) -> None:
    """Create a repository."""
    try:
        Repository.create(storage)
    except IcechunkError:
        if not Repository.exists(storage):
            raise


def commit(
    repository: Repository,
    session: icechunk.Session,
    message: str,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """Commit a session to its branch.

    Parameters
    ----------
    repository
        Where it belongs.
    session
        Writable, with changes.
    message, metadata
        What to tell of it.

    Returns
    -------
    str
        The identifier of the snapshot.

    Raises
    ------
    icechunk.ConflictError
        If somebody else has committed in between.
    """
    mark = uuid.uuid4().hex
    try:
        return str(session.commit(message, {**(metadata or {}), "commit": mark}))
    except ConflictError:
        tip = next(iter(repository.ancestry(branch=session.branch)))
        if tip.metadata.get("commit") != mark:
            raise
        return str(tip.id)


def create_branch(repository: Repository, branch: str, snapshot: str) -> None:
    """Create a branch at a snapshot."""
    try:
        repository.create_branch(branch, snapshot)
    except IcechunkError:
        if not _points(repository.lookup_branch, branch, snapshot):
            raise


def move_branch(repository: Repository, branch: str, snapshot: str) -> None:
    """Let a branch point to a snapshot."""
    try:
        repository.reset_branch(branch, snapshot)
    except IcechunkError:
        if not _points(repository.lookup_branch, branch, snapshot):
            raise


def create_tag(repository: Repository, tag: str, snapshot: str) -> None:
    """Name a snapshot, for good."""
    try:
        repository.create_tag(tag, snapshot)
    except IcechunkError:
        if not _points(repository.lookup_tag, tag, snapshot):
            raise


def delete_tag(repository: Repository, tag: str) -> None:
    """Take the name of a snapshot away."""
    try:
        repository.delete_tag(tag)
    except IcechunkError:
        if tag in repository.list_tags():
            raise


def _points(lookup: Any, name: str, snapshot: str) -> bool:
    try:
        return bool(lookup(name) == snapshot)
    except IcechunkError:  # it is not there: the first error says why
        return False
