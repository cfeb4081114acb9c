"""What many tests start from."""

import pytest

from tests.pipelines.small import small_world


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """The folder of the frames of the small world; every file of tests has its own."""
    folder = tmp_path_factory.mktemp("frames")
    small_world().write(folder)
    return folder
