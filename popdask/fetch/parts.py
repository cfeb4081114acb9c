"""The part of a file that has come so far, and a note of what it is part of."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


class Part:
    """Bytes that have come, and what they are part of.

    Parameters
    ----------
    path
        Where the bytes lie; the note is beside it, ``.json`` added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beside = path.with_name(f"{path.name}.json")

    @property
    def note(self) -> dict[str, Any]:
        """Validator, size and checksum of the file; without them, nothing is known."""
        try:
            return json.loads(self._beside.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):  # the latter after a power cut
            return {}

    def size(self) -> int:
        """Count the bytes that have come."""
        return self.path.stat().st_size if self.path.exists() else 0

    def whole(self) -> bool:
        """Tell whether all have come, as far as is known."""
        return self.path.exists() and self.note.get("size") == self.size()

    def rest(self) -> dict[str, str]:
        """Headers that ask for what has not come, if the file is still the same."""
        validator = self.note.get("validator")
        if not validator or not self.size():
            return {}
        return {"Range": f"bytes={self.size()}-", "If-Range": validator}

    def discard(self) -> None:
        """Forget the bytes, then what they were part of."""
        self.path.unlink(missing_ok=True)
        self._beside.unlink(missing_ok=True)

    def describe(self, note: dict[str, Any]) -> None:
        """Write the note."""
        self._beside.write_text(json.dumps(note), encoding="utf-8")

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open the part for what comes next; what has come is on the disk at the end."""
        with self.path.open("ab") as file:
            try:
                yield file
            finally:
                file.flush()
                os.fsync(file.fileno())

    def hand_over(self, target: str) -> None:
        """Move the bytes to where they belong."""
        self.path.replace(target)
        self._beside.unlink(missing_ok=True)
