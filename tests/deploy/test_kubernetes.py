"""The manifests are what Kubernetes and the Dask operator accept, and hold no secret."""

from functools import cache
from importlib.resources import files
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

import popdask

DEPLOY = Path(popdask.__file__).parents[1] / "deploy" / "kubernetes"
DASK = "kubernetes.dask.org/v1"


def resources():
    found = []
    for path in sorted(DEPLOY.glob("*.yaml")):
        for resource in yaml.safe_load_all(path.read_text()):
            found.append(pytest.param(resource, id=f"{path.name}: {resource['kind']}"))
    return found


def templates(resource):
    """The pods that a resource makes."""
    spec = resource.get("spec", {})
    if resource["kind"] == "CronJob":
        return [spec["jobTemplate"]["spec"]["template"]["spec"]]
    return [spec[role]["spec"] for role in ("scheduler", "worker") if role in spec]


def pods():
    return [
        pytest.param(pod, id=f"{resource.id} {number}")
        for resource in resources()
        for number, pod in enumerate(templates(resource.values[0]))
    ]


@cache
def operator_schema(kind):
    """The schema of a kind of the operator, from the CRDs that come with dask-kubernetes."""
    folder = files("dask_kubernetes") / "operator/deployment/helm/dask-kubernetes-operator/crds"
    definition = yaml.safe_load((folder / f"{kind.lower()}.yaml").read_text())
    (version,) = definition["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


@pytest.mark.parametrize("resource", resources())
def test_a_resource_is_what_its_schema_says(resource):
    if resource["apiVersion"] == DASK:
        jsonschema.validate(resource, operator_schema(resource["kind"]))
    else:
        kubernetes_validate.validate(resource, "1.31", strict=True)


def test_the_schemas_refuse_what_is_wrong():
    manifest = yaml.safe_load((DEPLOY / "cluster.yaml").read_text())
    del manifest["spec"]["scheduler"]["service"]
    with pytest.raises(jsonschema.ValidationError, match="service"):
        jsonschema.validate(manifest, operator_schema("DaskCluster"))
    cronjob = yaml.safe_load((DEPLOY / "cronjob.yaml").read_text())
    cronjob["spec"]["jobTemplate"]["spec"]["backofLimit"] = 3
    with pytest.raises(kubernetes_validate.ValidationError, match="backofLimit"):
        kubernetes_validate.validate(cronjob, "1.31", strict=True)


@pytest.mark.parametrize("spec", pods())
def test_a_pod_is_one_without_rights_and_secrets(spec):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
    kubernetes_validate.validate(pod, "1.31", strict=True)
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
    for container in spec["containers"]:
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False and rights["readOnlyRootFilesystem"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert container["image"].partition(":")[2].startswith(popdask.__version__)
        given = {variable["name"] for variable in container.get("env", []) if "value" in variable}
        assert given <= {"POPDASK_DATA"}, "secrets are given by reference"


def test_names_that_refer_to_each_other_are_the_same():
    def read(name):
        return list(yaml.safe_load_all((DEPLOY / name).read_text()))

    (cronjob,), (cluster,), (gpu,) = map(read, ("cronjob.yaml", "cluster.yaml", "gpu-workers.yaml"))
    accounts = [found for found in read("access.yaml") if found["kind"] == "ServiceAccount"]
    pod = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert [account["metadata"]["name"] for account in accounts] == [pod["serviceAccountName"]]
    for found in (cluster, gpu):
        selector = found["spec"]["scheduler"]["service"]["selector"]
        assert selector["dask.org/cluster-name"] == found["metadata"]["name"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert volumes == {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
