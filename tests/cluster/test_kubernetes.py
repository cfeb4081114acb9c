"""What the Dask operator is asked for, and what is told where there is none."""

from pathlib import Path

import pytest

import popdask
from popdask.cluster import connect
from popdask.cluster.kubernetes import named, pod_state, read_manifest
from popdask.errors import InputError

DEPLOY = Path(popdask.__file__).parents[1] / "deploy" / "kubernetes"


def test_each_run_has_a_cluster_of_its_own():
    manifest = read_manifest(DEPLOY / "cluster.yaml", "DaskCluster")
    one, other = named(manifest, workers=3), named(manifest, workers=3)
    assert one["metadata"]["name"] != other["metadata"]["name"]
    service = one["spec"]["scheduler"]["service"]
    assert service["selector"]["dask.org/cluster-name"] == one["metadata"]["name"]
    assert one["spec"]["worker"]["replicas"] == 3
    assert manifest["metadata"]["name"] == "popdask"  # the file's own stays as it is


def test_another_kind_of_manifest_is_refused():
    with pytest.raises(InputError, match="the manifest is a CronJob, but a DaskCluster was"):
        read_manifest(DEPLOY / "cronjob.yaml", "DaskCluster")
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(DEPLOY / "none.yaml", "DaskCluster")


def test_a_pod_that_waits_says_why():
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    status = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}
    pod = {"metadata": {"name": "popdask-worker-0"}, "status": status}
    assert pod_state(pod) == "popdask-worker-0 Pending (ImagePullBackOff: not found)"
    running = {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}
    assert pod_state(pod | {"status": running}) == "popdask-worker-0 Running"


def test_where_no_kubernetes_answers_it_is_told(tmp_path, monkeypatch):
    config = tmp_path / "config"
    config.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: none\n"
        "clusters: [{name: none, cluster: {server: 'http://127.0.0.1:9'}}]\n"
        "contexts: [{name: none, context: {cluster: none, user: none}}]\n"
        "users: [{name: none, user: {}}]\n"
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    file = tmp_path / "cluster.toml"
    file.write_text(
        'kind = "kubernetes"\n[workers]\ncount = 1\nwait = "2 s"\n'
        f'[kubernetes]\nmanifest = "{DEPLOY / "cluster.yaml"}"\n'
    )
    with pytest.raises(InputError, match="Kubernetes gave no Dask cluster"), connect(str(file)):
        pytest.fail("there is no Kubernetes")


def test_where_no_gateway_answers_it_is_told(tmp_path):
    file = tmp_path / "cluster.toml"
    file.write_text(
        'kind = "gateway"\n[workers]\ncount = 1\n[gateway]\naddress = "http://127.0.0.1:9"\n'
    )
    with (
        pytest.raises(InputError, match=r"the gateway at http://127\.0\.0\.1:9 gave no"),
        connect(str(file)),
    ):
        pytest.fail("there is no gateway")
