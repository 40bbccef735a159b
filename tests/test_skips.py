"""What tests/conftest.py promises: in CI a skipped test fails the run and is named, elsewhere it is only reported."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SKIPPED = """
import pytest

@pytest.mark.skipif(True, reason="the moon is full")
def test_by_night(): ...

def test_by_day(): ...

@pytest.mark.xfail(reason="known", strict=True)
def test_expected_to_fail(): assert False
"""


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_a_skipped_test_fails_the_run_in_ci_only(tmp_path: Path, ci: str, code: int) -> None:
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "test_some.py").write_text(SKIPPED)
    (tmp_path / "test_module.py").write_text('import pytest\npytest.skip("no moon", allow_module_level=True)\n')
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(TESTS)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    named = "test_some.py::test_by_night was skipped: the moon is full" in done.stdout
    assert named is bool(ci)
    assert ("test_module.py was skipped: no moon" in done.stdout) is bool(ci)
