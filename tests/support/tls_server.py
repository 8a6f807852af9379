"""A server that accepts only TLS connections."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import redis
from redis.exceptions import RedisError

from bookbus.feeders.redis_server import LOG_NAME, LocalServer, free_port
from tests.support.waiting import wait_for

_MAKE_CERTIFICATES = Path(__file__).parents[2] / "deploy" / "make_certificates.sh"
_START_LIMIT = 10.0


def make_certificates(directory: Path, names: str) -> Path:
    """Certificate authority and server certificate for these names, like `DNS:localhost,IP:127.0.0.1`."""
    subprocess.run([_MAKE_CERTIFICATES, directory, names], check=True, capture_output=True)
    return directory


def tls_options(port: int, certificates: Path) -> list[str]:
    """Options of a server that listens on this port with TLS, without client certificates."""
    authority, certificate, key = (str(certificates / name) for name in ("ca.crt", "server.crt", "server.key"))
    files = ["--tls-ca-cert-file", authority, "--tls-cert-file", certificate, "--tls-key-file", key]
    return ["--tls-port", str(port), "--tls-auth-clients", "no", *files]


class TlsServer(LocalServer):
    """A server without a plain port, which also uses TLS for replication and the cluster bus."""

    def __init__(
        self, certificates: Path, binary: Path, *, options: Sequence[str] = (), configuration: str | None = None
    ) -> None:
        port = free_port()
        super().__init__(port, options=options, configuration=configuration, binary=binary)
        self._authority = certificates / "ca.crt"
        # LocalServer passes a port before these options; the last one counts.
        self.options += (
            "--port",
            "0",
            *tls_options(port, certificates),
            "--tls-replication",
            "yes",
            "--tls-cluster",
            "yes",
        )

    @property
    def url(self) -> str:
        """Address for clients, with its certificate authority."""
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={self._authority}"

    @property
    def log(self) -> str:
        """The log so far."""
        return (self.directory / LOG_NAME).read_text(errors="replace")

    def _await_ready(self, process: subprocess.Popen[bytes], port: int) -> None:
        wait_for(self._answers, _START_LIMIT, "a server over TLS")

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1.0) as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False
