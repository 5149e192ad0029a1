"""The tables behind the plots of a data set."""

import json

import pytest

from erv.errors import DataError
from erv.labels import LabelSpace
from erv.plots.tables import read_plot, write_class_balance, write_durations, write_quarantine
from erv.validate.probing import Probe
from tests.conftest import ROOT
from tests.support.verdicts import GONE, make_row, rows_of

DFEW = LabelSpace.load("dfew").names
FOLDS = {fold: {"train": {DFEW[0]: 40 + fold, DFEW[1]: 7}, "test": {DFEW[0]: 10}} for fold in range(5, 0, -1)}


@pytest.fixture
def plots(tmp_path):
    return tmp_path / "dfew"


def test_class_balance_has_every_fold_and_the_validation_split_of_the_one_in_use(plots):
    rows = [make_row("dfew", i, s) for i, s in enumerate(("train", "train", "validation", "test"))]
    write_class_balance(FOLDS, 1, rows, LabelSpace.load(rows[0].dataset).names, plots / "class_balance.csv")
    found = read_plot(plots / "class_balance.csv")
    assert list(dict.fromkeys(row["fold"] for row in found)) == ["1", "2", "3", "4", "5"]
    used = [row for row in found if row["fold"] == "1"]
    assert list(dict.fromkeys(row["split"] for row in used)) == ["train", "validation", "test"]
    assert [row["label"] for row in used[:7]] == list(DFEW)
    assert sum(int(row["clips"]) for row in used) == 4
    other = [row for row in found if row["fold"] == "3"]
    assert {row["split"] for row in other} == {"train", "test"}
    assert sum(int(row["clips"]) for row in other) == 43 + 7 + 10


def test_a_set_without_folds_has_one(plots):
    rows = rows_of("ravdess", 8, splits=("test",), fold=0)
    write_class_balance(
        {0: {"test": {"neutral": 1}}},
        1,
        rows,
        LabelSpace.load(rows[0].dataset).names,
        plots / "class_balance.csv",
    )
    assert {(row["fold"], row["split"]) for row in read_plot(plots / "class_balance.csv")} == {("0", "test")}


def test_durations_are_a_histogram_that_ends_at_the_longest_allowed(plots):
    seconds = [0.2, 0.5, 0.7, 2.0, 1e9, 61.0]
    probes = [*(Probe(seconds=value) for value in seconds), Probe(frames=16), GONE]
    write_durations(probes, 3.0, plots / "durations.csv")
    assert (plots / "durations.csv").read_text() == (
        "seconds,clips\n0.0,1\n0.5,2\n1.0,0\n1.5,0\n2.0,1\n2.5,0\n3.0,2\n"
    )
    write_durations([Probe(frames=16), Probe(fault="truncated", seconds=2.0)], 3.0, plots / "durations.csv")
    assert (plots / "durations.csv").read_text() == "seconds,clips\n"


def test_quarantine_is_counted_by_reason_the_most_frequent_first(plots):
    reasons = [("ingest", "no label, really"), *[("extract", "no sound")] * 2, ("extract", "an <odd> one")]
    write_quarantine(reasons, plots / "quarantine.csv")
    assert (plots / "quarantine.csv").read_text() == (
        'stage,reason,clips\nextract,no sound,2\nextract,an <odd> one,1\ningest,"no label, really",1\n'
    )


def test_a_missing_or_foreign_file_is_reported(plots):
    with pytest.raises(DataError, match=r"durations\.csv: not found; `dvc repro` writes it"):
        read_plot(plots / "durations.csv")
    plots.mkdir()
    (plots / "durations.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="expected the columns seconds,clips"):
        read_plot(plots / "durations.csv")


@pytest.mark.parametrize("name", ["class_balance", "durations", "quarantine"])
def test_dvc_has_a_template_for_it(name, plots, monkeypatch):
    from dvc_render.vega import VegaRenderer

    write_class_balance(FOLDS, 1, rows_of("dfew"), LabelSpace.load("dfew").names, plots / "class_balance.csv")
    write_durations([Probe(seconds=2.0)], 60.0, plots / "durations.csv")
    write_quarantine([("extract", "no sound")], plots / "quarantine.csv")
    records = [{**row, "rev": "workspace"} for row in read_plot(plots / f"{name}.csv")]
    x, y = {"class_balance": ("clips", "label"), "durations": ("seconds", "clips")}.get(
        name, ("clips", "reason")
    )
    properties = {"template": name, "template_dir": str(ROOT / ".dvc/plots"), "x": x, "y": y, "title": "T"}
    drawn = VegaRenderer(records, name, **properties).get_filled_template()
    text = json.dumps(drawn)
    assert "<DVC_METRIC" not in text
    assert json.loads((ROOT / f".dvc/plots/{name}.json").read_text())["data"] == {
        "values": "<DVC_METRIC_DATA>"
    }
    assert drawn["data"]["values"] == records
