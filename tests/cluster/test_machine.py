"""Workers from the cores, memory and GPUs at hand."""

import os

import pytest
from dask.system import CPU_COUNT
from distributed.system import MEMORY_LIMIT
from hypothesis import given
from hypothesis import strategies as st

from popdask.cluster import (
    WORKER_MEMORY,
    cores_at_hand,
    gpus_at_hand,
    local_cluster,
    local_resources,
    memory_at_hand,
    workers_at_hand,
)
from popdask.errors import InputError

GIB = 2**30


def test_without_a_batch_job_all_that_dask_counts_is_at_hand():
    assert cores_at_hand({}) == CPU_COUNT and memory_at_hand({}) == MEMORY_LIMIT


@pytest.mark.parametrize("name", ["SLURM_CPUS_ON_NODE", "NCPUS", "LSB_DJOB_NUMPROC"])
def test_a_batch_job_keeps_to_its_cores(name):
    assert cores_at_hand({name: "1"}) == 1
    assert cores_at_hand({name: "100000"}) == CPU_COUNT


def test_a_batch_job_keeps_to_its_memory():
    assert memory_at_hand({"SLURM_MEM_PER_NODE": "1024"}) == GIB
    assert memory_at_hand({"SLURM_MEM_PER_CPU": "512", "SLURM_CPUS_ON_NODE": "2"}) == GIB
    assert memory_at_hand({"SLURM_MEM_PER_NODE": "0"}) == MEMORY_LIMIT  # all of the node's


def test_gpus_are_those_that_are_visible():
    assert gpus_at_hand({"CUDA_VISIBLE_DEVICES": "GPU-1, GPU-2"}) == ["GPU-1", "GPU-2"]
    assert gpus_at_hand({"CUDA_VISIBLE_DEVICES": ""}) == []
    assert gpus_at_hand({"CUDA_VISIBLE_DEVICES": "-1"}) == []


@given(cores=st.integers(1, 256), memory=st.integers(2**28, 2**40))
def test_workers_fit_the_machine(cores, memory):
    workers, threads = workers_at_hand(cores, memory)
    assert workers >= 1 and threads >= 1 and workers * threads <= cores
    assert workers == 1 or workers * WORKER_MEMORY <= memory


@pytest.mark.parametrize("share", [0.5, "0.5", "auto"])
def test_a_share_of_the_memory_is_that_of_dask(share):
    told = local_resources((1, 1), threads_per_worker=CPU_COUNT, memory_limit=share)
    assert told.memory == int(MEMORY_LIMIT * (1 if share == "auto" else 0.5))


@pytest.mark.parametrize("limit", [None, 0, "0"])  # to Dask, 0 is no limit
def test_without_a_limit_a_worker_has_its_part_of_the_memory(limit):
    assert local_resources((1, 4), memory_limit=limit).memory == memory_at_hand() // 4


@pytest.mark.parametrize("limit", ["much", [1]])
def test_a_limit_that_is_none_is_one_sentence(limit):
    with pytest.raises(InputError, match=r"memory_limit is .+: expected bytes"):
        local_resources((1, 1), memory_limit=limit)


def test_a_cluster_of_gpus_asks_once_which_there_are(tmp_path, monkeypatch):
    """Not for the plan of its workers, and for its workers again."""
    program, asked = tmp_path / "nvidia-smi", tmp_path / "asked"
    program.write_text(f"#!/bin/sh\necho once >> {asked}\necho 0\n")
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with local_cluster(gpus=True, memory_limit="1 GiB") as cluster:
        assert len(cluster.worker_spec) == 1
    assert asked.read_text().split() == ["once"]
