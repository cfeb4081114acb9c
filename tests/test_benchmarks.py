"""Every benchmark runs on a tiny size; each checks by itself that its answers are the peers'."""

import json

import numpy as np
import pytest
import xarray as xr

from benchmarks import __main__ as benchmarks
from benchmarks import freeze, machine, tracking
from benchmarks.identities import Objects, scores


def test_answers_are_the_peers(monkeypatch, capsys):
    monkeypatch.setattr(benchmarks, "keep_freed_memory", lambda: None)  # of all tests that follow
    words = ["benchmarks", "--quick", "encode", "dbscan", "links", "flow"]
    monkeypatch.setattr("sys.argv", words)
    benchmarks.main()
    head, _, _, _, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("Machine: ")
    assert {row.split()[1].strip(",") for row in rows} == {"encode", "DBSCAN", "links", "flow"}
    assert all("equal" in row for row in rows)


def test_trackers_find_every_event_and_invent_none(tmp_path):
    world = tracking.crowd((96, 120), seed=1)
    cube = tmp_path / "cube.npy"
    np.save(cube, world.population["population"].values)
    truth = tracking.truth(world)
    assert {event for _, event, *_ in truth} == set(tracking.EVENTS)
    for name in ("popdask", "plain"):
        assert tracking.happened(tracking.track(name, cube)["events"]) == truth


def test_identities_are_cut_where_objects_part_and_scored():
    """One object parts in two in frame 2; whoever leaves both one number is wrong about it."""
    cube = np.zeros((4, 6, 20), np.int64)
    cube[:2, 1:5, 2:18], cube[2:, 1:5, 2:9], cube[2:, 1:5, 12:18] = 5, 5, 7
    true = Objects.of(cube, [(2, "split", 0, 0)], (6, 20))
    assert true.tracks.tolist() == [[1, 0, 1, 0], [2, 2, 3, 1], [3, 2, 3, 1]]
    assert [np.unique(frame).tolist() for frame in true.cells] == [[0, 1]] * 2 + [[0, 2, 3]] * 2
    kept = Objects.of(np.where(cube > 0, 5, 0), [(2, "split", 0, 0)], (6, 20))
    assert kept.tracks.tolist() == [[1, 0, 1, 0], [2, 2, 3, 1]]
    assert scores(true, true) == {"HOTA": 1.0, "TRA": 1.0, "BC": 1.0}
    assert scores(true, kept)["HOTA"] < 0.9 and scores(true, kept)["BC"] == 0


def test_an_invented_and_a_missed_event_are_told():
    found = [(3, "split", 12.0, 20.0), (5, "vanish", 12.0, 20.0), (0, "appear", 12.0, 20.0)]
    truth = {(3, "split", 0, 0), (4, "merge", 0, 0)}
    told = tracking.judge(found, truth)
    assert told == "all 50%/50%, vanish 0%/0%, merge 0%/0%"


def test_a_card_is_measured_or_said_to_be_missing():
    from benchmarks import gpu

    found = {row.part: row for row in gpu.rows(machine.Machine(), quick=True)}
    agreed = [found[f"gpu, {name}"].popdask for name in ("losses", "people", "latents")]
    assert all("of their range" in text for text in agreed)
    for kind in ("presence", "count"):
        assert "steps/s" in found[f"gpu, training of {kind}"].popdask
        assert "%" in found[f"gpu, answers of {kind}"].limit


def test_graph_counts_tasks_of_the_whole_job():
    from benchmarks import graph

    (row,) = graph.rows(machine.Machine(), quick=True)
    assert row.on.startswith("36 chunks")
    assert float(row.popdask.split()[0]) > 20


def test_regions_are_compared_by_what_is_held_after_them(tmp_path):
    from benchmarks import regions

    before = regions.holding()
    with (tmp_path / "held").open("w"):
        assert regions.holding().files == before.files + 1
    _, held = regions.run(str(tmp_path), count=3, warm=2)
    assert len(held) == 2 and held[0].files == held[1].files
    assert all(one.memory > 1e7 and one.threads >= one.python_threads for one in held)


@pytest.mark.parametrize("side", [500, 1000])
def test_cells_without_data_are_summed_to_none(side):
    from benchmarks.events import _in_cells

    people = np.full((4, 8), np.nan)
    people[0, 0] = 7
    people[:, 4:] = 1
    axes = {"y": 1000 - 250.0 * np.arange(4), "x": 5e5 + 250.0 * np.arange(8)}
    ground = xr.DataArray(people, axes, ("y", "x")).rio.write_crs(25833)
    summed = _in_cells(ground, side)
    assert summed[0].values.tolist() == [7, 16] if side == 1000 else summed[0, 0] == 7
    assert np.isnan(summed).sum() == (0 if side == 1000 else 3)


def test_planted_events_are_found_and_none_invented():
    from benchmarks import events

    null, towns = events.rows(machine.Machine(), quick=True)
    assert null.popdask == "0.00 false per 100 steps"
    assert towns.popdask == "recall 1.00, 0.00 false per 100 steps"
    assert towns.also.startswith("5 of 5 events")


def test_a_planet_has_its_urban_centres():
    from benchmarks import planet

    assert planet.shape_of(648_000_000) == planet.WORLD
    (row,) = planet.rows(machine.Machine(), quick=True)
    assert row.on.startswith("708 × 354") and row.also.endswith("1,152 cells of urban centres")


def test_the_table_is_markdown_with_a_column_for_each_field():
    rows = [machine.Row("flow", "3 × 3", "1 s"), machine.Row("links", "2", "2 s", "peer", "2.0 ×")]
    lines = machine.table(rows).splitlines()
    assert {line.count("|") for line in lines} == {8}
    assert {len(line) for line in lines} == {len(lines[0])}
    assert set(lines[1]) <= set("|- ")


def test_what_differs_from_what_was_frozen_is_listed(tmp_path):
    api = freeze.api()
    assert api["popdask.link"].startswith("link(community: xr.DataArray")
    assert api["popdask.RegionStore.exists"] == "exists() -> bool"
    assert "--only" in freeze.helps()["popdask run"]
    lines = {"covered_lines": 9, "num_statements": 10}
    for name, told, covered in (("before", api, 9), ("after", {**api, "popdask.link": ""}, 8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "frozen.json").write_text(json.dumps({"api": told}))
        files = {"popdask/io/cube.py": {"summary": lines | {"covered_lines": covered}}}
        (tmp_path / name / "coverage.json").write_text(json.dumps({"files": files}))
    assert freeze.compare(tmp_path / "before", tmp_path / "before") == []
    assert freeze.compare(tmp_path / "before", tmp_path / "after") == [
        "api: popdask.link: other",
        "coverage: popdask/io: 90.0%, now 80.0%",
    ]
