import json
import zipfile

import pytest

from erv.errors import DataError
from erv.ingest.ingest import ingest
from erv.ingest.readers.by_name import selection_of
from erv.ingest.readers.tabular import csv_rows
from erv.pinning import pin
from erv.settings import IngestSettings
from tests.support import trees

SPACE = """
name: moods
labels:
  - {id: 1, name: glad, synonyms: [cheerful]}
  - {id: 2, name: gloomy}
  - {id: 5, name: cross}
"""
CSV = "clip,label,split\na.mp4,glad,train\nsub/b.avi,Gloomy,test\nc.mp4,cheerful,validation\n"


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/label_spaces").mkdir(parents=True)
    (tmp_path / "data/label_spaces/moods.yaml").write_text(SPACE)


@pytest.fixture
def root(tmp_path):
    trees.write_videos(tmp_path / "source", ["a", "c"])
    trees.write_videos(tmp_path / "source/sub", ["b"], ".avi")
    return tmp_path / "source"


def read(root, text=None, *, table="clips.csv", every=None, fold=1, share=0.0, excluded=0.0, **columns):
    if text is not None:
        (root / table).parent.mkdir(parents=True, exist_ok=True)
        (root / table).write_bytes(text if isinstance(text, bytes) else text.encode())
    if every is None:
        columns.setdefault("split", "split")
    settings = IngestSettings(
        fold=fold,
        validation_share=share,
        expect="full",
        max_excluded_share=excluded,
        readers={"moods": {"reader": "table", "table": table, "split": every, "columns": columns}},
    )
    lock = pin("moods", str(root), None, selection=selection_of(settings.readers["moods"]))
    return ingest("moods", lock, None, settings, seed=0)


def rows_of(result):
    return [(row.clip_id, row.split, row.label) for row in result.rows]


EXPECTED = [("a", "train", "glad"), ("c", "validation", "glad"), ("sub/b", "test", "gloomy")]


@pytest.mark.parametrize(
    "text",
    [
        CSV,
        "\ufeff" + CSV,
        CSV.replace("\n", "\r\n"),
        CSV + "\n\n",
        'split,x,label,clip\ntrain,"x, y",glad,a.mp4\ntest,,Gloomy,sub/b.avi\nvalidation,,cheerful,c.mp4\n',
        "clip,label,split\na.mp4,1,train\nsub/b.avi,2,test\nc.mp4,01,validation\n",
    ],
)
def test_csv_as_people_write_it(root, text):
    result = read(root, text)
    assert rows_of(result) == EXPECTED
    assert all(check.success for check in result.checks)
    assert {row.label_from for row in result.rows} == {f"clips.csv:{line}" for line in (2, 3, 4)}
    assert {row.fold for row in result.rows} == {0}


def test_jsonl_with_columns_of_its_own(root):
    lines = [
        {"file": "a.mp4", "mood": 1, "part": "train", "text": "A smile.", "more": [1]},
        {"file": "sub/b.avi", "mood": 2, "part": "test", "text": None},
        {"file": "c.mp4", "mood": 1, "part": "validation"},
    ]
    text = "".join(json.dumps(line) + "\r\n" for line in lines)
    result = read(root, text, table="t.jsonl", clip="file", label="mood", split="part", caption="text")
    assert rows_of(result) == EXPECTED
    assert [(row.caption, row.caption_from) for row in result.rows] == [
        ("A smile.", "t.jsonl:1"),
        (None, None),
        (None, None),
    ]


def test_paths_are_those_of_the_table_s_folder(root):
    (root / "deep").mkdir()
    for name in ("a.mp4", "c.mp4", "sub"):
        (root / name).rename(root / "deep" / name)
    result = read(root, CSV, table="deep/clips.csv")
    assert rows_of(result) == EXPECTED
    assert result.rows[0].uri.endswith("source/deep/a.mp4")
    assert rows_of(read(root)) == EXPECTED  # clips.csv alone names it, too


def test_all_in_a_zip(root, tmp_path):
    (root / "clips.csv").write_text(CSV)
    packed = tmp_path / "packed"
    packed.mkdir()
    with zipfile.ZipFile(packed / "set.zip", "w") as archive:
        for path in sorted(root.rglob("*.*")):
            archive.write(path, f"set/{path.relative_to(root)}")
    result = read(packed)
    assert rows_of(result) == EXPECTED
    assert result.rows[0].uri.endswith("set.zip!/set/a.mp4")


def test_a_split_for_all_and_the_validation_cut(root):
    text = "clip,label\na.mp4,glad\nsub/b.avi,gloomy\nc.mp4,glad\n"
    assert {row.split for row in read(root, text, every="test", share=0.9).rows} == {"test"}
    rows = read(root, text, every="train", share=0.9).rows
    assert "validation" in {row.split for row in rows}
    where = "params.yaml: ingest.readers.moods.split"
    assert {row.split_from for row in rows} <= {where, f"{where}; validation cut"}


def test_a_table_with_its_own_validation_is_not_cut(root):
    assert rows_of(read(root, CSV, share=0.9)) == EXPECTED


@pytest.mark.parametrize("fold", [1, 2])
def test_folds(root, fold):
    text = "clip,label,fold\na.mp4,glad,1\nsub/b.avi,gloomy,2\nc.mp4,glad,1\n"
    result = read_folds(root, text, fold)
    assert {row.clip_id: row.split for row in result.rows} == {
        clip: "test" if own == fold else "train" for clip, own in (("a", 1), ("sub/b", 2), ("c", 1))
    }
    assert {row.fold for row in result.rows} == {fold}
    assert result.folds == {
        1: {"test": {"glad": 2}, "train": {"gloomy": 1}},
        2: {"test": {"gloomy": 1}, "train": {"glad": 2}},
    }


def test_labels_outside_the_space_are_excluded(root):
    text = CSV.replace("cheerful", "puzzled")
    with pytest.raises(DataError, match=r"1 x its label 'puzzled' is not one of label space moods \(c\)"):
        read(root, text)
    result = read(root, text, excluded=0.5)
    assert [(item.clip_id, item.listed_in) for item in result.excluded] == [("c", "clips.csv:4")]
    assert result.unlisted == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            CSV.replace("cheerful", "5").replace("Gloomy", "2"),
            r"clips\.csv:3: label '2' is a number while others",
        ),
        (
            "clip,label,split\na.mp4,1,train\nc.mp4,0,test\n",
            r"clips\.csv:3: label id 0 is not in moods's range 1\.\.5",
        ),
        ("clip,label,split\na.mp4,3,train\n", r"label id 3 is not in moods's range"),
        (
            CSV + "d.mp4,glad,dev\n",
            r"clips\.csv, line 5: split 'dev', expected one of train, validation, test",
        ),
        (CSV + "d.mp4,,train\n", r"line 5: no value for 'label'; every clip needs one"),
        (CSV + "d.mp4,glad\n", r"line 5: 2 cells, expected 3 \(clip, label, split\)"),
        (CSV.replace("label", "Label", 1), r"no column 'label' in its first line; found clip, Label, split"),
        (CSV.replace("split", "label", 1), "no column 'split'|column 'label' appears twice"),
        (CSV + "d,glad,train\n", r"clips\.csv:5: clip 'd' has no suffix; write .* e\.g\. d\.mp4"),
        (CSV + "../d.mp4,glad,train\n", r"clips\.csv:5: clip '\.\./d\.mp4' is not a plain path"),
        (CSV + "/etc/d.mp4,glad,train\n", "is not a plain path"),
        (CSV + "x\\d.mp4,glad,train\n", "is not a plain path"),
        (
            CSV + "a.mp4,glad,train\n",
            r"1 clip is listed twice in the same split: a \(clips\.csv:2 and .*:5\).*; fix the table$",
        ),
        (
            CSV + "a.mp4,glad,test\n",
            r"clip 'a' is in both train and test \(clips\.csv:2, clips\.csv:5\).*; fix the table$",
        ),
        (CSV + "a.avi,glad,train\n", r"'a\.mp4' and 'a\.avi' differ in their suffix alone"),
        (CSV + "d.mp4,glad,train\n", r"1 of 4 listed clips are not in the source: d\.mp4"),
        (CSV.encode("utf-16"), r"clips\.csv: not UTF-8 but UTF-16; save it again in UTF-8"),
        (b"\xfe\xff" + CSV.encode("utf-16-be"), "not UTF-8 but UTF-16"),
        (
            b"PK\x03\x04\x14\x00",
            r"clips\.csv: is an Excel workbook or a zip .*save the sheet as CSV \(UTF-8\)",
        ),
        (CSV.replace(",", ";"), r"cells are separated by ';'; the separator must be a comma"),
        (CSV.replace(",", "\t"), r"cells are separated by a tab; the separator must be a comma"),
        (
            CSV.replace("clip", "path", 1),
            r"no column 'clip' in its first line; found path, label, split; set"
            r" ingest\.readers\.moods\.columns\.clip to the one that says the clip$",
        ),
        (CSV.replace("split", "subset", 1), r"set ingest\.readers\.moods\.columns\.split to"),
        (CSV + '"d.mp4,glad,train\n', r"line 5: not CSV"),
        ("clip,label,split\n", "lists no clip"),
        ("", "is empty, expected a first line"),
    ],
)
def test_a_faulty_table_is_one_sentence(root, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read(root, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1, 2]", "line 2: a JSON list, expected an object"),
        ('{"clip": ', "line 2: not JSON"),
        ('{"clip": 1.5, "label": 1, "split": "train"}', r"line 2: 'clip' is 1\.5, expected text or a whole"),
        ('{"clip": "a.mp4", "label": true, "split": "train"}', "'label' is True, expected text"),
        (
            '{"clip": "c.mp4", "mood": "glad", "split": "train"}',
            r"line 2: no value for 'label'; every clip needs one; found clip, mood, split; set"
            r" ingest\.readers\.moods\.columns\.label",
        ),
        ('{"clip": "c.mp4", "label": null, "split": "train"}', "no value for 'label'; every clip needs one$"),
    ],
)
def test_a_faulty_jsonl_is_one_sentence(root, line, message):
    text = '{"clip": "a.mp4", "label": "glad", "split": "train"}\n' + line + "\n"
    with pytest.raises(DataError, match=message):
        read(root, text, table="t.jsonl")


def test_a_fold_that_the_table_lacks(root):
    with pytest.raises(DataError, match=r"no clip of fold 3 \(ingest\.fold\); its column 'fold' has 1, 2"):
        read_folds(root, "clip,label,fold\na.mp4,glad,1\nc.mp4,glad,2\n", 3)
    with pytest.raises(DataError, match="line 2: fold '0', expected the number"):
        read_folds(root, "clip,label,fold\na.mp4,glad,0\n", 1)


def test_a_table_that_is_elsewhere(root):
    (root / "other.csv").write_text(CSV)
    with pytest.raises(
        DataError, match=r"no table 'clips\.csv' .*found other\.csv; set ingest\.readers\.moods\.table"
    ):
        read(root)


def read_folds(root, text, fold):
    (root / "clips.csv").write_text(text)
    settings = IngestSettings(
        fold=fold,
        validation_share=0.0,
        expect="full",
        max_excluded_share=0.0,
        readers={"moods": {"reader": "table", "table": "clips.csv", "columns": {"fold": "fold"}}},
    )
    return ingest("moods", pin("moods", str(root), None), None, settings, seed=0)


def test_an_official_csv_is_not_to_be_renamed_but_fetched():
    with pytest.raises(
        DataError, match=r"x\.csv: no column 'a' .*found b, c; use the official file, whose first"
    ):
        csv_rows(b"b,c\n1,2\n", "x.csv", [["a"]])


ELEVEN = "clip,label,split\na.mp4,{},train\nsub/b.avi,{},test\nc.mp4,{},train\n"


@pytest.mark.parametrize(
    ("space", "ids", "fine"),
    [
        ("uses: mafw", (1, 2, 3), False),
        ("uses: mafw", (1, 2, 11), True),
        ("uses: mafw", ("anger", "disgust", "fear"), True),
        ("name: moods\nlabels: [{id: 0, name: a}, {id: 1, name: b}, {id: 2, name: c}]", (1, 2, 1), False),
        ("name: moods\nlabels: [{id: 0, name: a}, {id: 1, name: b}, {id: 2, name: c}]", (0, 2, 1), True),
        (SPACE, (1, 2, 1), True),  # no label has the id 3
    ],
)
def test_ids_that_fit_two_numberings_are_refused(root, tmp_path, space, ids, fine):
    (tmp_path / "data/label_spaces/moods.yaml").write_text(space)
    if fine:
        assert len(read(root, ELEVEN.format(*ids)).rows) == 3
        return
    with pytest.raises(
        DataError,
        match=r"clips\.csv: its label ids are 1\.\.\d, so it may count from 1 or .*write the labels as",
    ):
        read(root, ELEVEN.format(*ids))


def test_a_caption_in_the_wrong_encoding_is_counted_with_its_clip(root):
    text = "clip,label,split,text\na.mp4,glad,train,A cafÃ©\nsub/b.avi,gloomy,test,„Spaß“ – é\n"
    text += "c.mp4,glad,test,\n"
    result = read(root, text, caption="text")
    (check,) = [check for check in result.checks if not check.success]
    assert (check.name, check.severity, check.clips) == ("text_encoding", "warning", ("a",))
    assert any("a (UTF-8 that was read as Latin-1: 'A cafÃ©')" in line for line in result.warnings())


def test_nul_bytes_are_refused(root):
    with pytest.raises(DataError, match=r"clips\.csv: has a NUL byte at 25, so it is damaged or not text"):
        read(root, CSV.replace("glad", "gl\0ad"))


def test_a_jsonl_line_with_two_labels_is_refused(root):
    line = '{"clip": "a.mp4", "label": "glad", "label": "cross", "split": "train"}\n'
    with pytest.raises(DataError, match=r"t\.jsonl, line 1: keys appear twice: label; keep one of each"):
        read(root, line, table="t.jsonl")


def test_half_a_character_in_jsonl_is_refused(root):
    line = '{"clip": "a.mp4", "label": "glad", "split": "train", "text": "\\ud83d"}\n'
    with pytest.raises(DataError, match=r"t\.jsonl, line 1: holds half a character"):
        read(root, line, table="t.jsonl", caption="text")
    whole = line.replace("\\ud83d", "\\ud83d\\ude00")
    assert read(root, whole, table="t.jsonl", caption="text").rows[0].caption == "😀"


def test_subtitles_are_what_the_column_says(root):
    lines = (
        "clip,label,split,said",
        "a.mp4,glad,train,Oh  no!",
        "sub/b.avi,Gloomy,test,",
        "c.mp4,glad,test,",
    )
    text = "\n".join(lines)
    assert [row.subtitle for row in read(root, text, subtitle="said").rows] == ["Oh no!", None, None]
    assert {row.subtitle for row in read(root, text).rows} == {None}
