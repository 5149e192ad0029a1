import json

import pytest

from erv.errors import DataError
from erv.ingest.ingest import ingest
from erv.ingest.readers.by_name import selection_of
from erv.pinning import pin
from erv.prompts import parse_completion
from erv.sentences import split_sentences
from erv.settings import IngestSettings
from tests.support import trees

NAMES = ["sample_1", "sample_2", "sample_3"]
V1 = 'names,emotions,subtitles,reasons\nsample_1,angry,"a, b","He frowns.\nHe shouts."\n'
V1 += "sample_2,sadness,,She weeps.\nsample_3,Worried,,He paces.\n"
V2 = "name,chinese,english\nsample_1,愤怒,He frowns.\nsample_2,悲伤,She weeps.\nsample_3,担心,He paces.\n"


def settings(share=0.0, expect="full"):
    return IngestSettings(
        fold=3,
        validation_share=0.0,
        expect=expect,
        max_excluded_share=share,
        readers={"reasoning": {"reader": "reasoning"}},
    )


def read(root, **changes):
    chosen = settings(**changes)
    lock = pin("reasoning", str(root), None, selection=selection_of(chosen.readers["reasoning"]))
    return ingest("reasoning", lock, None, chosen, seed=0)


def put(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_csv", ".csv").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def turns(text):
    return [{"from": "human", "value": "<video>\n<audio>\nwhich?"}, {"from": "gpt", "value": text}]


@pytest.fixture
def root(tmp_path):
    trees.write_videos(tmp_path / "video", NAMES)
    return tmp_path


def rows(result):
    return [(row.clip_id, row.label, row.raw_label, row.completion) for row in result.rows]


EXPECTED = [
    ("sample_1", "anger", "<think>He frowns.</think>\n<answer>anger</answer>"),
    ("sample_2", "sadness", "<think>She weeps.</think>\n<answer>sadness</answer>"),
    ("sample_3", "anxiety", "<think>He paces.</think>\n<answer>anxiety</answer>"),
]


def test_emer_v1_with_quotes_and_line_breaks(root):
    result = read(put(root, EMER_csv=V1))
    assert rows(result)[0] == (
        "sample_1",
        "anger",
        "angry",
        "<think>He frowns.\nHe shouts.</think>\n<answer>anger</answer>",
    )
    assert [(row.clip_id, row.label, row.completion) for row in result.rows][1:] == EXPECTED[1:]
    assert [row.label_from for row in result.rows] == ["EMER.csv:2", "EMER.csv:4", "EMER.csv:5"]
    assert [row.subtitle for row in result.rows] == ["a, b", None, None]
    assert {(row.fold, row.split) for row in result.rows} == {(0, "train")}
    assert {row.split_from for row in result.rows} == {"no official split: all clips are for training"}


@pytest.mark.parametrize("column", ["name", "names"])
def test_emer_v2_takes_its_labels_from_beside_it(root, column):
    put(root, dataset__gt_csv=V2.replace("name,", f"{column},", 1))
    with pytest.raises(
        DataError, match=r"dataset/gt\.csv: EMER v2 has no label column; put labels\.csv beside"
    ):
        read(root)
    put(root, dataset__labels_csv="name,label\nsample_3,worry\nsample_2.mp4,sad\nsample_1,angry\n")
    result = read(root)
    assert [(row.clip_id, row.label, row.completion) for row in result.rows] == EXPECTED
    assert result.rows[2].label_from == "dataset/labels.csv:2"
    put(root, dataset__labels_csv="name,label\nsample_2,sad\nsample_1,angry\n")
    assert [(i.clip_id, i.reason) for i in read(root, share=0.5).excluded] == [("sample_3", "no label")]
    put(root, dataset__labels_csv="name,label\nsample_2,sad\nsample_2,angry\n")
    with pytest.raises(DataError, match=r"labels\.csv: names appear twice: sample_2"):
        read(root)


def test_an_english_table_is_preferred_to_a_chinese_one(root):
    put(root, v1__gt_eng_csv=b"", v1__gt_chi_csv=b"")
    (root / "v1/gt-eng.csv").write_text(V1)
    (root / "v1/gt-chi.csv").write_text(V1.replace("He ", "他"))
    for path in root.glob("v1/gt_*"):
        path.unlink()
    result = read(root)
    assert len(result.rows) == 3
    assert "v1/gt-chi.csv left aside" in result.checks[0].found


def test_r1_omni_of_both_kinds(root):
    items = [
        {"video": f"D:\\data\\{name}.mp4", "conversations": turns(text)}
        for name, text in zip(
            NAMES,
            [
                "<think>He frowns.</think>\n<answer>angry</answer>",
                "<think>She weeps.</think>\n<answer>sad</answer>",
                "anxious",
            ],
            strict=True,
        )
    ]
    put(root, cold_start_json=json.dumps(items))
    with pytest.raises(DataError, match=r"1 of 3 listed clips \(33\.3%\).*1 x no explanation: a bare label"):
        read(root)
    result = read(root, share=0.4)
    assert [(row.clip_id, row.label, row.completion) for row in result.rows] == EXPECTED[:2]
    assert result.rows[1].label_from == "cold_start.json[1]"
    assert [(i.clip_id, i.listed_in) for i in result.excluded] == [("sample_3", "cold_start.json[2]")]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"video": "a.mp4", "conversations": []}, r"x\.json\[1\]: not \{video, conversations"),
        ({"conversations": turns("sad")}, r"x\.json\[1\]: not"),
        ([1], r"x\.json\[1\]: not"),
        ({"video": 3, "conversations": turns("sad")}, "video and the last value must be text"),
    ],
)
def test_a_malformed_item_is_named(root, item, message):
    first = {"video": "sample_1.mp4", "conversations": turns("<think>a</think><answer>sad</answer>")}
    put(root, x_json=json.dumps([first, item]))
    with pytest.raises(DataError, match=message):
        read(root)


def merr(**changes):
    labels, texts = ("angry", "sad", "worried"), ("He frowns.", "She weeps.", "He paces.")
    return {
        name: {
            "AU_list": ["AU04"],
            "pseu_emotion": label,
            "smp_reason_caption": text,
            "text": "hm",
            **changes,
        }
        for name, label, text in zip(NAMES, labels, texts, strict=True)
    }


def test_merr_fine_is_preferred_to_coarse(root):
    coarse = {
        name: {"pseu_emotion": item["pseu_emotion"], "caption": "Coarse words."}
        for name, item in merr().items()
    }
    put(root, MERR_coarse_grained_json=json.dumps(coarse))
    assert "<think>Coarse words.</think>" in read(root).rows[0].completion
    put(root, MERR_fine_grained_json=json.dumps(merr()))
    result = read(root)
    assert [(row.clip_id, row.label, row.completion) for row in result.rows] == EXPECTED
    assert result.rows[0].label_from == "MERR_fine_grained.json['sample_1']"
    assert "MERR_coarse_grained.json left aside" in result.checks[0].found


def test_merr_text_beside_the_json_is_compared(root):
    put(root, MERR_fine_grained_json=json.dumps(merr()))
    (root / "MERR_fine_grained.txt").write_text("sample_1 50 angry\n")
    assert all(check.success for check in read(root).checks)
    (root / "MERR_fine_grained.txt").write_text("sample_1 angry\n")
    assert any("has another shape and was not compared" in line for line in read(root).warnings())
    (root / "MERR_fine_grained.txt").write_text("sample_1 50 angry\n\nsample_2 20 happy\n")
    with pytest.raises(
        DataError, match=r"sample_2 \(sad in .*json\['sample_2'\], happy in MERR_fine_grained\.txt:3\)"
    ):
        read(root)


def test_what_cannot_be_trained_on_is_counted_by_reason(root):
    document = merr()
    document["sample_1"]["pseu_emotion"] = "doubt"
    document["sample_2"]["smp_reason_caption"] = "  "
    document["sample_3"]["smp_reason_caption"] = "So <answer>sad</answer>."
    put(root, MERR_fine_grained_json=json.dumps(document))
    with pytest.raises(DataError) as caught:
        read(root)
    for sentence in (
        "3 of 3 listed clips (100.0%) can't be used",
        "1 x its label 'doubt' is not an emotion of label space mafw (sample_1)",
        "1 x no explanation (sample_2)",
        "1 x its explanation holds a think or answer tag (sample_3)",
    ):
        assert sentence in str(caught.value)


def test_shares_are_of_what_is_there(root):
    """An unusable explanation of a clip that the source lacks is one that is absent."""
    document = merr()
    document |= {f"gone_{i}": {**document["sample_1"], "pseu_emotion": "doubt"} for i in range(20)}
    result = read(put(root, MERR_fine_grained_json=json.dumps(document)), expect="subset")
    assert len(result.rows) == 3
    assert result.excluded == result.unlisted == ()
    assert len(result.absent) == 20


def test_an_excluded_clip_is_in_a_list(root):
    document = merr()
    document["sample_1"]["pseu_emotion"] = "doubt"
    result = read(put(root, MERR_fine_grained_json=json.dumps(document)), share=0.5)
    assert [item.clip_id for item in result.excluded] == ["sample_1"]
    assert result.unlisted == ()


def test_a_table_that_changed_is_said_to_have(root):
    put(root, EMER_csv=V1)
    chosen = settings()
    lock = pin("reasoning", str(root), None, selection=selection_of(chosen.readers["reasoning"]))
    put(root, EMER_csv=V1.replace("He frowns", "He smiles"))
    with pytest.raises(DataError, match=r"EMER\.csv: content has changed.*erv data pin"):
        ingest("reasoning", lock, None, chosen, seed=0)


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mov", ".webm", ".MP4"])
def test_videos_are_found_anywhere_by_their_stem(tmp_path, suffix):
    trees.write_videos(tmp_path / "a/b", NAMES, suffix)
    result = read(put(tmp_path, deep__EMER_csv=V1))
    assert all(row.uri.endswith(f"a/b/{row.clip_id}{suffix}") for row in result.rows)


def test_two_videos_of_one_name_are_refused(root):
    trees.write_videos(root / "other", ["sample_2"], ".avi")
    with pytest.raises(
        DataError, match=r"1 listed names fit several videos: other/sample_2\.avi and video/samp"
    ):
        read(put(root, EMER_csv=V1))


def test_a_clip_without_its_video(root):
    (root / "video/sample_2.mp4").unlink()
    with pytest.raises(DataError, match=r"1 of 3 listed clips are not in the source: sample_2\.mp4"):
        read(put(root, EMER_csv=V1))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no table of explanations in .*found video/; set sources\.reasoning"),
        ({"x_json": "{}", "y_csv": "a,b\n"}, r"no table of explanations .*found x\.json, y\.csv"),
        ({"x_json": '[{"video": '}, r"\(x\.json: not JSON"),
        (
            {"EMER_csv": V1, "b_json": json.dumps(merr())},
            r"several tables .*EMER\.csv \(EMER v1\), b\.json \(MERR",
        ),
        ({"EMER_csv": "names,emotions,subtitles,reasons\n"}, "EMER.csv: lists no clip"),
        ({"EMER_csv": V1 + "sample_4,sad\n"}, r"EMER\.csv, line 6: 2 cells, expected 4"),
        (
            {"EMER_csv": V1 + "sample_2,sad,,Again.\n"},
            r"listed twice in the same split: sample_2 \(EMER\.csv:4",
        ),
        ({"x_json": '{"a": {"pseu_emotion": "sad"}, "a": {}}'}, "keys appear twice: a"),
        (
            {"x_json": '{"a": {"pseu_emotion": "sad"}, "b": 3}'},
            r"x\.json\['b'\]: not an object with pseu_emotion",
        ),
    ],
)
def test_other_shapes_are_refused(root, files, message):
    with pytest.raises(DataError, match=message) as caught:
        read(put(root, **files))
    assert "\n" not in str(caught.value)


def test_line_breaks_of_an_explanation_stay_because_they_end_sentences(root):
    text = V1.replace('"He frowns.\nHe shouts."', '"- brows  drawn\r\n\r\n- a raised voice"')
    explanation = parse_completion(read(put(root, EMER_csv=text)).rows[0].completion).explanation
    assert explanation == "- brows drawn\n- a raised voice"
    assert split_sentences(explanation, semantics="strict") == ["- brows drawn", "- a raised voice"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<think>a</think><answer>sad</answer><answer>angry</answer>", "2 answer tags in one text"),
        ("<think>a</think><think>b</think><answer>sad</answer>", "2 think tags in one text"),
        ("<think>so <Answer>sad</Answer></think><answer>angry</answer>", "2 answer tags in one text"),
        ("<think>a</think><answer>sad</answer> or angry", "text outside its think and answer tags"),
    ],
)
def test_two_answers_in_one_item_are_excluded_and_counted(root, text, reason):
    items = [
        {"video": "sample_1.mp4", "conversations": turns("<think>He frowns.</think>\n<answer>sad</answer>")},
        {"video": "sample_2.mp4", "conversations": turns(text)},
    ]
    put(root, x_json=json.dumps(items))
    with pytest.raises(DataError, match=rf"1 x {reason}.*sample_2"):
        read(root)
    assert [row.clip_id for row in read(root, share=0.5).rows] == ["sample_1"]


def test_answers_in_two_turns_are_excluded(root):
    said = turns("<think>a</think><answer>sad</answer>")
    put(root, x_json=json.dumps([{"video": "sample_1.mp4", "conversations": [*said, *said]}]))
    with pytest.raises(DataError, match="1 x an answer in several turns, expected one"):
        read(root)


def of_folders(*folders, name="sample_1"):
    texts = ("<think>One.</think><answer>sad</answer>", "<think>Two.</think><answer>angry</answer>")
    return json.dumps(
        [
            {"video": f"{folder}{name}.mp4", "conversations": turns(text)}
            for folder, text in zip(folders, texts, strict=False)
        ]
    )


def test_equal_names_in_two_folders_are_two_clips(tmp_path):
    for folder in ("a", "b"):
        trees.write_videos(tmp_path / "video" / folder, ["sample_1"])
    put(tmp_path, x_json=of_folders("D:\\data\\b\\", "D:\\data\\a\\"))
    result = read(tmp_path)
    assert [(row.clip_id, row.label, row.uri.rpartition("/video/")[2]) for row in result.rows] == [
        ("a/sample_1", "anger", "a/sample_1.mp4"),
        ("b/sample_1", "sadness", "b/sample_1.mp4"),
    ]


def test_a_row_of_another_folder_does_not_get_the_clip_of_its_namesake(tmp_path):
    trees.write_videos(tmp_path / "video/a", ["sample_1"])
    put(tmp_path, x_json=of_folders("b/", "a/"))
    result = read(tmp_path, expect="subset")
    assert [(row.clip_id, row.label) for row in result.rows] == [("a/sample_1", "anger")]
    assert result.absent == ("b/sample_1.mp4",)


def test_a_folder_that_does_not_tell_two_videos_apart_is_refused(tmp_path):
    for folder in ("x/a", "y/a"):
        trees.write_videos(tmp_path / folder, ["sample_1"])
    with pytest.raises(DataError, match=r"1 listed names fit several videos: x/a/sample_1\.mp4 and y/a/"):
        read(put(tmp_path, x_json=of_folders("a/")))


def test_the_folder_picks_one_of_two_videos(tmp_path):
    for folder in ("a", "b"):
        trees.write_videos(tmp_path / folder, ["sample_1"])
    (row,) = read(put(tmp_path, x_json=of_folders("data/b/"))).rows
    assert (row.clip_id, row.uri.endswith("/b/sample_1.mp4")) == ("sample_1", True)


@pytest.mark.parametrize("second", ["doubt", "angry"])
def test_a_clip_with_two_rows_is_refused_even_if_one_of_them_is_unusable(root, second):
    text = V1 + f"sample_1.mp4,{second},,Again.\n"
    with pytest.raises(DataError, match=r"sample_1 \(EMER\.csv:2 and EMER\.csv:6\)"):
        read(put(root, EMER_csv=text), share=0.5)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("A cafÃ©.", "UTF-8 that was read as Latin-1"),
        ("She doesnâ€™t smile.", "UTF-8 that was read as Latin-1"),
        ("She isn‚Äôt happy.", "UTF-8 that was read as Mac Roman"),
        ("A caf√©.", "UTF-8 that was read as Mac Roman"),
        ("She isn&#39;t happy.", "characters as HTML writes them"),
        ("She frowns &amp; sighs.", "characters as HTML writes them"),
        (r"- She frowns.\n- She sighs.", "characters that were escaped twice"),
        (r"She isn\u2019t happy.", "characters that were escaped twice"),
        ("He is \ufffd.", "characters that could not be decoded"),
        ("He is\x92 sad.", "control characters"),
    ],
)
def test_an_explanation_in_the_wrong_encoding_is_excluded_and_counted(root, text, what):
    document = merr()
    document["sample_2"]["smp_reason_caption"] = text
    put(root, MERR_fine_grained_json=json.dumps(document))
    with pytest.raises(DataError, match=rf"1 x its explanation holds {what} \(sample_2\)"):
        read(root)


def test_half_a_character_is_refused(root):
    document = json.dumps(merr()).replace("He frowns.", "He \\ud83d frowns.")
    with pytest.raises(DataError, match=r"json: holds half a character \(the escape .ud83d"):
        read(put(root, MERR_fine_grained_json=document))
