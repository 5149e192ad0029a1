"""Copies of versions on this machine."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from erv.files import sha256_of_file
from erv.register.fetched import _make_sure, fault_of


def test_two_that_need_the_same_version_fetch_it_once(tmp_path: Path) -> None:
    """The second one removed what the first had half fetched, or could not put its own in place."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/code.py").write_text("1")
    files = {"code.py": sha256_of_file(tmp_path / "source/code.py")}
    text = json.dumps({"files": files})
    (tmp_path / "source/lineage.json").write_text(text)
    recorded = sha256_of_file(tmp_path / "source/lineage.json")
    folder = tmp_path / "versions/m/1-0123"
    fetched: list[int] = []
    second = threading.Event()

    def fetch(number: int) -> None:
        def download(work: Path) -> Path:
            fetched.append(number)
            model = work / "model"
            model.mkdir()
            (model / "code.py").write_text("1")
            second.wait(0.5)  # the other one is on its way
            (model / "lineage.json").write_text(text)
            return model

        if number == 1:
            second.set()
        _make_sure(folder, recorded, download)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fetch, range(2)))
    assert fault_of(folder, recorded) is None
    assert len(fetched) == 1
    (folder / "code.py").write_text("2")
    fetch(2)
    assert fault_of(folder, recorded) is None
    assert fetched[1:] == [2]
