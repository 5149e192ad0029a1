"""The meter of long steps."""

import io
import logging
import re

import pytest

from erv import progress as meters
from erv.progress import meter, ticker

LOG = logging.getLogger("erv.test")


def seen(caplog):
    """The lines without times and speed."""
    assert all(re.fullmatch(r"[^\x1b\r\n]*\S", line) for line in caplog.messages)
    return [line.partition(" [")[0] for line in caplog.messages]


@pytest.fixture(autouse=True)
def info(caplog):
    caplog.set_level(logging.INFO, LOG.name)


def test_a_log_gets_the_start_and_the_end_and_no_line_for_each_thing(caplog):
    with meter("extract mafw", 1000, "clips", LOG, done=400) as bar:
        tick = ticker(bar, "quarantined", seen=2)
        for number in range(600):
            tick(number < 3)
    assert seen(caplog) == ["extract mafw: 400/1000 clips", "extract mafw: 1000/1000 clips, 5 quarantined"]
    assert re.search(r"\[\d\d:\d\d<00:00, +\d+\.\d+ clips/s\]$", caplog.messages[-1])


def test_a_line_now_and_then_says_how_far_it_is_also_in_the_middle_of_a_file(caplog, monkeypatch):
    monkeypatch.setattr(meters, "SECONDS_BETWEEN_LINES", 0.0)
    with meter("one", 3, "files", LOG) as one, meter("two", 1, "files", LOG) as two:
        one.update()
        two.set_postfix_str("7 MB read", refresh=False)
        two.update(0)
    assert seen(caplog)[:4] == [
        "one: 0/3 files",
        "two: 0/1 files",
        "one: 1/3 files",
        "two: 0/1 files, 7 MB read",
    ]


def test_what_is_stopped_says_how_far_it_came(caplog):
    bar = meter("one", 3, "files", LOG)
    bar.update(2)
    bar.close()
    bar.close()
    assert seen(caplog) == ["one: 0/3 files", "one: 2/3 files"]


def test_of_what_is_quick_a_patient_meter_shows_nothing(caplog, monkeypatch):
    for seconds, lines in ((5.0, []), (0.0, ["one: 0/1 files", "one: 1/1 files"])):
        monkeypatch.setattr(meters, "SECONDS_BETWEEN_LINES", seconds)
        with meter("one", 1, "files", LOG, patient=True) as bar:
            bar.update()
        assert list(dict.fromkeys(seen(caplog))) == lines


def test_a_terminal_gets_a_bar(caplog, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    with meter("one", 2, "files", LOG) as bar:
        bar.update(2)
    assert not caplog.messages
    assert re.search(r"\rone: 100%\|.*\| 2/2 \[.*files/s\]", terminal.getvalue())
