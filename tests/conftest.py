"""What many tests start from."""

import os

# Tests run beside one another: threads of one that spin while they wait take the others' cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from tests.pipelines.small import small_world


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """The folder of the frames of the small world; every file of tests has its own."""
    folder = tmp_path_factory.mktemp("frames")
    small_world().write(folder)
    return folder
