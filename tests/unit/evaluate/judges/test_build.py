"""The panel that the settings describe."""

import shutil
import subprocess
import sys

import pytest

from erv.errors import DataError, EvaluationError, SettingsError
from erv.evaluate.judges.build import build_judges, model_folders
from erv.evaluate.judges.panel import verdicts_of
from erv.files import temporary_name
from erv.labels import LabelSpace
from erv.pinning import pin
from erv.settings import parse_settings
from erv.settings.judges import OpenAIJudge
from tests.support.runtime import RUNTIME

TEXTS = b"text,label\nShe is angry.,anger\nHe is sad.,sadness\n"


def panel(raw, *entries):
    raw["evaluate"]["judges"] = list(entries)
    return parse_settings(raw).evaluate.judges


@pytest.fixture
def raw(root):
    import yaml

    return yaml.safe_load((root / "params.yaml").read_text())


def test_judges_come_in_the_order_of_the_settings(raw, encoder_at, tmp_path):
    shutil.copytree(encoder_at, tmp_path / "base/sentence_encoder")
    shutil.copytree(encoder_at, tmp_path / "base/own/encoder")
    base = pin("base", str(tmp_path / "base"), None)
    entries = [{"kind": "lexical"}, {"kind": "embedding", "model": "own/encoder"}, {"kind": "embedding"}]
    with model_folders(base, None, tmp_path / "kept") as folder_of:
        judges = build_judges(panel(raw, *entries), runtime=RUNTIME, texts=lambda: TEXTS, folder_of=folder_of)
    assert [judge.name for judge in judges] == ["lexical", "embedding:own/encoder", "embedding"]
    (said,) = verdicts_of(judges, ["She looks angry."], LabelSpace.load("mafw"))
    assert [verdict["emotion"] for verdict in said] == ["anger"] * 3
    assert not list((tmp_path / "kept").rglob("*.safetensors")), "the copies are removed"


def test_copies_that_a_killed_process_left_are_removed(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base/x").write_text("x")
    base = pin("base", str(tmp_path / "base"), None)
    code = "from erv.files import temporary_name as n; from pathlib import Path; print(n(Path('copy')))"
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    copies = tmp_path / "kept/incoming/models"
    left, running = copies / ended.stdout.strip(), temporary_name(copies / "copy")
    for folder in (left, running):
        folder.mkdir(parents=True)
    with model_folders(base, None, tmp_path / "kept") as folder_of:
        assert not left.exists()
        assert running.exists(), "another evaluation reads from it"
        with pytest.raises(DataError, match="has nothing below 'gone'"):
            folder_of("gone")


def test_texts_that_are_not_utf_8_are_refused(raw):
    with pytest.raises(EvaluationError, match=r"judge texts\.csv: not UTF-8 \(byte 0\)"):
        build_judges(
            panel(raw, {"kind": "lexical"}), runtime=RUNTIME, texts=lambda: b"\xff", folder_of=lambda _: _
        )


@pytest.mark.parametrize(
    ("judges", "said"),
    [
        ([], "judges is empty; name at least one"),
        ([{"kind": "lexical"}] * 2, "judges names one twice: lexical, lexical"),
        (
            [{"kind": "verifier"}],
            "unknown kind 'verifier'; expected one of lexical, embedding, openai, local",
        ),
        ([{"kind": "embedding", "model": "../policy"}], "expected the name of a folder of the base source"),
        ([{"kind": "openai", "model": "m", "base_url": "x"}], "base_url is not an http"),
        ([{"kind": "local", "model": "m", "mode": "free"}], "open"),
    ],
)
def test_faulty_settings_are_refused(raw, judges, said):
    with pytest.raises(SettingsError) as caught:
        panel(raw, *judges)
    assert said in str(caught.value)


def test_the_address_of_a_judge_is_part_of_its_digest_in_any_spelling(tmp_path):
    def digest(url):
        settings = OpenAIJudge(kind="openai", model="m", base_url=url, api_key_env=None)
        (judge,) = build_judges(
            [settings], runtime=None, texts=lambda: b"", folder_of=lambda name: tmp_path, replies=tmp_path
        )
        return judge.describe()["digest"]

    here = digest("http://127.0.0.1:80/v1")
    assert digest("HTTP://127.0.0.1/v1/") == here
    others = (
        "https://127.0.0.1:80/v1",
        "http://127.0.0.2/v1",
        "http://127.0.0.1:81/v1",
        "http://127.0.0.1/v2",
    )
    assert here not in {digest(other) for other in others}
