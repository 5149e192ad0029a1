"""Settings, replies, agreement and majority of teachers; their servers are in tests/integration."""

import warnings

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError
from sklearn.metrics import cohen_kappa_score

from erv.chat import Fault, one_line
from erv.chat.budget import Budget, Tokens
from erv.chat.replies import ReplyCache
from erv.distill.teachers import Refusal, build_teacher
from erv.distill.teachers.agreement import agreement, majority
from erv.distill.teachers.asking import LabelQuestions
from erv.errors import DataError, SettingsError
from erv.labels import LabelSpace
from erv.settings.faults import describe
from erv.settings.teachers import OpenAITeacher, TeacherSettings
from tests.support.runtime import RUNTIME

SPACE = LabelSpace.load("mafw")
QUESTIONS = LabelQuestions(SPACE)
OPENAI = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"}


class Holder(BaseModel):
    teacher: TeacherSettings


def faults(**teacher):
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({"teacher": teacher})
    return "\n".join(describe(item, Holder) for item in caught.value.errors())


@pytest.mark.parametrize(
    ("reply", "labels"),
    [
        ('{"labels": ["anger"]}', ("anger",)),
        (' \n{"labels":["Sad", "ANGRY"]}\n ', ("anger", "sadness")),
        ('{"labels": ["let  down.", "afraid", "joy"]}', ("fear", "happiness", "disappointment")),
        ('{"labels": ["rage", "anger"]}', ("anger",)),
        ('{"labels": ["neutral"]}', ("neutral",)),
        ('{"labels": ["calm", "neutral"]}', ("neutral",)),
        ('```json\n{"labels": ["fear"]}\n```', ("fear",)),
        ('```\n{"labels": ["fear"]}```', ("fear",)),
        ('```JSON {"labels": ["fear"]} ```', ("fear",)),
        ('<think>Is it {"labels": ["anger"]}?</think>\n{"labels": ["fear"]}', ("fear",)),
        ('maybe fear\n</think>\n\n```json\n{"labels": ["fear"]}\n```', ("fear",)),
        ('{"labels": ["\\u0066ear"]}', ("fear",)),
    ],
)
def test_a_well_formed_reply_names_labels_in_the_order_of_the_space(reply, labels):
    assert QUESTIONS.read(reply) == labels


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "it is empty"),
        ("<think>hm</think>  ", "it is empty"),
        ('<think>{"labels": ["fear"]}', "the thinking has no end"),
        ("The sentence shows anger.", "it is not a JSON object alone"),
        ('Sure! {"labels": ["anger"]}', "it is not a JSON object alone"),
        ('{"labels": ["anger"]} I hope this helps', "it is not a JSON object alone"),
        ('{"labels": ["anger"]}{"labels": ["fear"]}', "it is not a JSON object alone"),
        ('{"labels": ["anger"', "it is not a JSON object alone"),
        ("```", "it is not a JSON object alone"),
        ("``````", "it is not a JSON object alone"),
        ('{"labels": [NaN]}', "it is not a JSON object alone"),
        ("1" * 5000, "it is not a JSON object alone"),
        ('["anger"]', "it is not a JSON object with the one key labels"),
        ('{"labels": "anger"}', "it is not a JSON object with the one key labels"),
        ('{"emotions": ["anger"]}', "it is not a JSON object with the one key labels"),
        ('{"labels": ["anger"], "why": "he shouts"}', "it is not a JSON object with the one key labels"),
        ("null", "it is not a JSON object with the one key labels"),
        ('{"labels": []}', "it has 0 labels"),
        ('{"labels": ["anger", "fear", "sadness", "disgust"]}', "it has 4 labels"),
        ('{"labels": [null]}', "a label is not text"),
        ('{"labels": [["anger"]]}', "a label is not text"),
        ('{"labels": ["hangry"]}', "'hangry' is not one of the labels"),
        ('{"labels": ["..."]}', "'...' is not one of the labels"),
        ('{"labels": ["\\ud800"]}', "'' is not one of the labels"),
        ('{"labels": ["neutral", "anger"]}', "neutral stands beside another label"),
    ],
)
def test_anything_else_is_malformed_for_a_reason(reply, why):
    assert QUESTIONS.read(reply).reason.startswith(why)


@pytest.mark.parametrize(
    "reply",
    [
        "[" * 100_000,
        '{"labels":' * 50_000,
        '{"labels": ["' + "a" * 100_000 + '"]}',
        "```" + " " * 100_000 + "x" + " " * 100_000 + "```",
        "<think>" * 20_000,
        "\ud800" * 100_000,
        '{"labels": [' + '"anger",' * 20_000 + '"anger"]}',
        "word " * 20_000,
    ],
)
@pytest.mark.timeout(10)
def test_huge_and_deep_replies_are_malformed_and_can_be_corrected(reply):
    fault = QUESTIONS.read(reply)
    assert isinstance(fault, Fault)
    assert len(fault.reason) < 120
    messages = QUESTIONS.correction(reply, fault.reason)
    assert [message["role"] for message in messages] == ["assistant", "user"]
    assert 0 < len("".join(message["content"] for message in messages).encode()) < 3000
    assert len(one_line(reply)) <= 200


def test_the_question_holds_every_label_and_the_sentence_as_it_is():
    system, user = QUESTIONS.first("He says {names}.\ud800")
    assert all(name in system["content"] for name in SPACE.names)
    assert '{"labels": ["..."]}' in system["content"]
    assert user == {"role": "user", "content": "He says {names}.?"}
    assert QUESTIONS.correction(" ", "it is empty")[0]["content"] == "(nothing)"


def test_one_line_is_printable():
    assert one_line("a\n\tb\x1b[31m\ud800c") == "a b [31m c"
    assert one_line("x" * 300) == "x" * 199 + "…"


def test_settings_name_the_teacher():
    def name(**teacher):
        return Holder.model_validate({"teacher": teacher}).teacher.name

    assert name(kind="reference") == "reference"
    assert name(**OPENAI) == "openai:m"
    assert name(kind="local", model="teachers/small") == "local:teachers/small"
    assert OpenAITeacher(**OPENAI).max_tokens == 5_000_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_url": "api.openai.com/v1"}, "base_url is not an http(s) address"),
        ({"base_url": "ftp://h/v1"}, "base_url is not an http(s) address"),
        ({"base_url": "http://h:99999/v1"}, "base_url is not an http(s) address"),
        ({"base_url": "https://me:hunter2@h/v1"}, "base_url holds a user or a password"),
        ({"base_url": "https://h/v1?api_key=hunter2"}, "base_url has a query"),
        ({"api_key_env": "sk-hunter2"}, "api_key_env is not the name of an environment variable"),
        ({"api_key_env": ""}, "api_key_env is not the name of an environment variable"),
        ({"api_key": "sk-hunter2"}, "teacher.api_key: unknown parameter; did you mean 'api_key_env'?"),
        ({"max_cost": 1.0}, "max_cost needs the prices"),
        ({"max_cost": 1.0, "price_in": 0.1}, "price_in and price_out belong together"),
        ({"max_tokens": None}, "max_tokens and max_cost are both null"),
        (
            {"max_tokens": None, "max_cost": 1, "price_in": 0, "price_out": 0},
            "max_cost never ends a run with prices of 0",
        ),
        ({"temperature": float("nan")}, "teacher.temperature"),
        ({"concurrency": 0}, "teacher.concurrency"),
        ({"model": " "}, "teacher.model"),
    ],
)
def test_faults_of_an_endpoint_say_what_is_wrong_and_show_no_key(change, message):
    said = faults(**(OPENAI | change))
    assert message in said
    assert "hunter2" not in said


@pytest.mark.parametrize("model", ["", "/models/x", "../x", "a/../b", "a\\b", "./a", "a/", "."])
def test_a_local_model_is_a_folder_of_the_source(model):
    assert "teacher.model: expected the name of a folder of the base source" in faults(
        kind="local", model=model
    )


def test_an_unknown_kind_lists_the_known_ones():
    assert faults(kind="claude") == (
        "teacher.kind: unknown kind 'claude'; expected one of reference, openai, local"
    )


def test_a_missing_or_impossible_key_is_named_and_not_shown(monkeypatch, tmp_path):
    settings = OpenAITeacher(**OPENAI, api_key_env="TEACHER_KEY")

    def build():
        return build_teacher(settings, runtime=RUNTIME, folder_of=tmp_path.joinpath, cache=tmp_path / "c")

    monkeypatch.delenv("TEACHER_KEY", raising=False)
    with pytest.raises(SettingsError, match="variable TEACHER_KEY is not set"):
        build()
    monkeypatch.setenv("TEACHER_KEY", "sk-hunter2 \nx")
    with pytest.raises(SettingsError, match="TEACHER_KEY holds blanks") as caught:
        build()
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("TEACHER_KEY", "sk-hunter2\n")
    assert build().name == "openai:m"


A, F, N, S = ("anger",), ("fear",), ("neutral",), ("sadness",)
GONE = Refusal("no_answer", "gone")


def test_agreement_by_hand():
    # Of 4 common sentences both name anger on 1, one on 1, none on 2: observed 3/4, by chance
    # 2/4 * 1/4 + 2/4 * 3/4 = 1/2, so kappa = (3/4 - 1/2) / (1 - 1/2) = 1/2. Neutral likewise.
    one = [A, A, N, N, S, GONE]
    two = [A, N, N, N, GONE, S]
    assert agreement({"one": one, "two": two}, ["anger", "neutral", "sadness"]) == {
        "pairs": [
            {
                "teachers": ["one", "two"],
                "sentences": 4,
                "kappa": 0.5,
                "per_label": {"anger": 0.5, "neutral": 0.5, "sadness": None},
                "exact": 0.75,
            }
        ]
    }


def test_agreement_is_scikit_learns_and_never_warns():
    rng = np.random.default_rng(0)
    verdicts = {
        teacher: [
            tuple(name for name in SPACE.names if rng.random() < 0.3) or ("neutral",) for _ in range(200)
        ]
        for teacher in ("a", "b", "c")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pairs = agreement(verdicts, SPACE.names)["pairs"]
    assert [pair["teachers"] for pair in pairs] == [["a", "b"], ["a", "c"], ["b", "c"]]
    for pair in pairs:
        one, two = (verdicts[teacher] for teacher in pair["teachers"])
        for name, kappa in pair["per_label"].items():
            expected = cohen_kappa_score([name in item for item in one], [name in item for item in two])
            assert kappa == round(expected, 6)
        assert pair["kappa"] == pytest.approx(np.mean(list(pair["per_label"].values())), abs=1e-6)
        assert pair["exact"] == round(np.mean([x == y for x, y in zip(one, two, strict=True)]), 6)


def test_agreement_where_it_is_not_defined():
    pair = agreement({"a": [A, A], "b": [A, A]}, ["anger"])["pairs"][0]
    assert (pair["kappa"], pair["per_label"], pair["exact"]) == (None, {"anger": None}, 1.0)
    pair = agreement({"a": [GONE], "b": [A]}, ["anger"])["pairs"][0]
    assert (pair["sentences"], pair["kappa"], pair["exact"]) == (0, None, None)
    assert agreement({"a": [A]}, ["anger"]) == {"pairs": []}
    with pytest.raises(ValueError, match="shorter"):
        agreement({"a": [A, A], "b": [A]}, ["anger"])


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([A], A),
        ([A, A, F], A),
        ([("anger", "sadness"), ("fear", "sadness"), S], S),
        ([("fear", "sadness"), ("fear", "sadness"), N], ("fear", "sadness")),
        ([("sadness", "disappointment"), ("anger", "sadness"), ("anger", "disappointment")],
         ("anger", "sadness", "disappointment")),
        ([A, F], Refusal("disagreement", "anger; fear")),
        ([A, GONE], Refusal("disagreement", "anger; (no_answer)")),
        ([A, A, GONE, GONE], Refusal("disagreement", "anger; anger; (no_answer); (no_answer)")),
        ([A, A, GONE], A),
    ],
)  # fmt: skip
def test_majority_is_more_than_half_of_all_teachers(verdicts, expected):
    assert majority(verdicts) == expected
    assert majority(verdicts, SPACE.names) == expected


def test_what_a_request_can_take_is_never_less_than_a_token_a_byte():
    budget = Budget(OpenAITeacher(**OPENAI, max_reply_tokens=7, price_in=2, price_out=10))
    messages = QUESTIONS.first("Zoë lächelt.")
    bound = budget.bound(messages)
    assert bound.prompt > sum(len(item["content"].encode()) for item in messages)
    assert bound.reply == 7
    reported = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 900}
    assert budget.reported(reported, bound) == Tokens(3, 2)
    for broken in (None, [], {}, {"prompt_tokens": 3}, {"prompt_tokens": -1, "completion_tokens": 2},
                   {"prompt_tokens": True, "completion_tokens": 2},
                   {"prompt_tokens": 3.0, "completion_tokens": 2}):  # fmt: skip
        assert budget.reported(broken, bound) == bound
    budget.spent = budget.reported({"prompt_tokens": 10**400, "completion_tokens": 0}, bound)
    assert (budget.cost or 0) > 1e9


def test_kept_replies_survive_damage_and_load_no_pickle(tmp_path):
    import pickle
    import sqlite3

    with ReplyCache(tmp_path) as cache:
        for key in "abcd":
            cache.put(key, f"reply {key}", 1, 2)
        assert cache.get("a") == "reply a"
        assert cache.get("z") is None
    database = sqlite3.connect(tmp_path / "cache.db")
    rows = [row for (row,) in database.execute("SELECT rowid FROM Cache ORDER BY rowid")]
    database.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (b"garbage", rows[0]))
    database.execute(
        "UPDATE Cache SET value = ?, mode = 4 WHERE rowid = ?", (pickle.dumps({"reply": "no"}), rows[1])
    )
    database.execute("UPDATE Cache SET value = NULL WHERE rowid = ?", (rows[2],))
    database.commit()
    database.close()
    with ReplyCache(tmp_path) as cache:
        assert [cache.get(key) for key in "abcd"] == [None, None, None, "reply d"]
        cache.put("a", "again", 1, 2)
        assert cache.get("a") == "again"
    (tmp_path / "cache.db").write_bytes(b"not a database" * 1000)
    for file in tmp_path.glob("cache.db-*"):
        file.unlink()
    with pytest.raises(DataError, match=r"stored replies of chat models can't be read.*delete the folder"):
        ReplyCache(tmp_path)


def test_what_stands_for_a_question_depends_on_all_that_decides_the_reply():
    messages = QUESTIONS.first("x")
    keys = {
        ReplyCache.key("http://a:80", "m", messages, 0, 64),
        ReplyCache.key("http://b:80", "m", messages, 0, 64),
        ReplyCache.key("http://a:80", "n", messages, 0, 64),
        ReplyCache.key("http://a:80", "m", QUESTIONS.first("y"), 0, 64),
        ReplyCache.key("http://a:80", "m", messages, 0.5, 64),
        ReplyCache.key("http://a:80", "m", messages, 0, 65),
    }
    assert len(keys) == 6
    assert ReplyCache.key("http://a:80", "m", messages, 0.0, 64) in keys
