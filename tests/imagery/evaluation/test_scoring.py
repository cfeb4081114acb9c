"""Estimates side by side: the scores of the metrics, on common cells, of honest tables only."""

import json
from dataclasses import asdict
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from popdask.errors import InputError
from popdask.imagery.evaluation import (
    evaluate,
    prediction_table,
    read_predictions,
    regressor_scores,
    scores_by_density,
    write_scores,
)
from popdask.metrics import block_intervals, count_scores, presence_scores


def invent(seed=0, cells=400):
    """Cells of the Danish grid, most of them empty, and a fair estimate."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(cells) < 0.7, 0, rng.poisson(rng.gamma(1, 20, cells)))
    presence = np.clip((truth > 0) + rng.normal(0, 0.3, cells), 0, 1)
    prediction = np.where(presence > 0.5, np.abs(truth + rng.normal(0, 5, cells)), 0.0)
    code = [f"100m_61397_{6000 + i}" for i in range(cells)]
    columns = {"cell": code, "prediction": prediction, "truth": truth, "presence": presence}
    return pd.DataFrame(columns)


def test_scores_are_those_of_the_metrics():
    table = invent()
    row = evaluate(table).loc["estimate"]
    expected = asdict(presence_scores(table.presence, table.truth))
    expected |= asdict(count_scores(table.prediction, table.truth))
    assert row.to_dict() == expected
    assert row["matthews"] > 0.7 and row["r2"] > 0.8


def test_intervals_are_those_of_squares_of_the_cells_codes():
    table = invent()
    plain, row = evaluate(table), evaluate(table, block=10).loc["estimate"]
    blocks = [int(code.split("_")[2]) // 10 for code in table.cell]
    expected = block_intervals(table.prediction, table.truth, blocks, presence=table.presence)
    for name, (low, high) in expected.items():
        assert (row[f"{name}_low"], row[f"{name}_high"]) == (low, high)
        assert low <= row[name] <= high
    assert row["people_low"] == row["true_people"] * (1 + row["relative_error_low"])
    assert row[plain.columns].to_dict() == plain.loc["estimate"].to_dict()
    numbered = evaluate(table.assign(cell=range(len(table))), block=10).loc["estimate"]
    assert np.isnan(numbered["r2_low"]) and numbered["r2"] == row["r2"]
    with pytest.raises(InputError, match="block is 0; expected cells per side"):
        evaluate(table, block=0)


def test_the_regressor_is_scored_alone_where_people_live_and_where_the_gate_is_open():
    table = invent().assign(count=lambda t: t.truth + 3.0)
    rows = regressor_scores({"two": table, "one": table.drop(columns="count")}).set_index("of")
    assert rows.model.tolist() == ["two", "two"]
    assert (rows.mae == 3).all()
    assert rows.cells.to_dict() == {
        "inhabited": (table.truth > 0).sum(), "passed": (table.presence > 0.5).sum(),
    }  # fmt: skip
    alone = regressor_scores(table.drop(columns="presence"))
    assert alone.of.tolist() == ["inhabited"]


def test_without_presence_a_cell_is_inhabited_where_people_are_predicted():
    table = invent()
    row = evaluate(table.drop(columns="presence")).loc["estimate"]
    assert row["matthews"] == presence_scores(table.prediction > 0, table.truth).matthews
    strict = evaluate(table, threshold=0.9).loc["estimate"]
    assert strict["recall"] < row["recall"] and strict["precision"] > row["precision"]


def test_models_are_compared_on_the_cells_that_all_have():
    ours = invent()
    mean = ours.assign(prediction=ours.truth.mean(), presence=0.0)
    others = ours[::-1].iloc[:250].drop(columns="presence")
    scores = evaluate({"ours": ours, "others": others, "mean": mean})
    assert scores.index.tolist() == ["ours", "others", "mean"]
    assert (scores["cells"] == 250).all()
    assert scores.loc["ours", "mse"] == pytest.approx(scores.loc["others", "mse"])
    alone = evaluate(ours.iloc[150:]).loc["estimate"]
    assert scores.loc["ours"].to_dict() == pytest.approx(alone.to_dict())
    assert scores["r2"].idxmin() == "mean" and scores.loc["mean", "matthews"] == 0


def test_bins_hold_every_cell_and_every_person_once():
    ours = invent(1)
    mean = ours.assign(prediction=ours.truth.mean())
    table = scores_by_density({"ours": ours, "mean": mean})
    by_model = table.groupby("model")
    assert (by_model["cells"].sum() == len(ours)).all()
    assert (by_model["true_people"].sum() == ours.truth.sum()).all()
    whole = evaluate({"ours": ours, "mean": mean})
    for name, rows in by_model:
        assert np.average(rows["mse"], weights=rows["cells"]) == pytest.approx(
            whole.loc[name, "mse"]
        )
    for row in table.itertuples():
        inside = ours[(ours.truth >= row.low) & (ours.truth < row.high)]
        assert row.cells == len(inside)
        if row.model == "ours":
            assert row.bias == pytest.approx((inside.prediction - inside.truth).mean())
            assert row.mae == pytest.approx((inside.prediction - inside.truth).abs().mean())
    lows = table.loc[table["model"] == "ours", "low"].tolist()
    assert lows[:5] == [0, 1, 2, 5, 10] and lows == sorted(lows)


def test_bins_may_be_given_and_empty_ones_are_left_out():
    table = pd.DataFrame({"cell": [1, 2, 3], "prediction": [1, 2, 3], "truth": [0, 3, 99]})
    rows = scores_by_density(table, edges=[0, 3, 50, 80])
    assert rows[["low", "high", "cells"]].to_numpy().tolist() == [
        [0, 3, 1], [3, 50, 1], [80, np.inf, 1],
    ]  # fmt: skip
    assert np.isnan(rows["relative_error"][0]), "nobody lives there"
    nobody = scores_by_density(table.assign(truth=0))
    assert nobody[["low", "cells"]].to_numpy().tolist() == [[0, 3]]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_of_others_are_read(suffix, tmp_path):
    table, path = invent().assign(colour="red"), tmp_path / f"others.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    read = read_predictions(path)
    assert read.columns.tolist() == ["cell", "prediction", "truth", "presence"]
    pd.testing.assert_frame_equal(evaluate(read), evaluate(table))


@pytest.mark.parametrize("kind", [str, Decimal, "Int64"])
def test_numbers_may_be_text_or_decimals(kind, tmp_path):
    table, path = TABLE.assign(prediction=[9, 10], truth=[9, 12]), tmp_path / "others.parquet"
    odd = table[["prediction", "truth"]]
    odd = odd.astype(kind) if isinstance(kind, str) else odd.map(kind)
    table.assign(**odd).to_parquet(path)
    read = read_predictions(path)
    pd.testing.assert_frame_equal(evaluate({"a": read, "b": read})[:1], evaluate({"a": table}))
    assert scores_by_density(read)["low"].tolist() == [5, 10]


def test_scores_are_written_as_json(tmp_path):
    ours = invent()
    tables = {"ours": ours, "nobody": ours.assign(prediction=0.0, presence=0.0)}
    scores, bins = evaluate(tables), scores_by_density(tables, edges=[0, 1])
    path = write_scores(tmp_path / "new" / "scores.json", scores, bins)
    told = json.loads(path.read_text())
    assert told["scores"]["nobody"]["precision"] is None
    assert told["scores"]["ours"]["r2"] == scores.loc["ours", "r2"]
    assert told["scores"]["ours"]["cells"] == 400
    assert len(told["by_density"]) == len(bins)
    assert told["by_density"][-1]["high"] is None, "the last bin is open"
    assert [item.name for item in path.parent.iterdir()] == ["scores.json"]


def test_rasters_become_a_table():
    truth = np.array([[1.0, np.nan], [0.0, 4.0]])
    population, presence = np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([[0.9, 0.8], [0.2, np.nan]])
    table = prediction_table(population, truth, presence, cell=[["a", "b"], ["c", "d"]])
    assert table.to_numpy().tolist() == [["a", 2.0, 1.0, 0.9], ["c", 0.0, 0.0, 0.2]]
    assert prediction_table(population, truth)["cell"].tolist() == [0, 2, 3]
    with pytest.raises(InputError, match=r"prediction has the shape \(2, 2\), truth .* \(4,\);"):
        prediction_table(population, [1, 2, 3, 4], cell=[1, 2, 3, 4])


TABLE = pd.DataFrame({"cell": ["a", "b"], "prediction": [1.0, 2.0], "truth": [1.0, 3.0]})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE.drop(columns="truth"), "theirs has no column truth but cell, prediction"),
        (TABLE[["truth"]], "no column cell and no prediction but truth"),
        (TABLE.assign(cell="a"), "theirs has the cell a twice"),
        (TABLE.assign(prediction=[1, np.nan]), "1 cells whose prediction is not .* b with nan"),
        (TABLE.assign(prediction=["x", "2"]), "first is a with x"),
        (TABLE.assign(truth=[-1, np.inf]), "2 cells whose truth is not .* a with -1"),
        (TABLE.assign(presence=[0.5, np.nan]), "1 cells whose presence"),
        (TABLE.assign(cell=["c", "d"]), "ours and theirs have no cell in common"),
        (TABLE.assign(truth=[1.0, 4.0]), "1 cells have another truth .* b with 4 and 3"),
    ],
)
def test_mistakes_are_named(table, message):
    with pytest.raises(InputError, match=message):
        evaluate({"ours": TABLE, "theirs": table})


def test_missing_files_and_wrong_bins_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv does not exist"):
        read_predictions(tmp_path / "nowhere.csv")
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"junk\.parquet cannot be read .*table of predictions"):
        read_predictions(tmp_path / "junk.parquet")
    for edges in ([], [0, 5, 5], [2, 5]):
        with pytest.raises(InputError, match="ascend from 1 or below"):
            scores_by_density(TABLE, edges=edges)
    with pytest.raises(InputError, match="there are no predictions"):
        evaluate({})
