import pytest

from popdask.datasets import Downloads, Patience
from tests.fetch.server import serving

HASTE = Patience(attempts=3, wait=0.01, longest=0.02, connect=10, read=20)


@pytest.fixture
def site():
    with serving() as site:
        yield site


@pytest.fixture
def downloads(tmp_path):
    return Downloads(tmp_path / "cache", patience=HASTE)
