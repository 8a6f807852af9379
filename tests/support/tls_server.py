"""A server that speaks nothing but TLS."""

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
    """An authority and a certificate of a server with these names, `DNS:localhost,IP:127.0.0.1`."""
    subprocess.run([_MAKE_CERTIFICATES, directory, names], check=True, capture_output=True)
    return directory


class TlsServer(LocalServer):
    """The same without a plain port; what it says to its like goes over TLS as well."""

    def __init__(
        self, certificates: Path, binary: Path, *, options: Sequence[str] = (), configuration: str | None = None
    ) -> None:
        port = free_port()
        super().__init__(port, options=options, configuration=configuration, binary=binary)
        self._authority = certificates / "ca.crt"
        # The port that every server of ours is told comes before; the last word counts.
        self.options += (
            *("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"),
            *("--tls-replication", "yes", "--tls-cluster", "yes"),
            *("--tls-ca-cert-file", str(self._authority), "--tls-cert-file", str(certificates / "server.crt")),
            *("--tls-key-file", str(certificates / "server.key")),
        )

    @property
    def url(self) -> str:
        """Where clients connect that trust its authority."""
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={self._authority}"

    @property
    def log(self) -> str:
        """What it said so far."""
        return (self.directory / LOG_NAME).read_text(errors="replace")

    def _await_ready(self, process: subprocess.Popen[bytes], port: int) -> None:
        wait_for(self._answers, _START_LIMIT, "a server over TLS")

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1.0) as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False
