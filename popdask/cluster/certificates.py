"""Certificates with which scheduler, workers and client know each other.

An authority is made for one cluster. It signs one certificate for each role, and its own key is
thrown away: nobody can make further certificates for the cluster, and a new set is made whole.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from popdask.cluster.place import needs
from popdask.errors import InputError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ROLES = ("scheduler", "worker", "client")


def make_certificates(folder: str | Path, *, days: int = 365) -> list[Path]:
    """Make the certificates of a cluster.

    Parameters
    ----------
    folder
        Where to; it is made, and must not hold certificates yet.
    days
        How long they are valid.

    Returns
    -------
    list of Path
        ``ca.pem``, and ``scheduler.pem``, ``scheduler-key.pem`` and so on for ``worker`` and
        ``client``. Keys are unencrypted, and only their owner may read them (mode 0600).

    Raises
    ------
    InputError
        If the folder holds certificates already, or `cryptography` is not installed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from popdask.cluster import make_certificates
    >>> with TemporaryDirectory() as folder:
    ...     [path.name for path in make_certificates(folder)[:3]]
    ['ca.pem', 'scheduler.pem', 'scheduler-key.pem']
    """
    needs("cryptography", "tls", "making certificates")
    folder = Path(folder)
    _check(folder, days)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority_key = _new_key()
    authority = _certificate("popdask authority", authority_key, authority_key, None, days)
    written = [_write(folder / "ca.pem", _pem(authority), 0o644)]
    for role in ROLES:
        key = _new_key()
        certificate = _certificate(f"popdask {role}", key, authority_key, authority, days)
        written.append(_write(folder / f"{role}.pem", _pem(certificate), 0o644))
        written.append(_write(folder / f"{role}-key.pem", _key_pem(key), 0o600))
    return written


def _check(folder: Path, days: int) -> None:
    if days < 1:
        raise InputError(f"certificates cannot be valid for {days} days: give 1 or more.")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, but a folder was expected: give another path.")
    if any(folder.glob("*.pem")):
        raise InputError(
            f"{folder} holds certificates already: remove them, or choose another folder."
        )


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _certificate(
    name: str,
    key: EllipticCurvePrivateKey,
    signer: EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    days: int,
) -> x509.Certificate:
    """A certificate of a key's public half; without an issuer, that of the authority itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clocks differ between nodes
        .not_valid_after(now + timedelta(days=days))
        .add_extension(
            x509.BasicConstraints(ca=issuer is None, path_length=0 if issuer is None else None),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
    )
    return builder.sign(signer, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, mode: int) -> Path:
    """Write a file that was never readable by others."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return path
