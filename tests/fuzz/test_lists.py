import pytest

from erv.errors import DataError
from tests.fuzz.list_mutations import LINES, OF_CSV, OF_IDS, SHEETS, WHOLE
from tests.fuzz.list_sets import write_sets
from tests.fuzz.lists import faults, fuzz_lists, touched_clips


def test_broken_lists_are_refused_or_read_as_they_mean_it(tmp_path):
    report = fuzz_lists(tmp_path, 120, seed=1)
    assert report.wrong == []
    assert sum(outcomes["read"] for outcomes in report.outcomes.values()) > 30
    assert sum(outcomes["refused"] for outcomes in report.outcomes.values()) > 30


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 2])
def test_many_broken_lists_are_refused_or_read_as_they_mean_it(tmp_path, seed):
    report = fuzz_lists(tmp_path, 2500, seed)
    assert report.wrong == []
    kinds = {label.partition(": ")[2] for label in report.outcomes}
    assert kinds == {*LINES, *WHOLE, *OF_CSV, *OF_IDS, *SHEETS}


def test_the_fuzzer_sees_a_shifted_label_and_a_lost_clip(tmp_path):
    """A set whose truth is another finds both, so the checks above can fail."""
    sets = {item.name: item for item in write_sets(tmp_path)}
    chosen = sets["table of names"]
    table = chosen.root / "clips.csv"
    before = table.read_bytes()
    table.write_bytes(before.replace(b"clip01.mp4,disgust", b"clip01.mp4,fear"))
    result = chosen.read()
    assert touched_clips(chosen, before, table.read_bytes()) == {"clip01"}
    assert faults(chosen, result, {"clip01"}) == []
    assert "clip clip01: label is 'fear', was 'disgust'" in faults(chosen, result, set())
    (chosen.root / "clip02.mp4").unlink()
    table.write_bytes(before.replace(b"clip02.mp4,fear", b"gone.mp4,fear"))
    assert faults(chosen, chosen.read(), set()) == ["clip clip02 is lost without a word"]
    table.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        chosen.read()
