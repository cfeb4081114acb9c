"""`popdask plan`: as text whose paths are whole, as JSON with a schema, for any cluster."""

import json
import os
import subprocess
import sys

import jsonschema
import pytest
from distributed import LocalCluster

from popdask import __main__ as entry
from popdask.cli import show
from popdask.errors import InputError
from tests.pipelines import small

WHOLE = {"type": "integer", "minimum": 0}
SECONDS = {"type": ["number", "null"]}
SIZES = dict.fromkeys(("tasks", "read", "written", "memory"), WHOLE)


def table(**properties):
    """The schema of a table with these names, all of them and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXTS = {"type": "array", "items": {"type": "string"}}
TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
STAGE = table(
    name=TEXT, done=FLAG, to_compute=WHOLE, total=WHOLE, unit=TEXT, seconds=SECONDS, **SIZES
)
SCHEMA = table(
    schema={"const": 1},
    name=TEXT,
    pipeline=TEXT,
    store=TEXT,
    settings={"type": "object"},
    frames=TEXTS,
    extent=TEXT,
    done=FLAG,
    gone=TEXTS,
    warnings=TEXTS,
    stages={"type": "array", "items": STAGE, "minItems": 1},
    costs=table(chunks=WHOLE, seconds=SECONDS, **SIZES),
    workers=table(number=WHOLE, threads=WHOLE, memory=WHOLE),
    advice={"type": ["string", "null"]},
    following={"type": "array", "items": {"$ref": "#"}},
)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planning")
    small.small_world().write(folder)
    return small.write_job(folder / "job.toml", folder, folder / "store.icechunk")


@pytest.fixture
def plan(job, monkeypatch, capsys):
    """Calls `popdask plan`; gives what it prints."""

    def call(*options):
        monkeypatch.setattr("sys.argv", ["popdask", "plan", str(job), *options])
        with pytest.raises(SystemExit) as end:
            entry.main()
        assert not end.value.code
        return capsys.readouterr().out

    return call


def test_a_plan_is_json_with_its_settings_stages_and_costs(plan):
    told = json.loads(plan("--json", "--set", "classes.k=4", "--set", "input.end=2002"))
    jsonschema.validate(told, SCHEMA)
    assert told["settings"]["classes"]["k"] == 4 and not told["done"]
    assert [time[:4] for time in told["frames"]] == ["2000", "2001", "2002"]
    stages = {stage["name"]: stage for stage in told["stages"]}
    assert (stages["links"]["to_compute"], stages["links"]["unit"]) == (2, "pairs")
    assert told["costs"]["tasks"] == sum(stage["tasks"] for stage in told["stages"])


def test_secrets_of_settings_are_in_no_json(plan):
    url = 'https://me:pa"ss@example.org/world_2000.tif?token=secret'
    told = plan("--json", "--set", f"title={url}")
    title = json.loads(told)["settings"]["title"]
    assert title == "https://example.org/world_2000.tif" and "secret" not in told


def test_a_path_is_in_one_piece_at_any_width(job):
    environment = os.environ | {"COLUMNS": "40"}
    command = [sys.executable, "-m", "popdask", "plan", str(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    for path in (f"{job.parent}/world_{{time:%Y}}.tif", f"{job.parent}/store.icechunk"):
        assert any(line.endswith(f"  {path}") for line in done.stdout.splitlines())
    assert "classes.k" in done.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('workers = 3\narguments.memory_limit = "1 GiB"', (3, 2**30)),
        (
            'class = "dask_jobqueue.SLURMCluster"\nworkers = [2, 16]\n'
            'arguments = { cores = 4, processes = 2, memory = "8 GiB" }',
            (16, 2, 4 * 2**30),
        ),
        ('workers = 3\narguments = { gpus = true, memory_limit = "1 GiB" }', (2, 1, 2**30)),
    ],
)
def test_the_workers_are_those_that_a_file_asks_for(tmp_path, monkeypatch, text, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    resources = show.resources_of(str(file))
    found = (resources.workers, resources.threads, resources.memory)
    assert found == expected or (found[0], found[2]) == expected


def test_the_workers_are_those_of_a_scheduler_that_is_there(plan):
    options = {"n_workers": 1, "threads_per_worker": 3, "processes": False}
    with LocalCluster(protocol="tcp", dashboard_address=":0", **options) as cluster:
        told = json.loads(plan("--json", "--cluster", cluster.scheduler_address))
    assert (told["workers"]["number"], told["workers"]["threads"]) == (1, 3)


def test_an_unknown_cluster_is_refused():
    with pytest.raises(InputError, match="the cluster 'slrum' is unknown"):
        show.resources_of("slrum")


def test_a_shell_completes_commands_and_settings():
    def completed(words):
        environment = os.environ | {
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
            "_POPDASK_COMPLETE": "complete_bash",
        }
        command = [
            sys.executable,
            "-c",
            "import sys; sys.argv = ['popdask']; from popdask import __main__; __main__.main()",
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        return done.stdout.split()

    assert completed("popdask pl") == ["plan"]
    assert completed("popdask plan --set classes.s") == ["classes.sample=", "classes.seed="]
