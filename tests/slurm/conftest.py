"""SLURM is tried only when asked for by name, as `make test-slurm` does."""

import pytest

from tests.slurm.daemons import missing, slurm


def pytest_ignore_collect(config):
    asked = any("slurm" in argument for argument in config.args)
    return None if asked else True


@pytest.fixture(scope="session")
def queue(tmp_path_factory):
    """The environment for the commands of a SLURM that runs as long as the tests do."""
    if reason := missing():
        pytest.skip(reason)
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment
