"""distill: what becomes of each sentence, whoever labels it."""

import json
from dataclasses import replace

import pytest
import yaml

from erv.distill.corpus import (
    Sentence,
    explanation_sentences,
    loose_sentences,
    read_corpus,
    rollout_sentences,
)
from erv.distill.distill import distill
from erv.distill.table import write_sentences
from erv.distill.teachers import Refusal, Usage
from erv.errors import DataError, SettingsError
from erv.pinning import pinning
from erv.sentences import normalize, read_sentences
from erv.settings import parse_settings
from tests.support.sentences import DISTILL, labelled, rows_and_sheet


class Scripted:
    """A teacher with scripted answers, chosen by the first word of a sentence."""

    usage = Usage()

    def __init__(self, name, says):
        self.name, self.says, self.asked = name, says, []

    def label(self, sentences):
        self.asked += sentences
        return [self.says[text.split()[0]] for text in sentences]


def table(distilled):
    return distilled.sentences.to_pylist()


def test_every_sentence_is_kept_and_splits_go_by_text():
    rows, sheet = rows_and_sheet()
    found = distill(explanation_sentences(rows[::-1], sheet), {"reference": None}, DISTILL, seed=0)
    records = table(found)
    assert len(records) == 3 * len(rows)
    assert found.quarantine.num_rows == 0
    assert [row["clip_id"] for row in records] == sorted(row["clip_id"] for row in records)
    splits = {}
    for row in records:
        splits.setdefault(normalize(row["sentence"]), set()).add(row["split"])
    assert len(records) > 3 * len(splits)  # texts do repeat
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}
    assert records[0] == {
        "sentence": "The small room is plain.",
        "labels": ["neutral"],
        "source": "reasoning",
        "teacher": "reference",
        "split": records[0]["split"],
        "clip_id": "sample_00000000",
    }
    assert table(labelled(seed=1)) != records


def test_the_summary_counts_texts_once():
    found = labelled()
    summary, records = found.summary, table(found)
    texts = {normalize(row["sentence"]): row for row in records}
    assert summary["sentences"] == len(records) > summary["texts"] == len(texts)
    assert sum(summary["splits"].values()) == len(texts)
    assert sum(summary["balance"]["anger"].values()) == sum(
        "anger" in row["labels"] for row in texts.values()
    )
    assert summary["balance"]["disgust"] == {"train": 0, "validation": 0, "test": 0}
    assert summary["teachers"] == {"reference": {"labelled": len(records), "refused": 0}}
    assert summary["sources"] == {"reasoning": len(records)}
    assert summary["agreement"] == []
    assert summary["quarantined"] == {}
    json.dumps(summary, allow_nan=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda sheet: sheet.replace("is plain", "is dark", 1),
            "sample_00000000.*sentence 0",
        ),
        (lambda sheet: "\n".join(sheet.splitlines()[:-1]), "sample_00000119.*3 sentences, 2 labelled"),
        (lambda sheet: sheet + "sample_00009999,0,Nobody.,neutral\n", "sample_00009999.*manifest"),
        (lambda sheet: sheet.replace(",neutral", ",bored", 1), "sample_00000000.*'bored'"),
        (lambda sheet: sheet.replace("name,index", "clip,index", 1), "lacks the columns name"),
        (lambda sheet: sheet.replace(",0,", ",²,", 1), "has index '²', expected a number"),
        (lambda sheet: sheet.replace(",0,", f",{'9' * 5000},", 1), "expected a number"),
        (lambda sheet: sheet.replace("00000000,0", "00000000,one", 1), "index 'one', expected a number"),
    ],
)
def test_reference_labels_that_do_not_fit_are_refused(change, message):
    rows, sheet = rows_and_sheet()
    with pytest.raises(DataError, match=message):
        explanation_sentences(rows, change(sheet))


def test_sentences_without_a_clip():
    content = '\ufeffsentence,labels\n  He is   not angry. ,neutral\n"Sad, and angry.",Sad;anger;sadness\n'
    found = loose_sentences(content, labelled=True)
    assert found == [
        Sentence("He is not angry.", "sentences", "", ("neutral",)),
        Sentence("Sad, and angry.", "sentences", "", ("sadness", "anger")),
    ]
    assert [item.labels for item in loose_sentences("sentence\nOne.\n", labelled=False)] == [None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,labels\na,anger\n", "sentences.csv: lacks the columns sentence"),
        ("sentence\nOne.\n", "sentences.csv: lacks the columns labels"),
        ("sentence,labels\n ,anger\n", "sentences.csv, line 2: has no sentence"),
        ("sentence,labels\nOne.,anger\nTwo.,bored\n", "line 3: has the labels 'bored'"),
        ("sentence,labels\nOne.\n", "line 2: has the labels ''"),
        (
            "sentence,labels\nHe frowns, anger, she says.\n",
            "line 2: more cells than the 2 columns; put text with a comma in quotes",
        ),
    ],
)
def test_sentences_that_can_not_be_used_name_their_line(content, message):
    with pytest.raises(DataError, match=message):
        loose_sentences(content, labelled=True)


def test_a_source_is_read_whole_and_says_what_it_lacks(tmp_path):
    rows, sheet = rows_and_sheet(4)
    (tmp_path / "sentences.csv").write_text("sentence,labels\nHe is not angry.,neutral\n")
    lock = pin(tmp_path)
    with pytest.raises(DataError, match=r"has no sentence_labels.csv, which the teacher reference reads"):
        read_corpus(lock, None, rows, labelled=True)
    unlabelled = read_corpus(lock, None, rows, labelled=False)
    assert len(unlabelled) == 13
    assert {item.labels for item in unlabelled} == {None}
    (tmp_path / "sentence_labels.csv").write_text(sheet)
    found = read_corpus(pin(tmp_path), None, rows, labelled=True)
    assert found[-1] == Sentence("He is not angry.", "sentences", "", ("neutral",))
    (tmp_path / "sentence_labels.csv").write_bytes(b"name,index\xff")
    with pytest.raises(DataError, match=r"sentence_labels.csv: not UTF-8 \(byte 10\)"):
        read_corpus(pin(tmp_path), None, rows, labelled=True)


def test_a_source_without_explanations_may_have_sentences(tmp_path):
    bare = [replace(row, completion=None) for row in rows_and_sheet(4)[0]]
    (tmp_path / "list.txt").write_text("of clips")
    assert read_corpus(pin(tmp_path), None, bare, labelled=True) == []
    (tmp_path / "sentences.csv").write_text("sentence,labels\nHe is not angry.,neutral\n")
    (only,) = read_corpus(pin(tmp_path), None, bare, labelled=True)
    assert only == Sentence("He is not angry.", "sentences", "", ("neutral",))
    with pytest.raises(DataError, match=r"clip '\S+': has no explanation to label"):
        read_corpus(pin(tmp_path), None, [*bare[1:], rows_and_sheet(4)[0][0]], labelled=False)


def test_nothing_to_label_says_where_sentences_come_from():
    with pytest.raises(DataError, match=r"roles\.cold_start has no explanations, .* no sentences\.csv"):
        distill([], {"reference": None}, DISTILL, seed=0)


def pin(folder):
    return pinning.pin("reasoning", str(folder), None)


def test_a_teacher_that_refuses_sends_the_sentence_to_quarantine():
    corpus = [Sentence(f"Good {i}.", "reasoning", "c") for i in range(19)] + [
        Sentence("Bad.", "rollouts", "d")
    ]
    teacher = Scripted("openai:m", {"Good": ("happiness",), "Bad.": Refusal("malformed", "I think so")})
    found = distill(corpus, {"openai:m": teacher}, DISTILL, seed=0)
    assert found.sentences.num_rows == 19
    assert set(found.sentences.column("teacher").to_pylist()) == {"openai:m"}
    assert found.quarantine.to_pylist() == [
        {
            "sentence": "Bad.",
            "source": "rollouts",
            "clip_id": "d",
            "teacher": "openai:m",
            "reason": "malformed",
            "detail": "I think so",
        }
    ]
    assert found.summary["quarantined"] == {"malformed": 1}
    assert found.summary["teachers"] == {"openai:m": {"labelled": 19, "refused": 1}}
    with pytest.raises(
        DataError, match=r"10 of 20 sentences got no labels \(malformed 10\), at most 10%.*'Bad."
    ):
        distill(corpus[:10] + corpus[-1:] * 10, {"openai:m": teacher}, DISTILL, seed=0)


def test_several_teachers_decide_by_majority_and_agreement_is_measured():
    corpus = [Sentence(text, "reasoning", "c", ("anger",)) for text in ["A 1.", "B 1.", "A 2.", "B 2."] * 5]
    teachers = {
        "reference": None,
        "openai:m": Scripted("openai:m", {"A": ("anger",), "B": ("fear",)}),
        "local:t": Scripted("local:t", {"A": ("anger", "fear"), "B": ("anger", "sadness")}),
    }
    found = distill(corpus, teachers, DISTILL, seed=0)
    assert {tuple(row["labels"]) for row in table(found)} == {("anger",)}
    assert {row["teacher"] for row in table(found)} == {"majority of reference, openai:m, local:t"}
    pairs = {tuple(pair["teachers"]): pair for pair in found.summary["agreement"]}
    assert len(pairs) == 3
    assert pairs["reference", "openai:m"]["exact"] == 0.5
    assert pairs["reference", "openai:m"]["per_label"]["anger"] == 0.0  # reference says it of every sentence
    disagreeing = {"openai:m": teachers["openai:m"], "reference": None}
    with pytest.raises(DataError, match=r"10 of 20 sentences got no labels \(disagreement 10\)"):
        distill(corpus, disagreeing, DISTILL, seed=0)


def test_rollouts_are_sentences_without_labels():
    found = rollout_sentences([("c", "One. Two."), ("d", "Three")])
    assert [(item.text, item.source, item.clip_id, item.labels) for item in found] == [
        ("One.", "rollouts", "c", None),
        ("Two.", "rollouts", "c", None),
        ("Three", "rollouts", "d", None),
    ]


def test_the_table_needs_all_three_splits(tmp_path):
    found = labelled()
    write_sentences(found.sentences, tmp_path / "s.parquet")
    assert read_sentences(tmp_path / "s.parquet")[0] == "The small room is plain."
    one = distill([Sentence("Only one.", "reasoning", "c", ("anger",))], {"reference": None}, DISTILL, seed=0)
    with pytest.raises(DataError, match=r"no sentence fell into the .* split"):
        write_sentences(one.sentences, tmp_path / "one.parquet")
    assert not (tmp_path / "one.parquet").exists()
    with pytest.raises(DataError, match="there is no sentence to label"):
        distill([], {"reference": None}, DISTILL, seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teachers": []}, r"distill: teachers is empty; name at least one"),
        ({"teachers": "reference"}, r"distill.teachers: expected a list, found 'reference'"),
        (
            {"teachers": [{"kind": "reference"}, {"kind": "reference"}]},
            "names one twice: reference, reference",
        ),
        ({"teachers": [{"kind": "oracle"}]}, "oracle"),
    ],
)
def test_settings_of_distill_that_contradict_themselves(root, changes, message):
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["distill"] |= changes
    with pytest.raises(SettingsError, match=message):
        parse_settings(params)


def test_a_fault_of_a_teacher_shows_no_secret(root):
    params = yaml.safe_load((root / "params.yaml").read_text())
    teacher = {
        "kind": "openai",
        "model": "m",
        "base_url": "http://me:hunter2@x/v1",
        "api_key_env": "sk-hunter2",
    }
    params["distill"]["teachers"] = [teacher]
    with pytest.raises(SettingsError) as caught:
        parse_settings(params)
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).startswith(
        "params.yaml: 1 fault\n  - distill.teachers.0: api_key_env is not the name"
    )
