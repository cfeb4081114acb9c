"""A region's results: one Icechunk repository, one commit per finished stage, all of it on record.

The branch ``main`` is what readers see: the last finished run. A run works on the branch ``work``,
commits each stage there when it is finished, and moves ``main`` to it at the end; a run that was
stopped goes on from the last commit of ``work``. Arrays share one root group, on the dimensions
``time, y, x``; models and tables are kept as files (safetensors and Parquet bytes) in the group
``files``; what each stage was made from, its *record*, is in the group ``provenance``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "content": [
            "Finished",
            "MAIN",
            "NoResultError",
            "Run",
            "WORK",
            "file_checksum",
            "read_table",
            "stored_checksum",
            "table_bytes",
        ],
        "location": [
            "Owner",
            "RegionBusyError",
            "StoreError",
        ],
        "repository": ["Expired", "RegionStore"],
        "transaction": ["Transaction", "frame_runs"],
    },
)
