import dataclasses
import hashlib
import json
import os
import shutil
from collections import Counter

import pytest
from openpyxl import load_workbook

from erv.errors import DataError
from erv.files import write_document
from erv.ingest.ingest import ingest
from erv.ingest.readers.by_name import selection_of
from erv.manifest import read_manifest, read_table, write_manifest
from erv.pinning import pin
from erv.settings import IngestSettings
from tests.support import trees

SINGLE = "Train & Test Set/single/no_caption"
READERS = {
    "mafw": {"reader": "mafw", "set": "single", "listing": "no_caption"},
    "dfew": {"reader": "dfew", "media": "original"},
    "reasoning": {"reader": "reasoning"},
}


def run(dataset, root, fold=1, share=0.1, seed=0, **changes):
    settings = IngestSettings(
        **{
            "fold": fold,
            "validation_share": share,
            "expect": "subset",
            "max_excluded_share": 0.02,
            "readers": READERS,
            **changes,
        }
    )
    return ingest(dataset, pin(dataset, str(root), None), None, settings, seed=seed)


@pytest.fixture
def mafw(corpus, tmp_path):
    return shutil.copytree(corpus / "mafw", tmp_path / "mafw")


@pytest.fixture
def dfew(corpus, tmp_path):
    return shutil.copytree(corpus / "dfew", tmp_path / "dfew")


def test_mafw_fold(corpus, tmp_path):
    result = run("mafw", corpus / "mafw", share=0.0)
    counts = result.counts()
    assert (
        counts.pop("checks/failed") == 6
    )  # the published counts: clips, classes, folds, total, sheets; and empty lists
    assert counts == {
        "clips": 22,
        "clips/train": 11,
        "clips/validation": 0,
        "clips/test": 11,
        "excluded": 0,
        "absent": 0,
        "unlisted": 0,
    }
    for row in result.rows:
        assert (row.caption is None) == (row.caption_from is None) == (row.label == "neutral")
        assert row.uri.endswith(f"data/clips/{row.clip_id}.mp4")
        assert row.media == "video"
        assert row.completion is None
    write_manifest(result.rows, tmp_path / "m.parquet")
    assert tuple(read_manifest(tmp_path / "m.parquet")) == result.rows
    assert read_table(tmp_path / "m.parquet").schema.names[:5] == [
        "clip_id",
        "dataset",
        "fold",
        "split",
        "label",
    ]


def test_each_value_says_where_it_came_from(corpus):
    for row in run("mafw", corpus / "mafw").rows:
        path, _, line = row.label_from.rpartition(":")
        text = (corpus / "mafw" / path).read_text().splitlines()[int(line) - 1]
        assert text == f"{row.clip_id}.mp4 {row.raw_label}"
        assert row.split_from == row.label_from + "; validation cut" * (row.split == "validation")
        if row.caption_from:
            path, _, line = row.caption_from.rpartition(":")
            line_there = (corpus / "mafw" / path).read_text(encoding="gb18030").splitlines()[int(line) - 1]
            assert line_there.split("\t")[::3] == [f"{row.clip_id}.mp4", row.caption]


def test_the_checks_are_written_alike_each_time_and_without_this_machine(corpus, tmp_path):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in files:
        write_document(run("mafw", corpus / "mafw").checks_document(), path)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert str(corpus) not in files[0].read_text()
    document = json.loads(files[0].read_text())
    assert document["counts"]["clips"] == 22
    assert document["folds"]["1"]["test"]["anger"] == 1
    assert {check["name"]: check["success"] for check in document["checks"]}["sheet_labels"] is True


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """MAFW with 2 to 118 training clips of a label."""
    root = tmp_path_factory.mktemp("many")
    trees.write_mafw(root, 0.05, captioned=False, compound=False)
    return root


def test_validation_is_cut_from_train_alone_and_moves_with_the_seed(many):
    first, second = run("mafw", many, share=0.5), run("mafw", many, share=0.5, seed=1)
    split = {row.clip_id: row.split for row in first.rows}
    test = {row.clip_id for row in run("mafw", many, share=0.0).rows if row.split == "test"}
    assert {name for name, where in split.items() if where == "test"} == test
    assert split != {row.clip_id: row.split for row in second.rows}


@pytest.mark.parametrize("share", [0.1, 0.35, 0.5, 0.99])
def test_each_label_gives_its_share_to_validation_and_keeps_a_clip(many, share):
    counts = Counter((row.label, row.split) for row in run("mafw", many, share=share).rows)
    for label in {label for label, _ in counts}:
        held, left = counts[label, "validation"], counts[label, "train"]
        assert left >= 1
        assert abs(held - share * (held + left)) <= 0.5 or left == 1


def test_the_validation_clips_of_a_label_are_those_with_the_lowest_hash(many):
    rows = run("mafw", many, share=0.35).rows
    for label in {row.label for row in rows}:
        digests = {
            split: [
                hashlib.sha256(f"0:mafw:{row.clip_id}".encode()).digest()
                for row in rows
                if (row.label, row.split) == (label, split)
            ]
            for split in ("validation", "train")
        }
        assert max(digests["validation"], default=b"") < min(digests["train"])


def test_a_clip_more_moves_at_most_one_clip_of_its_label(many, tmp_path):
    """A clip that is listed but absent is one fewer."""
    rows = run("mafw", many, share=0.3).rows
    before = {row.clip_id: row.split for row in rows}
    gone = [row for row in rows if row.split != "test"][::40]
    assert len(gone) > 5
    for row in gone:
        lacking = tmp_path / row.clip_id
        shutil.copytree(many, lacking, copy_function=os.link)
        (lacking / f"data/clips/{row.clip_id}.mp4").unlink()
        after = {item.clip_id: item for item in run("mafw", lacking, share=0.3).rows}
        moved = [item for clip, item in after.items() if item.split != before[clip]]
        assert len(moved) <= 1
        assert {item.label for item in moved} <= {row.label}


def test_dfew_in_both_layouts(corpus, dfew):
    official = run("dfew", corpus / "dfew")
    assert {row.label for row in official.rows} == {
        "happy",
        "sad",
        "neutral",
        "angry",
        "surprise",
        "disgust",
        "fear",
    }
    label = dfew / "label"
    label.mkdir()
    for split in ("train", "test"):
        source = dfew / f"EmoLabel_DataSplit/{split}(single-labeled)/set_1.csv"
        padded = [line.split(",") for line in source.read_text().splitlines()]
        lines = [",".join(padded[0]), *(f"{int(name):05d},{value}" for name, value in padded[1:])]
        (label / f"single_{split}set_1.csv").write_text("\n".join(lines))
    shutil.rmtree(dfew / "EmoLabel_DataSplit")
    (dfew / "Clip/original").rename(dfew / "clip")
    other = run("dfew", dfew)
    assert [(r.clip_id, r.label, r.split, r.sha256) for r in other.rows] == [
        (r.clip_id, r.label, r.split, r.sha256) for r in official.rows
    ]


def test_reasoning_in_both_shapes(corpus, tmp_path):
    emer = run("reasoning", corpus / "reasoning")
    assert {row.split for row in emer.rows} <= {"train", "validation"}
    assert {row.fold for row in emer.rows} == {0}
    row = emer.rows[0]
    assert row.completion.startswith("<think>")
    assert row.completion.endswith(f"</think>\n<answer>{row.label}</answer>")
    other = shutil.copytree(corpus / "reasoning", tmp_path / "json")
    (other / "EMER.csv").unlink()
    items = [
        {
            "video": f"/data/{r.clip_id}.mp4",
            "conversations": [{"from": "human"}, {"from": "gpt", "value": r.completion}],
        }
        for r in emer.rows
    ]
    (other / "train.json").write_text(json.dumps(items))
    assert [(r.clip_id, r.label, r.completion) for r in run("reasoning", other).rows] == [
        (r.clip_id, r.label, r.completion) for r in emer.rows
    ]


def test_a_listed_clip_that_is_missing_is_named(mafw):
    gone = sorted((mafw / "data/clips").iterdir())[3]
    gone.unlink()
    with pytest.raises(DataError, match=rf"1 of 22 listed clips are not in .*{gone.name}"):
        run("mafw", mafw, expect="full")
    result = run("mafw", mafw)
    assert result.absent == (f"data/clips/{gone.name}",)
    assert (result.counts()["clips"], result.counts()["absent"]) == (21, 1)
    assert any(gone.name in line for line in result.warnings())


def test_a_source_with_none_of_the_listed_clips_is_refused(mafw):
    for index, path in enumerate(sorted((mafw / "data/clips").iterdir())):
        path.rename(path.with_name(f"9{index:04d}.mp4"))
    with pytest.raises(
        DataError, match=r"none of the 22 clips in the lists of fold 1 is there; .*e\.g\. 'data/clips/"
    ):
        run("mafw", mafw)


def test_a_clip_that_no_split_lists_is_counted(mafw):
    (mafw / "data/clips/99999.mp4").write_bytes(b"x")
    result = run("mafw", mafw)
    assert result.unlisted == ("data/clips/99999.mp4",)
    assert result.counts()["unlisted"] == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"00001.mp4 joy\r\n", r"train\.txt, line 12: '00001\.mp4 joy' is not"),
        (b"00001 anger\r\n", r"is not `NNNNN\.mp4 label`"),
        ("00001.mp4 生气\r\n".encode("gb18030"), "not ASCII"),
    ],
)
def test_a_malformed_split_is_refused_with_its_line(mafw, line, message):
    path = mafw / SINGLE / "set_1/train.txt"
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(DataError, match=message):
        run("mafw", mafw)


def test_a_clip_in_both_splits_is_refused(mafw):
    train, test = (mafw / SINGLE / f"set_1/{name}.txt" for name in ("train", "test"))
    train.write_bytes(train.read_bytes() + test.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(DataError, match=r"in both train and test of fold 1 \(.*train\.txt:12, .*test.*:1\)"):
        run("mafw", mafw)


def test_a_renumbered_sheet_is_refused(mafw):
    path = mafw / "Labels/single-set.xlsx"
    book = load_workbook(path)
    for row in book.active.iter_rows(min_row=2):
        row[12].value = row[12].value % 11 + 1
    book.save(path)
    with pytest.raises(DataError, match="label ids do not agree"):
        run("mafw", mafw)


def test_captions_in_another_encoding_are_refused(mafw):
    path = mafw / "Train & Test Set/single/with_caption/set_1/train.txt"
    path.write_bytes(b"00001.mp4\tanger\t\xff\xff\tx\r\n")
    with pytest.raises(DataError, match="not GB18030"):
        run("mafw", mafw)


def test_a_zero_based_file_is_refused(dfew):
    path = dfew / "EmoLabel_DataSplit/train(single-labeled)/set_1.csv"
    lines = path.read_text().splitlines()
    shifted = [lines[0], *(f"{n},{int(v) - 1}" for n, v in (line.split(",") for line in lines[1:]))]
    path.write_text("\n".join(shifted))
    with pytest.raises(DataError, match=r"line \d+: label id 0 is not in dfew's range 1\.\.7"):
        run("dfew", dfew)


def test_what_a_source_lacks_is_named(mafw, dfew):
    shutil.rmtree(mafw / SINGLE / "set_1")
    with pytest.raises(DataError, match="train split of fold 1 not found"):
        run("mafw", mafw)
    shutil.rmtree(dfew / "Clip")
    with pytest.raises(DataError, match="no video below"):
        run("dfew", dfew)


def test_an_explanation_with_a_foreign_label_counts_as_excluded(corpus, tmp_path):
    root = shutil.copytree(corpus / "reasoning", tmp_path / "r")
    table = root / "EMER.csv"
    table.write_text(table.read_text().replace(",anger,", ",sarcasm,", 1))
    with pytest.raises(DataError, match=r"1 of 11 listed clips \(9\.1%\).*1 x its label 'sarcasm'.*sample_"):
        run("reasoning", root)
    result = run("reasoning", root, max_excluded_share=0.1)
    assert result.counts()["clips"] == 10
    (item,) = result.excluded
    assert item.listed_in.startswith("EMER.csv:")
    assert result.checks_document()["excluded"] == [dataclasses.asdict(item)]
    assert any("sarcasm" in line for line in result.warnings())


def test_all_failed_checks_are_reported_at_once(mafw):
    sorted((mafw / "data/clips").iterdir())[3].unlink()
    test = mafw / SINGLE / "set_2/test.txt"
    content = test.read_bytes()
    test.write_bytes(content + content.splitlines(keepends=True)[0])
    with pytest.raises(DataError) as caught:
        run("mafw", mafw, expect="full")
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("checks failed:")
    names = {line.split(":")[0].removeprefix("- ") for line in lines[1:]}
    assert names == {
        "listed_once",
        "listed_but_absent",
        "published_clips",
        "published_classes",
        "published_folds",
        "published_total",
        "published_sheets",
        "lists_filled",
        "test_smaller_than_train",
    }


def test_a_data_set_without_a_reader_is_named(corpus):
    with pytest.raises(DataError, match=r"'other' has no reader; add ingest\.readers\.other .*dfew, mafw"):
        run("other", corpus / "mafw")


def test_a_source_pinned_for_other_reader_settings_is_refused(corpus):
    settings = IngestSettings(
        fold=1, validation_share=0.1, expect="subset", max_excluded_share=0.02, readers=READERS
    )
    lock = pin("dfew", str(corpus / "dfew"), None, selection=selection_of(settings.readers["dfew"]))
    assert ingest("dfew", lock, None, settings, seed=0).rows
    other = settings.readers["dfew"].model_copy(update={"media": "frames"})
    changed = settings.model_copy(update={"readers": {"dfew": other}})
    with pytest.raises(DataError, match=r"pinned with other settings than ingest\.readers\.dfew has now"):
        ingest("dfew", lock, None, changed, seed=0)
