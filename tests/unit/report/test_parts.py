"""Parts of the page that are computed."""

from erv.report.parts import confusion

MOODS = """name: moods
labels: [{id: 0, name: awe}, {id: 1, name: joy}]
maps: {mafw: {joy: happiness}}
"""


def _row(answer: str | None, written: str) -> dict[str, object]:
    return {
        "dataset": "moods",
        "clip_id": written,
        "label": "joy",
        "predicted": answer,
        "judged": None,
        "completion": f"<think>x</think><answer>{written}</answer>" if written else "",
    }


def test_an_answer_that_is_not_pooled_is_a_label_all_the_same(tmp_path, monkeypatch):
    folder = tmp_path / "data/label_spaces"
    folder.mkdir(parents=True)
    (folder / "moods.yaml").write_text(MOODS)
    monkeypatch.chdir(tmp_path)
    rows = [_row("joy", "joy"), _row("awe", "awe"), _row(None, "sunny"), _row(None, ""), _row(None, "rainy")]
    found = confusion(rows)
    assert found["columns"][-3:] == ["label not pooled", "not a label", "no answer"]
    line = found["rows"][0]
    assert (line["name"], line["total"]) == ("happiness", 5)
    assert [count for count, _ in line["cells"]][-3:] == [1, 2, 1]
    plain = confusion(rows[:1])
    assert plain["columns"][-2:] == ["not a label", "no answer"]
    assert "label not pooled" not in plain["columns"]
