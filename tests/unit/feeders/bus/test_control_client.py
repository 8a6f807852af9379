"""The client for what is asked now and then: options that not every client of redis-py has."""

import shutil
import ssl
from pathlib import Path

import pytest

from bookbus.feeders.bus.servers import control_client

SYSTEM = Path(ssl.get_default_verify_paths().capath or "/nowhere")


def hashed_certificates(directory: Path) -> int:
    files = [file for file in SYSTEM.glob("*.0") if file.is_file()][:3]
    for file in files:
        shutil.copy(file, directory / file.name)
    return len(files)


@pytest.mark.parametrize("host", ["redis+cluster://127.0.0.1:1", "redis+clusters://127.0.0.1:1"])
def test_a_directory_of_certificates_is_read_for_a_cluster(tmp_path: Path, host: str) -> None:
    if not hashed_certificates(tmp_path):
        (tmp_path / "9d66eef0.0").write_text("certificate")
    scheme = host.replace("redis+clusters", "rediss+cluster").replace("redis+cluster:", "rediss+cluster:")

    client = control_client(f"{scheme}?ssl_ca_path={tmp_path}")

    assert client.connection_kwargs["ssl_ca_data"]  # type: ignore[attr-defined]


def test_a_directory_without_certificates_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without certificates"):
        control_client(f"rediss+cluster://127.0.0.1:1?ssl_ca_path={tmp_path}")
