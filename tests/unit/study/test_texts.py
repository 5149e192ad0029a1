"""What raters read: complete in every language, and a file of your own that is not is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from erv.errors import SettingsError
from erv.labels import LabelSpace
from erv.study.contents import PAGE_WORDS
from erv.study.texts import SHIPPED, read_texts


@pytest.mark.parametrize("space", LabelSpace.shipped())
def test_shipped_texts_have_words_for_every_emotion(space: str) -> None:
    emotions = LabelSpace.load(space).names
    texts, checks = read_texts(("en", "de"), None, emotions)
    assert set(checks) == {"pair", "rating"}
    for language in ("en", "de"):
        shown = texts[language].emotions
        assert list(shown) == list(emotions)
        assert len(set(shown.values())) == len(shown), f"two emotions look the same in {language}"


def test_languages_say_the_same_things() -> None:
    english, german = (yaml.safe_load((SHIPPED / f"{name}.yaml").read_text()) for name in ("en", "de"))
    for part in ("consent", "instructions"):
        assert len(english[part]) == len(german[part])
    for part in ("questions", "checks", "emotions", "page"):
        assert english[part].keys() == german[part].keys()
    assert list(english["page"]) == list(PAGE_WORDS)
    for word in PAGE_WORDS:
        places = [re.findall(r"{\w+}", texts["page"][word]) for texts in (english, german)]
        assert places[0] == places[1]


def test_no_language_promises_what_can_t_be_kept() -> None:
    """Answers are never deleted: the database refuses it. What is true is that they can be left out."""
    for path in sorted(SHIPPED.glob("*.yaml")):
        texts = yaml.safe_load(path.read_text())
        told = [text for text in texts["consent"] if re.search("delet|lösch", text, re.IGNORECASE)]
        assert told, path.name
        assert all(re.search("can't be deleted|kann nicht gelöscht", text) for text in told), path.name
        assert all(texts["page"]["instructions"] in text for text in told), "where the number is shown"
        assert "{number}" in texts["page"]["number"]


def own(folder: Path, **changes: Any) -> str:
    raw = yaml.safe_load((SHIPPED / "en.yaml").read_text()) | changes
    folder.mkdir(exist_ok=True)
    (folder / "fr.yaml").write_text(yaml.safe_dump(raw))
    return str(folder)


def test_a_language_of_your_own(tmp_path: Path) -> None:
    texts, _ = read_texts(("fr",), own(tmp_path, consent=["Bonjour."]), ("anger",))
    assert texts["fr"].consent == ("Bonjour.",)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"questions": {"emotion": "?"}}, "questions lacks preferred"),
        ({"checks": {"pair": "?"}}, "checks lacks rating"),
        ({"page": {"title": "?"}}, "page lacks consent"),
        ({"consent": []}, "consent: Tuple should have at least 1 item"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"emotions": {"fear": "peur"}}, "emotions has no name for 'anger'"),
    ],
)
def test_incomplete_texts_are_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=f"fr.yaml: {re.escape(sentence)}"):
        read_texts(("fr",), own(tmp_path, **changes), ("anger",))


def test_a_language_without_texts_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"study.languages names 'fr', and erv has texts in de, en"):
        read_texts(("fr",), None, ("anger",))
