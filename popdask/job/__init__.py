"""Job files: a region and its product, written down as data.

A job is a TOML file that one can read; :func:`load_job` turns it into typed, validated settings.
Every setting has a default, an unknown one is an error that offers the nearest name, relative
paths are relative to the job file, and ``${VARIABLES}`` expand from the environment.
"""

from popdask.job.communities import CommunitiesJob
from popdask.job.files import load_job
from popdask.job.population import PopulationJob
from popdask.job.scenes import ScenesJob
from popdask.job.settings import Job, settings_rows, shown

__all__ = [
    "CommunitiesJob",
    "Job",
    "PopulationJob",
    "ScenesJob",
    "load_job",
    "settings_rows",
    "shown",
]
