"""Cluster files: typed, checked, and closed to names that they do not know."""

import pytest

from popdask.cluster import load_spec
from popdask.errors import InputError

QUEUE = 'kind = "slurm"\n[workers]\ncount = 2\n'


@pytest.fixture
def spec(tmp_path):
    """Reads a cluster file with a text."""

    def load(text):
        path = tmp_path / "cluster.toml"
        path.write_text(text)
        return load_spec(path)

    return load


def test_quantities_are_bytes_and_seconds(spec):
    found = spec(QUEUE + 'memory = "1.5 GiB"\nwait = "2 h"\n[queue]\nwalltime = "90 min"\n')
    assert found.workers.memory == 1.5 * 2**30
    assert found.workers.wait == 7200 and found.queue.walltime == 5400


def test_paths_are_relative_to_the_file_and_variables_expand(spec, tmp_path, monkeypatch):
    monkeypatch.setenv("PARTITION", "fat")
    found = spec(
        QUEUE + 'scratch = "${TMPDIR}"\n[queue]\nname = "${PARTITION}"\nlogs = "logs"\n'
        '[tls]\nfolder = "../certificates"\n'
    )
    assert found.queue.name == "fat" and found.queue.logs == str(tmp_path / "logs")
    assert found.tls.folder == str(tmp_path.parent / "certificates")
    assert found.workers.scratch == "${TMPDIR}"  # for the shell of the worker's node


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the setting kind is missing: give one of local, address, slurm"),
        ('kind = "slrum"', r"the kind 'slrum' is unknown \(did you mean 'slurm'\?\)"),
        ("kind = 3", "the kind 3 is unknown"),
        ('kind = "local"\nworker = 2', r"it has no setting 'worker' \(did you mean 'workers'\?\)"),
        (
            'kind = "local"\n[workers]\nthread = 2',
            r"\[workers\] has no setting 'thread' \(did you mean 'threads'\?\)",
        ),
        (
            QUEUE + '[queue]\npartition = "fat"',
            r"\[queue\] has no setting 'partition'",
        ),
        ('kind = "slurm"', "the setting workers is missing"),
        ('kind = "gateway"\n[workers]\ncount = 1\n[gateway]', r"\[gateway\] address is missing"),
        ('kind = "slurm"\n[workers]\nthreads = 2', r"\[workers\] needs count, or minimum and max"),
        (QUEUE + "minimum = 1\nmaximum = 2", "has count and minimum: give one of them"),
        (QUEUE + "minimum = 1", "minimum and maximum belong together"),
        ('kind = "local"\n[workers]\nminimum = 3\nmaximum = 2', "minimum 3 is more than maximum 2"),
        (QUEUE + "needed = 3", "needed 3 is more than the 2 there can be"),
        (QUEUE + "gpu = true\nper_job = 2", "per_job must be 1 for workers with a GPU"),
        (QUEUE + 'memory = "much"', r"\[workers\] memory is 'much': expected a quantity such as"),
        (QUEUE + 'wait = "0 s"', r'\[workers\] wait is \'0 s\': expected .* "10 min"'),
        (QUEUE + "threads = 0", r"\[workers\] threads is 0: input should be greater than"),
        ('kind = "address"\naddress = "head:8786"', "address is 'head:8786': string should match"),
        ('kind = "address"\naddress = "tcp://head"', "address is 'tcp://head': string should"),
        (
            'kind = "local"\ndashboard = "${NO_SUCH_THING}"',
            "which is not set: export NO_SUCH_THING",
        ),
        ('kind = "local"\nworkers = 2', "workers is 2: input should be a valid"),
        ('kind = "local', "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(spec, text, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        spec(text)
    assert "cluster.toml: " in str(error.value) and str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: there is no such cluster file"):
        load_spec(tmp_path / "none.toml")


def test_all_that_is_wrong_is_told_at_once(spec):
    with pytest.raises(InputError, match=r"threads is 0.*; .*per_job is 0"):
        spec(QUEUE + "threads = 0\nper_job = 0")
