import pytest

from tests.fuzz.folders import KINDS
from tests.fuzz.mutations import MUTATIONS, mutate
from tests.fuzz.run import fuzz, write_mutations


def check(report, mutations):
    """`fuzz` itself asserts that every clip is extracted or quarantined, and probed."""
    assert report.result.clips == mutations
    assert report.result.extracted > mutations // 20  # small damage leaves some clips usable
    assert report.result.quarantined > mutations // 4
    assert set(report.by_kind) == {*MUTATIONS, *KINDS}


def test_broken_clips_stop_nothing(tmp_path):
    check(fuzz(tmp_path, 60, seed=1), 60)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_thousand_broken_clips_stop_nothing(tmp_path):
    check(fuzz(tmp_path, 2000, seed=0), 2000)


def test_mutations_are_the_same_in_every_run(tmp_path):
    kinds = write_mutations(tmp_path / "a", 28, seed=3)
    assert kinds == write_mutations(tmp_path / "b", 28, seed=3)
    written = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(written) > 28  # folders of frames are among them
    for path in written:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    whole = [bytes(range(256))] * 2
    assert mutate(whole, 2, seed=0) != mutate(whole, 16, seed=0)
