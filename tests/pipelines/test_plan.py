"""A plan computes what depends on a change, and nothing else."""

from dataclasses import replace

import pytest

from popdask.config import CommunitiesJob
from popdask.workflow.communities import PIPELINE
from popdask.workflow.frames import basis
from popdask.workflow.plan import decide

#: Of a job that asks neither for urban centres nor for movement.
STAGES = [
    stage.name
    for stage in PIPELINE.stages
    if not stage.name.startswith(("urban_centre", "motion")) and not stage.name.endswith("movement")
]
SETTLED = [
    "degurba",
    "settlements",
    *(f"settlement_{one}" for one in ("summary", "links", "tracks")),
]

YEARS = [f"{year}-01-01T00:00:00" for year in range(2000, 2006)]


def job(**tables):
    settings = {
        "name": "here",
        "input": {"frames": "p_{year}.tif"},
        "output": {"store": "out/here.icechunk", "export": ["cog"]},
    }
    return CommunitiesJob.model_validate(settings | tables)


def inputs(years=YEARS, **changed):
    return {year: changed.get(f"y{year[:4]}", f"checksum of {year}") for year in years}


def records(plan):
    return {stage.name: stage.record for stage in plan}


def stale(plan):
    """Years to compute, by stage, for the stages that have any."""
    return {
        stage.name: [int(plan.times[i][:4]) for i in stage.stale] for stage in plan if stage.stale
    }


def replan(first, second, before=None, after=None):
    """The plan of a job after another was run to its end."""
    return decide(
        PIPELINE.stages,
        basis(
            second,
            after or inputs(),
            records(decide(PIPELINE.stages, basis(first, before or inputs(), {}))),
        ),
    )


def test_a_first_run_computes_every_stage():
    plan = decide(PIPELINE.stages, basis(job(), inputs(), {}))
    assert set(stale(plan)) == set(STAGES)
    assert str(plan["flow"]) == "all 6 frames" and str(plan["links"]) == "all 5 pairs"
    assert not plan.done


def test_a_second_run_of_an_unchanged_job_has_nothing_to_do():
    plan = replan(job(), job())
    assert plan.done and str(plan["flow"]) == "done"


@pytest.mark.parametrize(
    ("tables", "first"),
    [
        ({"input": {"frames": "p_{year}.tif", "nodata": 0}}, "population"),
        ({"flow": {"alpha": 5}}, "flow"),
        ({"domain": {"cells": "data"}}, "encoder"),
        ({"encoder": {"epochs": 10}}, "encoder"),
        ({"encoder": {"window": 9}}, "encoder"),
        ({"encoder": {"hidden": [64], "l2": 1e-4}}, "encoder"),
        ({"encoder": {"latent_activation": "linear"}}, "encoder"),
        ({"encoder": {"scope": "frame"}}, "encoder"),
        ({"encoder": {"symmetric": False}}, "encoder"),
        ({"classes": {"k": 5}}, "classifier"),
        ({"communities": {"eps": 5}}, "communities"),
        ({"classes": {"distance": "codes"}}, "classifier"),
        ({"classes": {"method": "kmeans"}}, "classifier"),
        ({"classes": {"hold": 0}}, "classes"),
        ({"links": {"rule": "overlap"}}, "links"),
        ({"links": {"share": 0.5}}, "links"),
        ({"tracks": {"memory": 2}}, "links"),
        ({"input": {"frames": "p_{year}.tif", "error": 0.05}}, "links"),
        ({"tracks": {"sigma": 3}}, "tracks"),
    ],
)
def test_a_changed_setting_recomputes_what_depends_on_it(tables, first):
    own = [stage for stage in STAGES if stage not in SETTLED]
    found = list(stale(replan(job(), job(**tables))))
    wanted = own[own.index(first) :]
    if first in ("links", "tracks"):
        wanted = [stage for stage in wanted if stage in ("links", "tracks", "export")]
    settled = {"population": SETTLED, "links": SETTLED[-2:], "tracks": SETTLED[-1:]}.get(first, [])
    if tables.get("links", {}).get("rule"):
        settled = []  # settlements are linked by the people in common
    wanted = [stage for stage in STAGES if stage in (*wanted, *settled)]
    assert found == wanted


@pytest.mark.parametrize(
    "tables", [{"encoder": {"device": "cpu"}}, {"input": {"frames": "p_{year}.tif", "chunks": 64}}]
)
def test_where_and_how_a_job_runs_recomputes_nothing(tables):
    assert replan(job(), job(**tables)).done


def test_few_classes_are_fitted_together_and_many_by_splits():
    few, many = job(classes={"k": 7}), job(classes={"k": 8})
    assert replan(few, job(classes={"k": 7, "method": "kmeans"})).done
    assert replan(many, job(classes={"k": 8, "method": "bisecting"})).done
    assert "classifier" in stale(replan(many, job(classes={"k": 8, "method": "kmeans"})))
    assert job(classes={"k": "auto"}).classes.fitted_by == "kmeans"


def test_settings_that_came_later_leave_models_and_numbers_at_their_defaults():
    """By these, stores know their models and the numbers of their tracks again."""
    before = {
        "encoder": "931a7cf3ec2c30f8",  # when windows, layers and regularisation were fixed
        "settlements": "014c0df6b7a38956",
        "urban_centres": "ed4c1ae4a67ef847",
    }
    first = job(
        settlements={"centres": True},
        encoder={"symmetric": False},
        classes={"distance": "codes", "method": "kmeans"},
    )
    plan = decide(PIPELINE.stages, basis(first, inputs(), {}))
    assert {name: plan[name].record["settings"] for name in before} == before
    # Classes got a density, and models of another version with it: numbers stay by the analysis.
    assert plan["communities"].record["analysis"] == "2fb9a8c9653ac9d5"


def test_another_version_of_a_stage_finds_the_numbers_of_the_one_before():
    """It draws labels anew, under the same settings: tracks go on under their numbers."""
    labels = ("settlements", "urban_centres", "communities")
    made = basis(job(settlements={"centres": True}), inputs(), {})
    newer = [
        replace(stage, version=stage.version + 1) if stage.name in labels else stage
        for stage in PIPELINE.stages
    ]
    before = decide(PIPELINE.stages, made)
    after = decide(newer, made)
    for name in labels:
        one, other = before[name].record, after[name].record
        assert one["settings"] == other["settings"]
        assert not set(one["frames"].values()) & set(other["frames"].values())


def test_without_settlements_there_is_nothing_of_them():
    plan = replan(job(), job(settlements={"find": False}))
    assert set(stale(plan)) == {"summary", "tracks", "export"}
    assert set(STAGES) - {stage.name for stage in plan} == set(SETTLED)


def test_an_appended_frame_costs_one_frame_and_the_one_before_it():
    plan = replan(job(), job(), before=inputs(YEARS[:-1]))
    assert stale(plan) == {
        "population": [2005],
        **{stage: [2005] for stage in SETTLED},
        "flow": [2004, 2005],
        "classes": [2004, 2005],
        "communities": [2004, 2005],
        "summary": [2004, 2005],
        "links": [2004, 2005],
        "tracks": [2005],
        "export": [2004, 2005],
    }


def test_with_backward_differences_an_appended_frame_costs_one_frame():
    settings = job(flow={"centering": (0, 0, -1)})
    plan = replan(settings, settings, before=inputs(YEARS[:-1]))
    found = stale(plan)
    assert "encoder" not in found and "classifier" not in found
    for stage in ("population", "flow", "classes", "communities", "summary"):
        assert found[stage] == [2005]
    assert found["links"] == [2005]


@pytest.mark.parametrize(
    ("hold", "years"), [(0.0, [2001, 2002, 2003]), (0.5, [2001, 2002, 2003, 2004, 2005])]
)
def test_classes_that_are_held_depend_on_those_before(hold, years):
    settings = job(flow={"warm_start": False}, classes={"hold": hold})
    plan = replan(settings, settings, before=inputs(YEARS[:2] + YEARS[3:]))
    assert stale(plan)["flow"] == [2001, 2002, 2003] and stale(plan)["classes"] == years


def test_a_replaced_frame_refits_the_models_that_saw_it():
    plan = replan(job(), job(), after=inputs(y2003="another checksum"))
    found = stale(plan)
    assert found["population"] == [2003]
    assert found["flow"] == [2002, 2003, 2004, 2005]
    assert len(found["encoder"]) == len(found["classes"]) == 6


def test_without_warm_start_a_replaced_frame_leaves_later_flow():
    settings = job(flow={"warm_start": False})
    plan = replan(settings, settings, after=inputs(y2003="another checksum"))
    assert stale(plan)["flow"] == [2002, 2003, 2004]


def test_a_model_for_each_frame_is_fitted_for_that_frame_alone():
    settings = job(encoder={"scope": "frame"}, flow={"warm_start": False})
    plan = replan(settings, settings, after=inputs(y2003="another checksum"))
    found = stale(plan)
    assert found["encoder"] == found["classes"] == found["flow"] == [2002, 2003, 2004]


def test_a_removed_frame_refits_and_rewrites_the_tables():
    plan = replan(job(), job(), after=inputs(YEARS[:3] + YEARS[4:]))
    found = stale(plan)
    assert "population" not in found
    assert set(found) >= {"flow", "encoder", "classes", "summary", "links", "tracks"}


def test_a_removed_last_frame_leaves_no_rows_behind():
    settings = job(flow={"centering": (0, 0, -1)}, encoder={"scope": "frame"})
    plan = replan(settings, settings, after=inputs(YEARS[:-1]))
    assert {"summary", "links", "tracks"} <= set(stale(plan))


def test_the_order_of_the_stages_is_the_order_of_the_versions():
    assert [stage.name for stage in decide(PIPELINE.stages, basis(job(), inputs(), {}))] == STAGES


def test_aligned_frames_follow_the_grid_of_the_first():
    settings = job(input={"frames": "p_{year}.tif", "align": True})
    plan = replan(settings, settings, before=inputs(YEARS[1:]))
    assert len(stale(plan)["population"]) == len(stale(plan)["encoder"]) == 6
    appended = replan(settings, settings, before=inputs(YEARS[:-1]))
    assert stale(appended)["population"] == [2005]
