"""Workers use the memory of freed arrays again."""

import resource
import sys

import numpy as np
import pytest

from popdask.cluster import connect
from popdask.cluster.memory import keep_freed_memory

MIB = 2**20


def page_faults_of_arrays() -> int:
    """Count the pages that the system has to clear while arrays of 8 MiB come and go."""
    for _ in range(3):
        np.ones(8 * MIB, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(8 * MIB, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
def test_arrays_on_workers_come_from_memory_that_is_there(tmp_path):
    with connect("local") as client:
        faults = client.run(page_faults_of_arrays)
    assert keep_freed_memory()
    pages = 20 * 8 * MIB // resource.getpagesize()
    assert all(count < pages / 10 for count in faults.values())
