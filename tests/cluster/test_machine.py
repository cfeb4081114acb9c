"""Workers from the cores, memory and GPUs at hand."""

import pytest
from dask.system import CPU_COUNT
from distributed.system import MEMORY_LIMIT
from hypothesis import given
from hypothesis import strategies as st

from popdask.cluster import (
    WORKER_MEMORY,
    cores_at_hand,
    gpus_at_hand,
    memory_at_hand,
    workers_at_hand,
)

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
