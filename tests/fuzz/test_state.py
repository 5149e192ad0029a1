import pytest

from tests.fuzz.state import FILES, MUTATIONS, fuzz_state


def test_a_damaged_workspace_gives_sentences(tmp_path):
    report = fuzz_state(tmp_path, 4 * len(FILES) * len(MUTATIONS), seed=1, commands=2)
    assert not report.faults, "\n".join(report.faults)
    assert {name for name in report.outcomes if not name.startswith("erv ")} == set(FILES)
    assert report.outcomes["dvc.lock"]["restored"] > 5
    assert report.outcomes[".erv/stack.env"]["refused"] > 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_commands_in_a_damaged_workspace(tmp_path):
    report = fuzz_state(tmp_path, 2400, seed=0, commands=60)
    assert not report.faults, "\n".join(report.faults)
