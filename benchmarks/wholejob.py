"""The whole communities job on an invented country: what `graph` and `scaling` measure.

One epoch of training, as training does not grow with the cells, and no exports.
"""

from __future__ import annotations

from pathlib import Path

from popdask.config import CommunitiesJob, load_job
from popdask.synthetic import moving_cities

FRAMES = 6

_JOB = """
name = "benchmark"
pipeline = "communities"
[input]
frames = "world_{{time:%Y}}.tif"
chunks = {chunks}
[encoder]
epochs = 1
[classes]
sample = 20000
[domain]
cells = "data"
[output]
store = "world.icechunk"
"""


def draw(folder: Path, tiles: tuple[int, int], chunks: int) -> tuple[CommunitiesJob, int]:
    """Write the frames of a country and a job for them; the job, and its cells in all frames."""
    folder.mkdir(parents=True)
    world = moving_cities(tiles=tiles, frames=FRAMES)
    world.write(folder)
    path = folder / "job.toml"
    path.write_text(_JOB.format(chunks=chunks))
    return load_job(path), FRAMES * world.shape[0] * world.shape[1]
