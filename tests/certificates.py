"""Certificates that nobody else vouches for."""

import ssl
import subprocess
from pathlib import Path


def certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for the name, and what a server needs to show it."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    request = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=sandbox "
        f"-addext subjectAltName={name} -addext keyUsage=digitalSignature,keyCertSign"
    )
    subprocess.run(["openssl", *request.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context
