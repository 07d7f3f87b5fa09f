"""HTTPS servers of this machine, with certificates made on the spot by the openssl program."""

import ssl
import subprocess
from http.server import HTTPServer
from pathlib import Path


def make_certificate(directory: Path, host: str = "localhost", days: int = 1) -> Path:
    """Return a file with a new key and a certificate for `host`, signed by itself, in `directory`."""
    path = directory / f"{host}.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", path, "-out", path.with_suffix(".crt"), "-days", str(days), "-subj", f"/CN={host}",
            "-addext", f"subjectAltName=DNS:{host},IP:127.0.0.1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


def speak_tls(server: HTTPServer, certificate: Path) -> None:
    """Let `server` speak TLS from now on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
