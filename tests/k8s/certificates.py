"""Throw-away certificates, by openssl: a test's API server trusts these authorities and nothing else."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Authority", "KeyPair", "make_authority", "make_key"]


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """Files of one certificate and its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, kw_only=True)
class Authority:
    """Signs certificates that live for two days."""

    folder: Path
    name: str

    @property
    def certificate(self) -> Path:
        """What a client trusts."""
        return self.folder / f"{self.name}.crt"

    def sign(self, name: str, subject: str, *, alternatives: str = "") -> KeyPair:
        """Return a certificate of ``subject`` ("/O=group/CN=user"), with subject alternative names where a server needs them."""
        _openssl(self.folder, "req", *_NEW_KEY, "-keyout", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
        signing = ["-CA", f"{self.name}.crt", "-CAkey", f"{self.name}.key", "-CAcreateserial", "-days", "2"]
        if alternatives:
            (self.folder / f"{name}.ext").write_text(f"subjectAltName={alternatives}\n")
            signing += ["-extfile", f"{name}.ext"]
        _openssl(self.folder, "x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.crt")
        return KeyPair(certificate=self.folder / f"{name}.crt", key=self.folder / f"{name}.key")


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make_authority(folder: Path, name: str) -> Authority:
    """Make a certificate authority in ``folder``."""
    _openssl(folder, "req", "-x509", *_NEW_KEY, "-keyout", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.crt", "-days", "2")
    return Authority(folder=folder, name=name)


def make_key(path: Path) -> Path:
    """Make an RSA key, which is what ServiceAccount tokens are signed with."""
    _openssl(path.parent, "genrsa", "-out", path.name, "2048")
    return path


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
