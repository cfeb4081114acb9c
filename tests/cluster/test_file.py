"""Cluster files: checked, closed to names that they do not know, and passed to the class."""

import pytest

from popdask.cluster import connect
from popdask.config.load import load_spec
from popdask.errors import InputError

QUEUE = 'class = "dask_jobqueue.SLURMCluster"\nworkers = 2\n'


@pytest.fixture
def write(tmp_path):
    """Writes a cluster file with a text."""

    def write(text):
        path = tmp_path / "cluster.toml"
        path.write_text(text)
        return path

    return write


def test_arguments_go_to_the_class_as_they_are(write):
    text = QUEUE + 'wait = "2 h"\n[arguments]\nlocal_directory = "${TMPDIR}"\n'
    found = load_spec(write(text))
    assert found.wait == 7200 and found.workers == (2, 2)
    assert found.arguments == {"local_directory": "${TMPDIR}"}  # for the worker's shell


def test_workers_may_be_a_range(write):
    assert load_spec(write(QUEUE.replace("2", "[2, 16]"))).workers == (2, 16)


def test_a_yaml_file_stands_for_an_argument_with_a_name_of_its_own_in_each_run(write, tmp_path):
    (tmp_path / "pods.yaml").write_text("metadata: {name: 'popdask-${UUID}'}\n")
    path = write(QUEUE + 'arguments.custom_cluster_spec = { file = "pods.yaml" }\n')
    names = {load_spec(path).arguments["custom_cluster_spec"]["metadata"]["name"] for _ in "ab"}
    assert len(names) == 2 and all(name.startswith("popdask-") for name in names)
    (tmp_path / "pods.yaml").write_text("metadata: {name: [\n")
    with pytest.raises(InputError, match=r"pods\.yaml: the file of custom_cluster_spec cannot"):
        load_spec(path)


def test_a_yaml_file_makes_no_objects(write, tmp_path):
    (tmp_path / "pods.yaml").write_text("!!python/object/apply:os.getcwd []\n")
    path = write(QUEUE + 'arguments.custom_cluster_spec = { file = "pods.yaml" }\n')
    with pytest.raises(InputError, match="cannot be read"):
        load_spec(path)


def test_certificates_are_relative_to_the_file_and_variables_expand(write, tmp_path, monkeypatch):
    monkeypatch.setenv("CA", "authority.pem")
    found = load_spec(write('address = "tls://head:8786"\nsecurity.tls_ca_file = "../${CA}"\n'))
    assert found.security["tls_ca_file"] == str(tmp_path.parent / "authority.pem")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('kind = "slurm"', r"it has no setting 'kind' \(.*class.*\)"),
        ('class = "SLURMCluster"', 'class is "SLURMCluster": expected local, or a class in'),
        ('class = "bad name"', r'class is "bad name": expected local, .* such as dask_jobqueue\.S'),
        ("worker = 2", r"it has no setting 'worker' \(did you mean 'workers'\?\)"),
        (QUEUE + '[queue]\nname = "fat"', "it has no setting 'queue'"),
        (QUEUE + '[tls]\nfolder = "certificates"', "it has no setting 'tls'"),
        ('class = "dask_jobqueue.SLURMCluster"', "workers is missing: give a number, or"),
        ("workers = [3, 2]", r"workers is \[3, 2\]: expected a number such as 8, or the fewest"),
        ("workers = 0", "workers is 0: expected a number"),
        ("workers = true", r"workers is true: expected a number such as 8, or the .* \[2, 16\]"),
        ("wait = true", 'wait is true: expected a time such as "10 min"'),
        ("needed = true", "needed is true: expected a number"),
        ('needed = "some"', 'needed is "some": expected a whole number'),
        ("workers = {count = 2}", 'workers is .*"count": 2.*: expected a number'),
        (QUEUE + "needed = 3", "needed 3 is more than the 2 workers"),
        ("needed = 0", "needed is 0: input should be greater than"),
        ('wait = "0 s"', r'wait is "0 s": expected .* "10 min"'),
        ('address = "head:8786"', 'address is "head:8786": expected the address of a'),
        ('class = "local"\naddress = "tcp://head:8786"', "leave out class and workers"),
        ('address = "tcp://${NO_SUCH_THING}:1"', "which is not set: export NO_SUCH_THING"),
        ("security.tls_ciphers = 1", r"\[security\] tls_ciphers is 1: input should be a valid s"),
        ("arguments = 2", "arguments is 2: input should be a table"),
        ('class = "local', "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_one_sentence(write, text, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        load_spec(write(text))
    assert "cluster.toml: " in str(error.value) and str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: there is no such cluster file"):
        load_spec(tmp_path / "none.toml")


@pytest.mark.parametrize("spec", ["slurmy", "tcp://", "tcp://head", "tcp://head:port"])
def test_an_unknown_cluster_is_refused(spec):
    with pytest.raises(InputError, match=f"the cluster '{spec}' is unknown"), connect(spec):
        pytest.fail("there is no such cluster")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("dask_nowhere.NoCluster", "dask_nowhere, which is not installed: install it, or correct"),
        ("dask_jobqueue.SLRUMCluster", "no class 'SLRUMCluster' .*mean 'SLURMCluster'"),
        ("dask_jobqueue.__version__", "has no class '__version__'"),
    ],
)
def test_a_class_that_is_not_there_is_named(write, name, complaint):
    path = write(f'class = "{name}"\nworkers = 1\n')
    with pytest.raises(InputError, match=complaint), connect(path):
        pytest.fail("there is no such class")


def test_a_missing_package_names_its_extra(write, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dask_gateway", None)  # as if not installed
    path = write('class = "dask_gateway.GatewayCluster"\nworkers = 1\n')
    with pytest.raises(InputError, match=r'pip install "popdask\[gateway\]"'), connect(path):
        pytest.fail("there is no such package")


def test_a_missing_certificate_is_named(write):
    path = write('address = "tls://127.0.0.1:9"\nsecurity.tls_ca_file = "ca.pem"\n')
    with pytest.raises(InputError, match=r"tls_ca_file: there is no /.*ca\.pem"), connect(path):
        pytest.fail("there are no certificates")


def test_what_security_does_not_take_is_told(write):
    path = write('address = "tls://127.0.0.1:9"\nsecurity.certificate = "ca.pem"\n')
    with pytest.raises(InputError, match=r"\[security\] .*certificate"), connect(path):
        pytest.fail("there is no such argument")
