"""Workers use the memory of freed arrays again."""

import resource
import sys

import numpy as np
import pytest

from popdask.cluster import connect
from popdask.cluster.memory import keep_freed_memory

MIB, TIMES = 2**20, 100


def page_faults_of_arrays() -> int:
    """Count the pages that the system has to clear while arrays of 1 MiB come and go."""
    np.ones(MIB, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(TIMES):
        np.ones(MIB, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
def test_arrays_on_workers_come_from_memory_that_is_there():
    with connect("local") as client:
        faults = client.run(page_faults_of_arrays)
    assert keep_freed_memory()
    pages = TIMES * MIB // resource.getpagesize()
    assert all(count < pages / 10 for count in faults.values())
