import csv
import json

import pytest

from erv.report.tables import write_tables
from tests.conftest import ROOT
from tests.support.reports import compared, direct_of, evidence_of, predictions_of, with_direct


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables") / "plots"
    predictions = predictions_of()
    comparison = compared(predictions, evidence_of())
    write_tables(predictions, comparison, folder)
    rows = {}
    for path in folder.iterdir():
        with path.open(newline="") as stream:
            rows[path.stem] = list(csv.DictReader(stream))
    return comparison, rows


def test_the_tables_have_the_figures_of_the_comparison(made):
    comparison, rows = made
    found = {(row["judge"], row["policy"], row["metric"]): row for row in rows["metrics"]}
    item = comparison["judges"]["embedding"]["policies"]["erv"]["overall"]["EPC"]
    row = found["embedding", "erv", "EPC"]
    assert [row[end] for end in ("value", "low", "high")] == [
        f"{100 * item[end]:.2f}" for end in ("value", "low", "high")
    ]
    war = comparison["policies"]["mine"]["overall"]["WAR"]["value"]
    assert found["answers alone", "mine", "WAR"]["value"] == f"{100 * war:.2f}"
    assert ("lexical", "mine", "WAR") not in found
    pairs = {row["policies"] for row in rows["differences"]}
    assert pairs == {"mine - sft", "erv - sft", "erv - mine"}
    assert {row["verdict"] for row in rows["differences"]} <= {"better", "worse", "can't tell"}
    answers = [row["answer"] for row in rows["confusion"] if row["policy"] == "sft"]
    assert len(answers) == 12
    assert (answers.count("no answer"), answers.count("not a label")) == (1, 1)


def test_what_does_not_apply_has_no_value_and_is_no_verdict(tmp_path):
    predictions = {"erv": predictions_of()["erv"], "direct": direct_of()}
    write_tables(predictions, compared(predictions, with_direct(evidence_of())), tmp_path / "plots")
    with (tmp_path / "plots" / "differences.csv").open(newline="") as stream:
        found = {row["metric"]: (row["value"], row["verdict"]) for row in csv.DictReader(stream)}
    assert found["EPC"] == ("", "doesn't apply")
    assert found["WAR"][0]


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [("metrics", "metric", "value"), ("differences", "value", "metric"), ("confusion", "answer", "truth")],
)
def test_dvc_has_a_template_for_it(made, name, x, y):
    from dvc_render.vega import VegaRenderer

    records = [{**row, "rev": "workspace"} for row in made[1][name]]
    properties = {"template": f"report_{name}", "template_dir": str(ROOT / ".dvc/plots"), "x": x, "y": y}
    drawn = VegaRenderer(records, name, title="T", **properties).get_filled_template()
    assert "<DVC_METRIC" not in json.dumps(drawn)
    assert drawn["data"]["values"] == records
    fields = set(records[0])
    computed = {step["as"] for step in drawn.get("transform", ()) if "as" in step} | {"clips", "of"}
    assert set(_fields(drawn)) <= fields | computed


def _fields(value):
    """The names of all fields that a chart uses."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "field" and isinstance(item, str):
                yield item
            elif key != "data":
                yield from _fields(item)
    elif isinstance(value, list):
        for item in value:
            yield from _fields(item)
