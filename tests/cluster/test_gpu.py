"""Workers with a GPU each. Which of them tasks go to does not need the GPUs themselves."""

import os

import pytest

from popdask.cluster import connect
from popdask.errors import InputError
from popdask.workflow.runner import gpu_resources, on_worker


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gpu.toml"
    path.write_text('kind = "local"\n[workers]\ngpu = true\nneeded = 2\nmemory = "1 GiB"\n')
    return str(path)


def visible(_=None):
    return os.environ["CUDA_VISIBLE_DEVICES"]


def test_each_worker_sees_one_gpu_and_work_for_gpus_goes_there(file, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with connect(file) as client:
        seen = client.run(visible)
        assert sorted(seen.values()) == ["0", "1"]
        workers = client.scheduler_info()["workers"].values()
        assert [worker["resources"] for worker in workers] == [{"GPU": 1}] * 2
        assert gpu_resources() == {"GPU": 1}
        assert on_worker(visible, 0)() in ("0", "1")


def test_a_machine_without_a_gpu_is_told(file, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match="no GPU is found"), connect(file):
        pytest.fail("there is no GPU")
