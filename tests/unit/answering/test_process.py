"""What happens before the process of a model has loaded it."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.answering.process import Answerer
from erv.errors import RegistryError


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with pytest.raises(RegistryError, match=r"has no serving\.json"):
        Answerer(tmp_path, device="cpu", log=tmp_path / "logs/log")
    assert (tmp_path / "logs/log").read_text() == ""


@pytest.mark.parametrize("options", [{"batch": 0}, {"queue": 0}])
def test_nothing_can_be_answered_by_none(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected at least 1 each"):
        Answerer(tmp_path, **options)
