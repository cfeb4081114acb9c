"""What many tests start from."""

import gc
import os

# Tests run beside one another: threads of one that spin while they wait take the others' cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import dask
import hypothesis
import pytest
from distributed.utils import get_mp_context

from popdask.store import location

# Collection imports all that there is, a million objects that stay: a quarter of its time went on
# looking through them for garbage.
gc.disable()
# How long an example takes, and the drawing of one, is the machine's affair. A change is judged on
# the same examples as the one before it; --hypothesis-profile=new looks where nobody has looked.
UNTIMED = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("same", **UNTIMED, derandomize=True, max_examples=50)
hypothesis.settings.register_profile("new", **UNTIMED)
hypothesis.settings.load_profile("same")
# Workers of clusters that tests make are forked from one process that has imported what runs need;
# those of commands, which are processes of their own, are spawned, as a user's are.
dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
needed = ("tracking.classify", "tracking.encoding", "imagery.training", "workflow.communities")
get_mp_context().set_forkserver_preload(["distributed", *(f"popdask.{name}" for name in needed)])
# Who holds a region where another wants it goes on holding it: nobody waits for a second.
location.PATIENCE_SECONDS = 0.1

#: What takes longest is begun first, so that no process is left with it at the end.
LONG = (
    "test_faults",
    "test_notebooks",
    "test_population",
    "test_communities",
    "test_settlements",
    "test_cli",
    "test_docs",
    "test_imagery",
    "test_learning",
    "test_pictures",
    "test_scheduler",
    "test_accessibility",
    "test_promises",
    "test_events",
    "test_benchmarks",
    "test_exports",
    "test_both",
    "test_read_only",
    "test_imports",
    "test_exportclaims",
    "test_verify",
    "test_groups",
    "test_scenes",
    "test_search",
    "test_intervals",
    "test_autoencoder",
    "test_cli_regions",
    "test_costs",
    "test_integrity",
    "test_job",
    "test_flows",
    "test_opening",
    "test_flow",
    "test_regions",
    "test_browser",
    "test_conventions",
    "test_package",
    "test_durations",
    "test_comparing",
    "test_linking",
    "test_demo",
    "scenes",
)


def pytest_collection_modifyitems(items):
    rank = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """The folder of the frames of the small world; every file of tests has its own."""
    # The process that hands out the tests begins before the others, and needs no arrays.
    from tests.pipelines.small import small_world

    folder = tmp_path_factory.mktemp("frames")
    small_world().write(folder)
    return folder
