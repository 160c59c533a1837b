"""Throw-away certificates for servers on the loopback interface: an authority that signs once and is forgotten."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LoopbackCertificate", "make_certificate"]

_LIFE = dt.timedelta(days=30)


@dataclass(frozen=True, kw_only=True)
class LoopbackCertificate:
    """Files in PEM.

    Attributes:
        authority: Certificate that clients are to trust.
        certificate: Of 127.0.0.1 and localhost, for servers and for clients.
        key: Of that certificate; the authority's own is nowhere.
    """

    authority: Path
    certificate: Path
    key: Path


def make_certificate(folder: Path) -> LoopbackCertificate:
    """Make an authority and a certificate that it signed, as files of this user alone.

    Args:
        folder: Where they are written.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = dt.datetime.now(dt.UTC)

    def build(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        start = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
        return start.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + _LIFE)

    authority_key, own_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "echotrain loopback authority")])
    is_authority = x509.BasicConstraints(ca=True, path_length=0)
    authority = build("echotrain loopback authority", authority_key).issuer_name(issuer).add_extension(is_authority, critical=True)
    places: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    own = (
        build("localhost", own_key)
        .issuer_name(issuer)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(places), critical=False)
        .add_extension(purposes, critical=False)
    )
    made = LoopbackCertificate(authority=folder / "authority.crt", certificate=folder / "loopback.crt", key=folder / "loopback.key")
    pem = serialization.Encoding.PEM
    made.authority.write_bytes(authority.sign(authority_key, hashes.SHA256()).public_bytes(pem))
    made.certificate.write_bytes(own.sign(authority_key, hashes.SHA256()).public_bytes(pem))
    made.key.touch(0o600)
    made.key.write_bytes(own_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return made
