"""With certificates, nobody else reaches the scheduler."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from popdask.cluster import connect, make_certificates
from popdask.errors import InputError
from tests.cluster.processes import scheduler


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls") / "certificates"
    make_certificates(folder, days=30)
    return folder


def options(folder, role):
    return [
        *("--tls-ca-file", f"{folder}/ca.pem"),
        *("--tls-cert", f"{folder}/{role}.pem"),
        *("--tls-key", f"{folder}/{role}-key.pem"),
    ]


@pytest.fixture(scope="module")
def address(certificates):
    with scheduler(
        workers=1,
        protocol="tls",
        scheduler_options=options(certificates, "scheduler"),
        worker_options=options(certificates, "worker"),
    ) as found:
        yield found


def cluster_file(path, address, folder):
    path.write_text(f'kind = "address"\naddress = "{address}"\n[tls]\nfolder = "{folder}"\n')
    return str(path)


def test_scheduler_worker_and_client_know_each_other(address, certificates, tmp_path):
    assert address.startswith("tls://")
    with connect(cluster_file(tmp_path / "tls.toml", address, certificates)) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        assert all(worker.startswith("tls://") for worker in client.scheduler_info()["workers"])


def test_a_client_without_certificates_is_refused(address):
    with pytest.raises(InputError, match="wants certificates"), connect(address):
        pytest.fail("it has no certificates")


def test_a_client_of_another_authority_is_refused(address, tmp_path):
    make_certificates(tmp_path / "others")
    file = cluster_file(tmp_path / "tls.toml", address, tmp_path / "others")
    with pytest.raises(InputError, match="no Dask scheduler answers"), connect(file):
        pytest.fail("its certificates are of another cluster")


def test_local_workers_are_encrypted_if_asked(certificates, tmp_path):
    file = tmp_path / "local.toml"
    file.write_text(
        f'kind = "local"\n[workers]\ncount = 1\nmemory = "1 GiB"\n[tls]\nfolder = "{certificates}"'
    )
    with connect(str(file)) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        assert client.scheduler.address.startswith("tls://")


def test_keys_are_for_their_owner_alone(certificates):
    for path in certificates.iterdir():
        mode = path.stat().st_mode & 0o777
        assert mode == (0o600 if path.stem.endswith("-key") else 0o644), path.name
    assert certificates.stat().st_mode & 0o077 == 0
    assert not (certificates / "ca-key.pem").exists()


@pytest.mark.parametrize("role", ["scheduler", "worker", "client"])
def test_certificates_are_signed_by_the_authority_and_end(certificates, role):
    authority = x509.load_pem_x509_certificate((certificates / "ca.pem").read_bytes())
    certificate = x509.load_pem_x509_certificate((certificates / f"{role}.pem").read_bytes())
    certificate.verify_directly_issued_by(authority)
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / f"{role}.pem", certificates / f"{role}-key.pem")


def test_certificates_are_never_overwritten(certificates):
    before = (certificates / "ca.pem").read_bytes()
    with pytest.raises(InputError, match="holds certificates already"):
        make_certificates(certificates)
    assert (certificates / "ca.pem").read_bytes() == before


def test_certificates_are_valid_for_some_time(tmp_path):
    with pytest.raises(InputError, match="valid for 0 days"):
        make_certificates(tmp_path / "certificates", days=0)
    assert not (tmp_path / "certificates").exists()


def test_a_missing_certificate_is_named(tmp_path):
    file = cluster_file(tmp_path / "tls.toml", "tls://127.0.0.1:9", tmp_path)
    with (
        pytest.raises(InputError, match=r"there is no .*ca\.pem.*popdask certificates"),
        connect(file),
    ):
        pytest.fail("there are no certificates")
