"""The job that is disturbed, and a place for a run of it."""

from popdask.workflow import communities

#: The stages that every run of the job has, in their order: no settlements, no movement.
STAGES = [
    stage.name
    for stage in communities.PIPELINE.stages
    if not stage.name.startswith(("degurba", "settlement", "urban_centre", "motion", "movement"))
]


def tables(frames, **changes):
    """The settings of these tests: small chunks, so that a stage is many tasks."""
    found = {
        "input": {"frames": f"{frames}/world_{{time:%Y}}.tif", "chunks": 33},
        "output": {"export": ["cog", "geoparquet"]},
    }
    for name, table in changes.items():
        found[name] = found.get(name, {}) | table
    return found


def exports(store):
    """The rasters and tables that the job of a store has exported beside it, by name."""
    folder = store.path.with_suffix("")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in (".tif", ".parquet")
    }
