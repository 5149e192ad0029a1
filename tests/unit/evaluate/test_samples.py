"""Sampled completions: a column of the predictions, and what they say of a policy."""

from __future__ import annotations

import pyarrow.parquet as pq

from erv.completions.pieces import Completed
from erv.evaluate.evaluate import SCHEMA, read_predictions, write_predictions
from erv.evaluate.samples import measure_samples, with_samples


def row(clip_id: str, label: str, dataset: str = "mafw"):
    return {
        "dataset": dataset,
        "clip_id": clip_id,
        "split": "test",
        "label": label,
        "completion": "",
        "predicted": None,
        "judged": None,
        "sentences": 0,
    }


def said(*answers: str) -> tuple[str, ...]:
    return tuple(f"<think>She frowns.</think>\n<answer>{answer}</answer>" for answer in answers)


ROWS = [row("a", "anger"), row("b", "fear"), row("c", "happy", "dfew")]
SAID = {
    "a": Completed("a", "", said("angry", "anger", "fear")),
    "b": Completed("b", "", said("anger", "anger", "afraid")),
    "c": Completed("c", "", said("happiness", "nonsense", "sad")),
}


def test_what_samples_say():
    rows = [*with_samples(ROWS[:2], SAID), *with_samples(ROWS[2:], SAID)]
    assert [sample["predicted"] for sample in rows[2]["samples"]] == ["happy", None, "sad"]
    measured = measure_samples(rows)
    assert measured["mafw"] == {"WAR": 0.5, "any": 1.0, "majority": 0.5, "agreement": 0.666667}
    assert measured["dfew"] == {"WAR": 0.333333, "any": 1.0, "majority": 1.0, "agreement": 0.333333}
    assert measured["overall"]["WAR"] == 0.444444


def test_they_are_a_column_only_where_there_are_some(tmp_path):
    write_predictions(with_samples(ROWS, SAID), tmp_path / "sampled.parquet")
    table = pq.read_table(tmp_path / "sampled.parquet")
    assert table.column_names == [*SCHEMA.names, "samples"]
    assert table.num_rows == 3
    assert table.column("samples")[1].as_py()[0] == {"completion": said("angry")[0], "predicted": "anger"}
    assert set(read_predictions(tmp_path / "sampled.parquet")[0]) == set(SCHEMA.names)
    greedy = with_samples(ROWS, {name: Completed(name, "") for name in SAID})
    assert greedy == ROWS
    assert measure_samples(greedy) == {}
    write_predictions(greedy, tmp_path / "greedy.parquet")
    assert pq.read_table(tmp_path / "greedy.parquet").schema.equals(SCHEMA)
