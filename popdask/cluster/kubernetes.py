"""Workers as pods that the Dask operator starts on Kubernetes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from popdask.cluster.place import Place, needs
from popdask.cluster.spec import Kubernetes
from popdask.errors import InputError

NAME_LABEL = "dask.org/cluster-name"


@contextmanager
def start(spec: Kubernetes) -> Iterator[Place]:
    """Ask the operator for a cluster; it is deleted at the end of the block.

    Parameters
    ----------
    spec
        The settings.

    Raises
    ------
    InputError
        If dask-kubernetes is not installed, a manifest is wrong, or no operator answers.
    """
    operator = needs("dask_kubernetes.operator", "kubernetes", 'kind = "kubernetes"')
    fewest, most = spec.workers.bounds or (1, 1)
    manifest = named(read_manifest(spec.kubernetes.manifest, "DaskCluster"), fewest)
    namespace = spec.kubernetes.namespace
    with _told():
        cluster = operator.KubeCluster(
            custom_cluster_spec=manifest,
            namespace=namespace,
            resource_timeout=spec.workers.wait,
            quiet=True,
        )
    with cluster:
        if most > fewest:
            cluster.adapt(minimum=fewest, maximum=most)
        if spec.kubernetes.gpu is not None:
            group = read_manifest(spec.kubernetes.gpu, "DaskWorkerGroup")
            cluster.add_worker_group(name="gpu", custom_spec=group["spec"]["worker"])
        yield Place(cluster, says=_asker(namespace, cluster.name))


def read_manifest(path: str, kind: str) -> dict[str, Any]:
    """Read a YAML file that holds one resource of a kind.

    Raises
    ------
    InputError
        If the file is not there, is not YAML, or holds something else.
    """
    yaml = needs("yaml", "kubernetes", 'kind = "kubernetes"')
    try:
        manifest = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path}: the manifest cannot be read ({error}).") from error
    found = manifest.get("kind") if isinstance(manifest, dict) else None
    if found != kind:
        raise InputError(f"{path}: the manifest is a {found}, but a {kind} was expected.")
    return manifest


def named(manifest: Mapping[str, Any], workers: int) -> dict[str, Any]:
    """Give a DaskCluster a name of its own, so that two runs do not meet, and its workers."""
    name = f"{manifest['metadata']['name']}-{uuid.uuid4().hex[:6]}"
    spec = manifest["spec"]
    service = spec["scheduler"]["service"]
    selector = service.get("selector", {}) | {NAME_LABEL: name}
    scheduler = spec["scheduler"] | {"service": service | {"selector": selector}}
    worker = spec["worker"] | {"replicas": workers}
    return {
        **manifest,
        "metadata": manifest["metadata"] | {"name": name},
        "spec": spec | {"scheduler": scheduler, "worker": worker},
    }


def pod_state(pod: Mapping[str, Any]) -> str:
    """Say how a pod stands: its phase, and what keeps it from running.

    Examples
    --------
    >>> from popdask.cluster.kubernetes import pod_state
    >>> condition = {"status": "False", "reason": "Unschedulable", "message": "0/3 nodes fit"}
    >>> status = {"phase": "Pending", "conditions": [condition]}
    >>> pod_state({"metadata": {"name": "worker-0"}, "status": status})
    'worker-0 Pending (Unschedulable: 0/3 nodes fit)'
    """
    status = pod.get("status", {})
    waiting = [
        container["state"]["waiting"]
        for container in status.get("containerStatuses", [])
        if "waiting" in container.get("state", {})
    ]
    failed = [part for part in status.get("conditions", []) if part.get("message")]
    reasons = [
        ": ".join(part[key] for key in ("reason", "message") if part.get(key))
        for part in waiting or failed
    ]
    detail = f" ({'; '.join(dict.fromkeys(reasons))})" if reasons else ""
    return f"{pod['metadata']['name']} {status.get('phase', 'Unknown')}{detail}"


def _asker(namespace: str, name: str) -> Callable[[], str]:
    """A function that asks Kubernetes how the cluster's pods stand."""

    def ask() -> str:
        kr8s = needs("kr8s", "kubernetes", 'kind = "kubernetes"')
        pods = kr8s.get("pods", namespace=namespace, label_selector={NAME_LABEL: name})
        states = [pod_state(pod.raw) for pod in pods]
        return f"its pods: {', '.join(states)}" if states else f"{namespace} has no pod of {name}"

    return ask


@contextmanager
def _told() -> Iterator[None]:
    """Turn what goes wrong between here and the operator into one sentence."""
    kr8s = needs("kr8s", "kubernetes", 'kind = "kubernetes"')
    httpx = needs("httpx", "kubernetes", 'kind = "kubernetes"')
    failures = (
        kr8s.APITimeoutError,
        kr8s.ConnectionClosedError,
        kr8s.ServerError,
        kr8s.NotFoundError,
        httpx.HTTPError,
        TimeoutError,
        RuntimeError,
        ValueError,
    )
    try:
        yield
    except failures as error:
        raise InputError(
            f"Kubernetes gave no Dask cluster ({error or type(error).__name__}): check `kubectl "
            "get daskclusters`, and that the Dask operator is installed."
        ) from error
