"""What popdask gives and offers, to show that a change of the code left it as it was.

``python -m benchmarks.freeze run FOLDER`` runs the jobs into a new folder and writes
``FOLDER/frozen.json``: the SHA-256 of every stored array, table and model and of every exported
file (reports name the time of the run, so they are left out), the signatures of all public names,
and the help of every command. ``compare A B`` lists what differs.

What tests cover is compared too where each folder has it as ``coverage.json``, of
``python -m coverage run --source popdask -m pytest`` and ``python -m coverage json``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import griffe
import numpy as np
import typer
from typer.testing import CliRunner

from popdask import RegionStore
from popdask.cli.commands import app

JOBS = ("oslo", "flanders", "imagery-demo")
ROOMS = ("config", "datasets", "io", "metrics", "plot", "report", "store", "synthetic")


def run(folder: Path, names: tuple[str, ...] = JOBS) -> None:
    """Run the demo and some jobs into a folder, and write the checksums of what they give."""
    source = Path(__file__).parents[1] / "jobs"
    jobs = folder / "jobs"
    jobs.mkdir(parents=True)
    popdask = [sys.executable, "-m", "popdask"]
    subprocess.run([*popdask, "demo", "--output", str(folder / "out" / "demo")], check=True)
    for zones in source.glob("*.geojson"):
        (jobs / zones.name).write_bytes(zones.read_bytes())
    for name in names:
        job = jobs / f"{name}.toml"
        job.write_text((source / job.name).read_text())
        subprocess.run([*popdask, "run", str(job)], check=True)
    frozen = {str(store.relative_to(folder)): checksums(store) for store in stores(folder)}
    frozen |= {"exports": exported(folder), "api": api(), "help": helps()}
    (folder / "frozen.json").write_text(json.dumps(frozen, indent=1, sort_keys=True))


def stores(folder: Path) -> list[Path]:
    """List the stores below a folder."""
    return sorted(folder.glob("out/**/*.icechunk"))


def checksums(path: Path) -> dict[str, str]:
    """SHA-256 of every array and file of a store."""
    region = RegionStore(path)
    arrays = region.dataset().variables
    found = {f"array {name}": _digest(array.to_numpy()) for name, array in arrays.items()}
    files = {f"file {name}": _sha256(data) for name, data in region.files().items()}
    return found | {name: digest for name, digest in files.items() if "run.json" not in name}


def _digest(array: np.ndarray) -> str:
    text = f"{array.dtype} {array.shape}".encode()
    return _sha256(text + np.ascontiguousarray(array).tobytes())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def exported(folder: Path) -> dict[str, str]:
    """SHA-256 of every exported file."""
    files = (path for path in sorted(folder.glob("out/**/*")) if path.is_file())
    kept = (p for p in files if not any(part.endswith(".icechunk") for part in p.parts))
    kept = (path for path in kept if path.suffix in {".tif", ".parquet", ".gpkg", ".xml"})
    return {str(path.relative_to(folder)): _sha256(path.read_bytes()) for path in kept}


def api() -> dict[str, str]:
    """Signature of every public name and of the methods of public classes, as griffe reads them."""
    tree, found = griffe.load("popdask", search_paths=[Path(__file__).parents[1]]), {}
    for room in ("popdask", *(f"popdask.{room}" for room in ROOMS)):
        offered = importlib.import_module(room)
        for name in offered.__all__:
            home = getattr(getattr(offered, name), "__module__", None)
            if home is None or not home.startswith("popdask"):
                continue  # a number or a text
            thing = tree[f"{home}.{name}".removeprefix("popdask.")]
            found[f"{room}.{name}"] = _signature(thing)
            if thing.is_class:
                public = {key: one for key, one in thing.all_members.items() if key[0] != "_"}
                found |= {f"{room}.{name}.{key}": _signature(one) for key, one in public.items()}
    return found


def _signature(thing: griffe.Object | griffe.Alias) -> str:
    if thing.is_function:
        return str(thing.signature())
    if thing.is_class and "__init__" in thing.all_members:
        return str(thing.all_members["__init__"].signature())
    return str(getattr(thing, "annotation", None) or thing.kind.value)


def helps() -> dict[str, str]:
    """What every command says of itself."""
    found: dict[str, str] = {}

    def ask(command: Any, *words: str) -> None:
        told = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "100"})
        found[" ".join(("popdask", *words))] = told.output
        for name, inner in getattr(command, "commands", {}).items():
            ask(inner, *words, name)

    ask(typer.main.get_command(app))
    return found


def less_covered(before: Path, after: Path) -> list[str]:
    """List the packages of which tests cover less, where both folders tell."""
    files = [folder / "coverage.json" for folder in (before, after)]
    if not all(file.exists() for file in files):
        return []
    shares = [_shares(json.loads(file.read_text())["files"]) for file in files]
    both = sorted(shares[0].keys() & shares[1].keys())
    return [
        f"coverage: {room}: {shares[0][room]:.1%}, now {shares[1][room]:.1%}"
        for room in both
        if shares[1][room] < shares[0][room]
    ]


def _shares(files: dict[str, Any]) -> dict[str, float]:
    lines: dict[str, list[int]] = {}
    for name, file in files.items():
        seen = lines.setdefault("/".join(Path(name).parts[:2]), [0, 0])
        seen[0] += file["summary"]["covered_lines"]
        seen[1] += file["summary"]["num_statements"]
    return {room: covered / max(whole, 1) for room, (covered, whole) in lines.items()}


def compare(before: Path, after: Path) -> list[str]:
    """List what differs between two frozen folders."""
    old, new = (json.loads((folder / "frozen.json").read_text()) for folder in (before, after))
    lines = []
    for part in sorted(old.keys() | new.keys()):
        was, now = old.get(part, {}), new.get(part, {})
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) != now.get(name):
                what = "gone" if name not in now else "other" if name in was else "new"
                lines.append(f"{part}: {name}: {what}")
    return lines + less_covered(before, after)


def main() -> int:
    """Run or compare, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("run").add_argument("folder", type=Path)
    both = verbs.add_parser("compare")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.verb == "run":
        run(given.folder)
        return 0
    lines = compare(given.before, given.after)
    print("\n".join(lines) or "no difference")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
