"""The job that is disturbed, and a place for a run of it."""

from popdask.workflow import communities

#: The stages that every run of the job has, in their order: no settlements, no movement.
STAGES = [
    stage.name
    for stage in communities.PIPELINE.stages
    if not stage.name.startswith(("degurba", "settlement", "urban_centre", "motion", "movement"))
]

#: What follows them: readers are led to the results.
PUBLISH = "publish"

#: The stages whose tasks on workers store no chunks, and the one that has none.
_WITHOUT_CHUNKS = dict.fromkeys(("encoder", "classifier", "summary", "links"), ("task",))
_MIDST = _WITHOUT_CHUNKS | {"export": ("task",), "tracks": (), PUBLISH: ()}


def points(stage):
    """Where gates of a stage are: at its start, in its midst, and before it is committed."""
    return "start", *_MIDST.get(stage, ("store",)), "commit"


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
