"""Where a job runs: the only place that makes a Dask client.

A job does not say where it runs; the door does. :func:`connect` takes ``local``, a scheduler's
address, or a TOML file such as those under ``deploy/``: processes on this machine, a batch queue
(SLURM, PBS, LSF), Kubernetes, or a Dask Gateway.
"""

from popdask.cluster.certificates import make_certificates
from popdask.cluster.connection import connect
from popdask.cluster.spec import load_spec
from popdask.cluster.waiting import LostSchedulerError, NoWorkersError
from popdask.cluster.watching import LostWorkersError

__all__ = [
    "LostSchedulerError",
    "LostWorkersError",
    "NoWorkersError",
    "connect",
    "load_spec",
    "make_certificates",
]
