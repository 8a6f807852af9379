"""A foreign package called `schemas` is named in the error, instead of failing somewhere odd."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["feeders", "consumers"])
@pytest.mark.parametrize("foreign", ["schemas/__init__.py", "schemas.py"])
def test_foreign_schemas_earlier_on_the_path_give_a_clear_error(tmp_path: Path, package: str, foreign: str) -> None:
    hiding = tmp_path / foreign
    hiding.parent.mkdir(exist_ok=True)
    hiding.write_text("class Unrelated: ...\n")

    ran = subprocess.run(
        [sys.executable, "-c", f"import {package}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        f"ImportError: another package called 'schemas' ({hiding}) hides the one of bookbus; "
        "remove it from sys.path or install bookbus in an environment of its own"
    )
