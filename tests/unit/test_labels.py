from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erv.errors import DataError
from erv.labels import LabelSpace, label_space_faults
from erv.rewards.accuracy import accuracy_reward

MAFW = LabelSpace.load("mafw")
DFEW = LabelSpace.load("dfew")


def test_ids_are_those_of_the_official_files():
    assert list(MAFW.ids.items()) == [
        ("anger", 1),
        ("disgust", 2),
        ("fear", 3),
        ("happiness", 4),
        ("neutral", 5),
        ("sadness", 6),
        ("surprise", 7),
        ("contempt", 8),
        ("anxiety", 9),
        ("helplessness", 10),
        ("disappointment", 11),
    ]
    assert DFEW.names == ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
    assert tuple(DFEW.ids.values()) == (1, 2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("happy", "happiness"),
        (" Happiness.\n", "happiness"),
        ("NO  EMOTION", "neutral"),
        ("unhappy", "sadness"),
        ("danger", None),
        ("very happy", None),
        ("", None),
        (None, None),
    ],
)
def test_a_whole_answer_counts_not_a_part_of_one(text, expected):
    assert MAFW.normalize(text) == expected


@given(st.sampled_from(MAFW.names), st.sampled_from(["{}", " {} ", "{}.", "**{}**", "\t{}\n"]), st.booleans())
def test_case_space_and_punctuation_do_not_matter(name, frame, upper):
    text = frame.format(name)
    assert MAFW.normalize(text.upper() if upper else text) == name


@pytest.mark.parametrize("space", LabelSpace.shipped())
def test_every_map_ends_in_names_of_its_target(space):
    source = LabelSpace.load(space)
    for target in LabelSpace.shipped():
        other = LabelSpace.load(target)
        mapped = {source.to(other)(name) for name in source.names}
        assert mapped <= {*other.names, None}
        assert mapped != {None}


def test_mapping_keeps_what_both_have():
    assert all(MAFW.to(DFEW)(DFEW.to(MAFW)(name)) == name for name in DFEW.names)
    assert MAFW.to("dfew")("contempt") is None
    assert MAFW.to(MAFW)("contempt") == "contempt"
    assert MAFW.to(MAFW)("joy") is None


@pytest.mark.parametrize("label_id", [0, 12])
def test_an_id_out_of_range_is_refused(label_id):
    with pytest.raises(DataError, match=r"not in mafw's range 1\.\.11"):
        MAFW.name_of(label_id)


def test_several_ids_may_mean_one_label(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("name: x\nlabels: [{id: 1, also: [4, 9], name: a, synonyms: ['b?']}, {id: 2, name: c}]")
    space = LabelSpace.load(path)
    assert [space.name_of(number) for number in (1, 4, 9, 2)] == ["a", "a", "a", "c"]
    assert (space.names, dict(space.ids)) == (("a", "c"), {"a": 1, "c": 2})
    with pytest.raises(DataError, match=r"label id 3 is not in x's range 1\.\.9"):
        space.name_of(3)
    assert (space.normalize("B"), space.normalize("?")) == ("a", None), "punctuation is ignored on both sides"


def test_calm_is_neutral_in_ravdess():
    ravdess = LabelSpace.load("ravdess")
    assert (ravdess.name_of(1), ravdess.name_of(2), ravdess.normalize("calm")) == ("neutral",) * 3
    assert ravdess.version == 2


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: x\nlabels: [{id: 2, name: a}, {id: 1, name: b}]", "order of their ids"),
        ("name: x\nlabels: [{id: 1, name: a}, {id: 1, name: b}]", "unique"),
        ("name: x\nlabels: [{id: 1, name: a, also: [2]}, {id: 2, name: b}]", "unique"),
        ("name: x\nlabels: [{id: 1, name: a, also: [3, 3]}]", "unique"),
        ("name: x\nlabels: [{id: 1, name: a, also: 3}]", "label 1 also: expected a list, found 3"),
        ("name: x\nlabels: [{id: 1, name: a, synonyms: [b]}, {id: 2, name: b}]", "'b' names both"),
        ("name: x\nlabels: [{id: 1, name: a, synonyms: [' b.']}, {id: 2, name: b}]", "'b' names both"),
        (
            "name: x\nlabels: [{id: 1, name: a, synonyms: ['']}]",
            "own.yaml: 'a' has the name or synonym '', which has no letter",
        ),
        ("name: x\nlabels: [{id: 1, name: a, synonyms: ['...']}]", "synonym '...', which has no letter"),
        ("name: x\nlabels: [{id: 1, name: ' '}]", "has the name or synonym ' ', which has no letter"),
        ("name: x\nlabels: [{id: 1, name: a}]\nmaps: {mafw: {z: anger}}", "unknown label 'z'"),
        ("labels: 3", "lacks 'name'; expected name, version, labels, maps"),
    ],
)
def test_a_faulty_space_is_refused(tmp_path, text, fault):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=fault):
        LabelSpace.load(path)


def test_an_unknown_space_names_the_known_ones():
    with pytest.raises(DataError, match="dfew, mafw, mafw_compound, ravdess"):
        LabelSpace.load("emotions")
    with pytest.raises(DataError, match=r"write data/label_spaces/fer\.yaml"):
        MAFW.to("fer")


OWN = """
name: own
labels:
  - {id: 0, name: calm}
  - {id: 1, name: serene}
  - {id: 2, name: joy}
maps: {mafw: {calm: neutral, serene: neutral, joy: happiness}}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    folder = tmp_path / "data/label_spaces"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (folder / "own.yaml").write_text(OWN)
    return folder


def test_a_space_of_ones_own_is_found_by_name_and_mapped_both_ways(own):
    space = LabelSpace.load("own")
    assert space.to("mafw")("serene") == "neutral"
    assert [MAFW.to("own")(name) for name in ("neutral", "happiness", "anger")] == ["calm", "joy", None]
    with pytest.raises(DataError, match="'dfew' and 'own' have no map to each other"):
        DFEW.to("own")


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("surprize", "joy ends in 'surprize', no name of mafw; did you mean surprise?"),
        ("Happiness", "joy ends in 'Happiness', no name of mafw; did you mean happiness?"),
        ("delighted", "joy ends in 'delighted', no name of mafw; did you mean happiness?"),
        ("zzz", "joy ends in 'zzz', no name of mafw; expected one of anger, disgust, fear,"),
    ],
)
def test_a_map_must_end_in_a_name_of_its_target(own, there, said):
    """It would count as an emotion of its own, and as one that no policy and no judge can name."""
    (own / "typo.yaml").write_text(
        f"name: typo\nlabels: [{{id: 1, name: joy}}]\nmaps: {{mafw: {{joy: {there}}}}}"
    )
    with pytest.raises(DataError) as caught:
        LabelSpace.load("typo")
    assert str(caught.value).startswith(f"data/label_spaces/typo.yaml: map to mafw: {said}")
    assert label_space_faults(own.parents[1], ["mafw", "own", "gone", "typo"]) == [str(caught.value)]


def test_a_map_to_another_own_space_is_checked_too(own):
    text = "name: {0}\nlabels: [{{id: 1, name: {1}}}]\nmaps: {{{2}: {{{1}: {3}}}}}\n"
    (own / "moods.yaml").write_text(text.format("moods", "glee", "own", "joi"))
    with pytest.raises(
        DataError, match=r"moods\.yaml: map to own: glee ends in 'joi', .* did you mean joy\?"
    ):
        LabelSpace.load("moods")
    (own / "shared.yaml").write_text("uses: mafw")
    (own / "views.yaml").write_text(text.format("views", "glee", "shared", "hapiness"))
    with pytest.raises(DataError, match=r"views\.yaml: map to shared: .* did you mean happiness\?"):
        LabelSpace.load("views")


def test_a_map_to_a_space_that_comes_later_is_checked_when_it_is_used(own, tmp_path):
    text = "name: {0}\nlabels: [{{id: 1, name: {1}}}]\nmaps: {{{2}: {{{1}: {3}}}}}\n"
    (own / "first.yaml").write_text(text.format("first", "glee", "later", "joi"))
    first = LabelSpace.load("first")
    (own / "later.yaml").write_text(text.format("later", "joy", "mafw", "happiness"))
    later = LabelSpace.load("later")
    for one, other in ((first, later), (later, first)):
        with pytest.raises(DataError, match=r"first\.yaml: map to later: glee ends in 'joi'"):
            one.to(other)


def test_a_space_may_share_another(own):
    (own / "films.yaml").write_text("uses: dfew")
    assert LabelSpace.load("films") == DFEW
    (own / "odd.yaml").write_text("uses: films")
    with pytest.raises(DataError, match=r"odd\.yaml: uses 'films', expected a space that comes with"):
        LabelSpace.load("odd")
    (own / "other.yaml").write_text(OWN)
    with pytest.raises(DataError, match=r"`name` is 'own', expected 'other'"):
        LabelSpace.load("other")


def test_compound_emotions_are_named_by_their_parts_in_the_order_of_ids():
    compound = LabelSpace.load("mafw_compound")
    assert len(compound.names) == 43
    assert compound.names[:11] == MAFW.names
    for name in compound.names:
        ids = [MAFW.ids[part] for part in name.split("_")]
        assert ids == sorted(ids)
    assert compound.normalize("anger and disgust") == "anger_disgust"
    assert compound.to(MAFW)("anger_disgust") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("disgust and anger", "anger_disgust"),
        ("anger, disgust", "anger_disgust"),
        ("Angry and Disgusted.", "anger_disgust"),
        ("anger & disgust", "anger_disgust"),
        ("disgust_anger", "anger_disgust"),
        ("contempt, disgust and anger", "anger_disgust_contempt"),
        ("furious", "anger"),
        ("anger, disgust, bored", None),
        ("anger and happiness", None),  # no clip has both
        ("danger, disgust", None),
        ("anger disgust fear", None),
        (" , ", None),
    ],
)
def test_a_list_of_emotions_is_the_compound_of_exactly_these(text, expected):
    compound = LabelSpace.load("mafw_compound")
    assert compound.normalize(text) == expected
    rewards = accuracy_reward(
        [f"<think>x</think><answer>{text}</answer>"], ["anger_disgust"], ["mafw_compound"]
    )
    assert rewards == [1.0 if expected == "anger_disgust" else 0.0]


@pytest.mark.parametrize("text", ["disgust and anger", "angry/mad", "anger, disgust", "and anger"])
def test_a_space_of_single_emotions_reads_no_lists(text):
    assert MAFW.normalize(text) is None
    assert DFEW.normalize(text) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"labels: [{id: 1, name: a}]", ": lacks 'name'; expected name, version, labels, maps"),
        (
            b"name: my2\nlabels: [{id: 1, name: a}, {id: 2}]",
            ": label 2 lacks 'name'; expected id, also, name, synonyms",
        ),
        (
            b"name: my2\nlabels: [{id: 1, nam: a}]",
            ": label 1 lacks 'name' and has an unknown key 'nam'; expected id, also, name, synonyms",
        ),
        (
            b"name: my2\nlabels: [{id: 1, name: a, synonims: [x]}]",
            ": label 1 has an unknown key 'synonims'; expected id, also, name, synonyms",
        ),
        (
            b"name: my2\nlabels: [a]",
            ": label 1 is not a mapping, found 'a'; expected id, also, name, synonyms",
        ),
        (
            b"name: my2\nlabels: [{id: 1, name: no}]",
            ": label 1 name: expected text (what YAML takes for something else, like no or 1, needs quotes),"
            " found False",
        ),
        (b"name: my2\nlabels: [{id: x, name: a}]", ": label 1 id: expected a whole number, found 'x'"),
        (b"name: my2\nlabels: {anger: 1}", ": labels: expected a list, found {'anger': 1}"),
        (b"name: my2\nlabels: []", ": labels: expected at least one, found []"),
        (b"", ": is not a mapping, found None; expected name, version, labels, maps"),
        (b"uses: mafw\nlabels: []", ": has an unknown key 'labels'; expected uses, name, version"),
        (
            b"name: my2\nlabels:\n  - {id: 1, name: a\n  - {id: 2}\n",
            ", line 4, column 5: not YAML: expected ',' or '}', but got '{'; fix that line",
        ),
        (
            b"name: my2\n\tlabels: 3",
            ", line 2, column 1: not YAML: found character '\\t' that cannot start any token; fix that line",
        ),
        (b"name: \xff", ": not UTF-8 (byte 6); save it again in UTF-8"),
    ],
)
def test_a_broken_space_is_one_sentence_with_the_file_as_given(own, content, message):
    (own / "my2.yaml").write_bytes(content)
    with pytest.raises(DataError) as caught:
        LabelSpace.load("my2")
    assert str(caught.value) == f"data/label_spaces/my2.yaml{message}"


def test_a_space_is_looked_up_once_and_own_ones_belong_to_their_folder(tmp_path, monkeypatch):
    """Rewards ask once per completion; a working folder has its own spaces."""
    text = "name: {0}\nlabels:\n  - {{id: 1, name: {1}}}\n"
    for folder, label in (("one", "joy"), ("two", "grief")):
        (tmp_path / folder / "data/label_spaces").mkdir(parents=True)
        (tmp_path / folder / "data/label_spaces/mine.yaml").write_text(text.format("mine", label))
    monkeypatch.chdir(tmp_path / "one")
    assert LabelSpace.load("mine").names == ("joy",)
    assert LabelSpace.load("mafw") is LabelSpace.load("mafw")
    looked: list[str] = []
    monkeypatch.setattr(Path, "is_file", lambda path: looked.append(path.name) or True)
    monkeypatch.setattr(Path, "resolve", lambda path: looked.append(path.name) or path)
    assert (LabelSpace.load("mine").names, LabelSpace.load("mafw").name) == (("joy",), "mafw")
    assert looked == []
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path / "two")
    assert LabelSpace.load("mine").names == ("grief",)
