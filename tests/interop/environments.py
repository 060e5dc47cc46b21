"""Does. An environment of its own for each client, made when it is missing or its pins have changed."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FOLDER = ROOT / ".interop"
_INSTALL_LIMIT_S = 600


def environment(name: str, requirements: Path | None = None) -> Path:
    """Its Python. Raises CalledProcessError when it cannot be made."""
    requirements = requirements or HERE / f"requirements-{name}.txt"
    node = HERE / f"npm-{name}.txt"
    packages = node.read_text().split() if node.exists() else []
    pins = "\n".join([requirements.read_text(), *packages])
    folder = FOLDER / name
    python, mark = folder / "bin" / "python", folder / "pins"
    if not (mark.exists() and mark.read_text() == pins):
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements))
        for package in packages:
            _unpack(package, folder / package)
        mark.write_text(pins)
    return python


def _unpack(package: str, folder: Path) -> None:
    """An npm package as it was published, its files below `package` in this folder; nothing of it is run."""
    if shutil.which("npm") is None:
        if os.geteuid() != 0:
            raise subprocess.CalledProcessError(1, ["npm", "is missing; first: sudo apt install npm"])
        _run("apt-get", "update", "-q")
        _run("apt-get", "install", "-y", "-q", "npm")
    folder.mkdir()
    _run("npm", "pack", "--silent", "--pack-destination", str(folder), package)
    (archive,) = folder.glob("*.tgz")
    _run("tar", "--extract", "--gzip", "--file", str(archive), "--directory", str(folder))
    archive.unlink()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=_INSTALL_LIMIT_S, stdout=sys.stderr)


def certificate() -> Path:
    """A key and a certificate for 127.0.0.1 in one file, for a client that speaks nothing but TLS. Made every time."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "unisono interop, loopback only")])
    now = datetime.datetime.now(datetime.UTC)
    public = key.public_key()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), False)
        .sign(key, hashes.SHA256())
    )
    path = FOLDER / "loopback.pem"
    path.touch(0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path
