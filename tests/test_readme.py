"""What the README says is true."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs(capsys):
    exec(compile(blocks("python")[0], "README.md", "exec"), {"__name__": "example"})
    assert "continue" in capsys.readouterr().out


def test_the_job_file_shown_is_the_one_that_is_there():
    shown, there = blocks("toml")[0], (ROOT / "jobs" / "oslo.toml").read_text(encoding="utf-8")
    assert tomllib.loads(shown) == tomllib.loads(there)


def test_every_file_that_is_named_is_there():
    named = set(re.findall(r"\b(?:jobs|docs)/[\w./-]+\.(?:toml|md|png)", README))
    assert named and all((ROOT / name).exists() for name in named)
