"""A small sample corpus, rendered once for all tests that read it."""

from pathlib import Path

import pytest
from filelock import FileLock

from erv.sample.sample import SampleSize, write_sample

SMALL = SampleSize(mafw=22, dfew=14, reasoning=11, judge=2)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Trees mafw (22 clips, two per emotion in folds 1 and 2), dfew, reasoning, judge; not to be changed.

    The processes of pytest-xdist share one: the folder above theirs belongs to the run.
    """
    own = tmp_path_factory.getbasetemp()
    out = (own if worker_id == "master" else own.parent) / "corpus"
    with FileLock(out.with_suffix(".lock")):
        if not (out / "complete").exists():
            write_sample(out / "trees", 0, SMALL, workers=2, skip_base=True)
            (out / "complete").touch()
    return out / "trees"
