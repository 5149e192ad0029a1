"""A small sample corpus, rendered once for all tests that read it."""

from pathlib import Path

import pytest

from erv.sample.sample import SampleSize, write_sample

SMALL = SampleSize(mafw=22, dfew=14, reasoning=11, judge=2)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trees mafw (22 clips, two per emotion in folds 1 and 2), dfew, reasoning, judge; not to be changed."""
    out = tmp_path_factory.mktemp("corpus")
    write_sample(out, 0, SMALL, workers=2, skip_base=True)
    return out
