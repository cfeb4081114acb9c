"""A region's results: one Icechunk repository, one commit per finished stage, all of it on record.

The branch ``main`` is what readers see: the last finished run. A run works on the branch ``work``,
commits each stage there when it is finished, and moves ``main`` to it at the end; a run that was
stopped goes on from the last commit of ``work``. Arrays share one root group, on the dimensions
``time, y, x``; models and tables are kept as files (safetensors and Parquet bytes) in the group
``files``; what each stage was made from, its *record*, is in the group ``provenance``.
"""

from popdask.store.checksums import file_checksum, stored_checksum
from popdask.store.contents import NoResultError, read_table, table_bytes
from popdask.store.lock import Owner, RegionBusyError
from popdask.store.region import RegionStore
from popdask.store.retention import Expired
from popdask.store.runs import MAIN, WORK, Finished, Run
from popdask.store.trouble import StoreError
from popdask.store.work import Work
from popdask.store.writing import frame_runs

__all__ = [
    "MAIN",
    "WORK",
    "Expired",
    "Finished",
    "NoResultError",
    "Owner",
    "RegionBusyError",
    "RegionStore",
    "Run",
    "StoreError",
    "Work",
    "file_checksum",
    "frame_runs",
    "read_table",
    "stored_checksum",
    "table_bytes",
]
