"""The pages of a data set's figures, drawn from its tables."""

import re

import pytest

from erv.figures.charts import class_balance_svg
from erv.figures.pages import class_balance_page, durations_page, quarantine_page
from erv.labels import LabelSpace
from erv.plots.tables import write_class_balance, write_durations, write_quarantine
from erv.validate.probing import Probe
from tests.support.verdicts import rows_of

DFEW = LabelSpace.load("dfew").names
FOLDS = {fold: {"train": {DFEW[0]: 40 + fold, DFEW[1]: 7}, "test": {DFEW[0]: 10}} for fold in range(5, 0, -1)}


@pytest.fixture
def plots(tmp_path):
    return tmp_path / "dfew"


def test_equal_tables_give_equal_figures_that_need_nothing_else(plots):
    write_class_balance(FOLDS, 1, rows_of("dfew"), LabelSpace.load("dfew").names, plots / "class_balance.csv")
    write_durations([Probe(seconds=value / 10) for value in range(5, 70)], 60.0, plots / "durations.csv")
    write_quarantine([], plots / "quarantine.csv")
    for draw in (class_balance_page, durations_page, quarantine_page):
        path = plots / f"{draw.__name__.removesuffix('_page')}.csv"
        html = draw(path)
        assert html == draw(path)
        assert html.count("<svg") == html.count("</svg>")
        assert set(re.findall(r"https?://[^\s\"'<]+", html)) <= {"http://www.w3.org/2000/svg"}
        assert "<script" not in html
        assert str(plots.parent) not in html
    assert "fold 1, train, happy" in class_balance_page(plots / "class_balance.csv")
    assert "2.5 to 3 s: 5 clips" in durations_page(plots / "durations.csv")
    assert "No clip is in quarantine" in quarantine_page(plots / "quarantine.csv")


def test_a_reason_is_text_not_markup(plots):
    write_quarantine([("extract", "an <odd> one")], plots / "quarantine.csv")
    html = quarantine_page(plots / "quarantine.csv")
    assert "an &lt;odd&gt; one" in html
    assert "<odd>" not in html


def test_a_set_without_known_durations_says_so(plots):
    write_durations([Probe(frames=16)], 60.0, plots / "durations.csv")
    assert "No clip has a known length." in durations_page(plots / "durations.csv")


def test_every_label_fold_and_total_is_written_on_the_chart(plots):
    write_class_balance(FOLDS, 1, rows_of("dfew"), LabelSpace.load("dfew").names, plots / "class_balance.csv")
    html = class_balance_page(plots / "class_balance.csv")
    written = re.findall(r"<text [^>]*>([^<]*)</text>", html)
    assert {*DFEW, "train", "validation", "test", *(f"fold {fold}" for fold in range(1, 6))} <= {*written}
    assert {"55", "7", "0"} <= {*written}  # of fold 5
    assert "fold 5: train 52, validation 0, test 10" in html


def test_a_set_without_folds_is_drawn_as_one():
    rows = [{"fold": "0", "split": "test", "label": "calm", "clips": "3"}]
    chart = class_balance_svg(rows, "ravdess")
    assert ">all</text>" in chart
    assert "<desc>all: train 0, validation 0, test 3</desc>" in chart
    assert chart.count("var(--p0)") == 1  # the legend names a split without clips too
