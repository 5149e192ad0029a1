"""Where served versions come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.errors import RegistryError
from erv.files import sha256_of
from erv.serve.versions import FolderSource, Version


def test_a_bundle_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "serving.json").write_text("{}")
    source = FolderSource(tmp_path)
    version = source.fetch()
    assert version == Version(tmp_path.name, "", sha256_of(tmp_path), 0, tmp_path)
    assert version.ids == (tmp_path.name,)
    assert source.newest() == source.newest()


def test_a_folder_without_a_bundle(tmp_path: Path) -> None:
    source = FolderSource(tmp_path)
    with pytest.raises(RegistryError, match="is no bundle"):
        source.fetch()


def test_names_for_clients() -> None:
    version = Version("emotion-policy", "3", "f" * 64, 7, Path("bundle"))
    assert version.ids == ("emotion-policy", "emotion-policy/3")
    assert version.as_dict() == {
        "id": "emotion-policy/3",
        "name": "emotion-policy",
        "version": "3",
        "bundle": "f" * 64,
    }
