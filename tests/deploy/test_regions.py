"""Files that run many regions every night: commands that there are, units that systemd knows."""

import re
import shlex
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from popdask.cli.commands import app
from tests.deploy.test_files import DEPLOY, ROOT

CRON = DEPLOY / "cron"


def commands(path):
    """The arguments of each call of popdask in a file."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    calls = [call for line in lines for call in re.findall(r"bin/popdask ([^;>]+)", line)]
    return [shlex.split(call) for call in calls]


@pytest.mark.parametrize("name", ["regions.crontab", "popdask-regions.service"])
def test_each_command_and_its_options_and_files_are_there(name):
    calls = commands(CRON / name)
    assert calls
    for command, *arguments in calls:
        told = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
        assert told.exit_code == 0
        options = {argument for argument in arguments if argument.startswith("--")}
        plain = re.sub(r"\x1b\[[0-9;]*m", "", told.output)
        assert all(option in plain for option in options)
        files = [argument for argument in arguments if "/" in argument or argument == "jobs"]
        assert all((ROOT / file).exists() for file in files)


def test_both_units_are_kept_to_the_same_places():
    ends = [
        (CRON / f"popdask{name}.service").read_text().split("\nNice=")[1]
        for name in ["@", "-regions"]
    ]
    assert ends[0] == ends[1]


def test_crontab_lines_have_a_time():
    text = (CRON / "regions.crontab").read_text()
    lines = [line for line in text.splitlines() if line[0] != "#"]
    assert len(lines) == 3
    assert all(re.match(r"\d+ \d+ \* \* [*\d] +cd /srv/popdask && ", line) for line in lines)


def test_systemd_understands_its_units(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze")
    service = (CRON / "popdask-regions.service").read_text()
    program = re.search(r"^ExecStart=(\S+)", service, re.MULTILINE)[1]
    (tmp_path / "popdask-regions.service").write_text(service.replace(program, "/bin/true"))
    shutil.copy(CRON / "popdask-regions.timer", tmp_path)
    units = ["popdask-regions.service", "popdask-regions.timer"]
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], cwd=tmp_path, capture_output=True, text=True
    )
    complaints = [line for line in done.stderr.splitlines() if "popdask" in line]
    assert not complaints and not re.search("Unknown|Failed to parse", done.stderr)
