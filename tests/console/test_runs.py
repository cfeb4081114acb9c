"""What is said of finished runs."""

import pytest

from popdask.cli import show
from popdask.workflow.operations import Verified

FORCE, EXPORT = "`popdask run JOB --force`", "`popdask run JOB --only export --force`"


@pytest.mark.parametrize(
    ("differences", "exports", "mends"),
    [(("u of 2001 is gone.",), (), FORCE), (("a.tif is gone.", "b.tif too."), ("export",), EXPORT)],
)
def test_what_differs_is_mended_by_what_costs_least(capsys, differences, exports, mends):
    show.show_verified(Verified(20, 7, differences, exports))
    *told, summary = capsys.readouterr().err.splitlines()
    assert told == [f"popdask: {difference}" for difference in differences]
    count = "1 difference in" if len(differences) == 1 else "2 differences in"
    assert summary.startswith(f"popdask: {count} 20 frames of arrays and 7 files")
    assert mends in summary and summary.count("`") == 2
