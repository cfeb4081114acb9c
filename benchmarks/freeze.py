"""What jobs give, as checksums: to show that a change of the code left every result as it was.

``python -m benchmarks.freeze run FOLDER`` runs the jobs into a new folder and writes
``FOLDER/frozen.json``: the SHA-256 of every stored array, table and model and of every exported
file (reports name the time of the run, so they are left out). ``compare A B`` lists what differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from popdask import RegionStore

JOBS = ("oslo", "flanders")


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
    frozen["exports"] = exported(folder)
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
    return lines


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
