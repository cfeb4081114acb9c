"""Job files: a region and what is made of it, written down as data.

A job is a TOML file that one can read; :func:`load_job` turns it into typed, validated settings.
Every setting has a default, an unknown one is an error that offers the nearest name, relative
paths are relative to the job file, and ``${VARIABLES}`` expand from the environment.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "jobs": ["CommunitiesJob", "PopulationJob", "ScenesJob", "SettlementsJob"],
        "load": ["load_job"],
        "settings": ["Job", "settings_rows", "shown"],
    },
)
