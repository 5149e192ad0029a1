"""Nothing of an upload outlives the process that took it, for longer than until the next one starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from erv.answering.scratch import Scratch

MAKES = """
import os, signal
from erv.answering.scratch import Scratch
scratch = Scratch()
(scratch.path / "clip").write_bytes(b"film")
print(scratch.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_what_a_killed_process_left_is_swept_and_what_is_in_use_stays(temporary: Path) -> None:
    mine = Scratch()
    (mine.path / "clip").write_bytes(b"film")
    (temporary / "erv-answering-link").symlink_to(mine.path)
    killed = subprocess.run([sys.executable, "-c", MAKES], capture_output=True, text=True, check=False)
    left = Path(killed.stdout.strip())
    assert (left / "clip").is_file()
    another = Scratch()
    assert not left.exists()
    assert (mine.path / "clip").is_file()
    assert mine.path.stat().st_mode & 0o777 == 0o700
    for scratch in (mine, another):
        scratch.close()
        scratch.close()
        assert not scratch.path.exists()
