"""A cluster that a Dask Gateway starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from popdask.cluster.place import Place, needs
from popdask.cluster.spec import Gateway
from popdask.errors import InputError


@contextmanager
def start(spec: Gateway) -> Iterator[Place]:
    """Ask the gateway for a cluster; it is shut down at the end of the block.

    Parameters
    ----------
    spec
        The settings.

    Raises
    ------
    InputError
        If dask-gateway is not installed, or the gateway does not answer or refuses.
    """
    gateway = needs("dask_gateway", "gateway", 'kind = "gateway"')
    server = spec.gateway
    with _told(server.address):
        cluster = gateway.GatewayCluster(
            address=server.address,
            proxy_address=server.proxy,
            auth=server.auth,
            **server.options,
        )
    with cluster:
        fewest, most = spec.workers.bounds or (1, 1)
        if most > fewest:
            cluster.adapt(minimum=fewest, maximum=most)
        else:
            cluster.scale(most)
        yield Place(cluster, says=lambda: _says(cluster))


def _says(cluster: Any) -> str:
    report = cluster.gateway.get_cluster(cluster.name)
    return f"the gateway says {cluster.name} is {report.status.name.lower()}"


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Turn what goes wrong between here and the gateway into one sentence."""
    aiohttp = needs("aiohttp", "gateway", 'kind = "gateway"')
    client = needs("dask_gateway.client", "gateway", 'kind = "gateway"')
    failures = (
        aiohttp.ClientError,
        client.GatewayClusterError,
        client.GatewayServerError,
        OSError,
        ValueError,
        TypeError,
    )
    try:
        yield
    except failures as error:
        raise InputError(
            f"the gateway at {address} gave no cluster ({error}): check [gateway] address, the "
            "token and the options."
        ) from error
