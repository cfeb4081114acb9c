"""One S3 server for all of these tests, and the environment that leads to it.

They take minutes, and are made only when asked for by name, as `make test-faults` does.
"""

import pytest

from popdask.io import paths
from tests.object_store.server import serving
from tests.pipelines.small import small_world

BUCKET = "popdask-test"


def pytest_ignore_collect(config):
    asked = any("object_store" in argument for argument in config.args)
    return None if asked else True


@pytest.fixture(scope="package")
def server():
    """A server of this machine, with a bucket."""
    with serving() as running, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name, value in running.environment.items():
            patch.setenv(name, value)
        region = {"LocationConstraint": running.environment["AWS_REGION"]}
        paths.client().create_bucket(Bucket=BUCKET, CreateBucketConfiguration=region)
        yield running


@pytest.fixture(scope="package")
def frames(tmp_path_factory):
    """The folder of the frames of the small world."""
    folder = tmp_path_factory.mktemp("frames")
    small_world().write(folder)
    return folder


@pytest.fixture
def reliable(server):
    """The server, as long as nothing is dropped."""
    server.faults(drop=0, delay=0, lose="", clock=0, conditions=True)
    return server


@pytest.fixture
def place(reliable, request):
    """A prefix of the bucket for one test."""
    return f"s3://{BUCKET}/{request.node.name}"
