"""What a served version makes of a row: the question, the space of its answer, and clips without sound."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from erv.answering.clips import ClipInput, ServedClips
from erv.answering.predictor import Predictor
from erv.errors import DataError
from erv.labels import LabelSpace
from erv.policies.common import generate
from erv.prompts import Prompt, format_completion, read_prompt
from erv.register.model_content import model_content
from tests.support.tiny_bundle import SERVING, write_bundle, write_clip

SHIPPED = read_prompt("data/prompts/labels.txt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    (folder / "bundle").mkdir()
    write_bundle(folder / "bundle")
    write_clip(folder / "good.mp4")
    write_clip(folder / "silent.mp4", sound=False)
    return folder


@pytest.fixture
def bundle(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "bundle", tmp_path / "bundle"))


def say(bundle: Path, prompt: Prompt = SHIPPED, **serving: Any) -> None:
    """Changes what a bundle is asked, and what it says of itself."""
    path = bundle / "policy/processor_config.json"
    content = {**json.loads(path.read_text()), "instruction": prompt.text, "system": prompt.system}
    path.write_text(json.dumps(content))
    (bundle / "serving.json").write_text(json.dumps({**SERVING, **serving}))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the policy was asked about last, by the number of the row."""
    seen: dict[str, Any] = {}
    real: Callable[..., dict[str, str]] = generate.generate_completions

    def watched(policy: Any, clips: Iterable[Any], **options: Any) -> dict[str, str]:
        clips = list(clips)
        seen.clear()
        seen.update({clip.clip_id: options["asked"].get(clip.clip_id) for clip in clips})
        seen["sound"] = [clip.has_audio for clip in clips]
        return real(policy, clips, **options)

    monkeypatch.setattr(generate, "generate_completions", watched)
    return seen


def rows(folder: Path, bundle: Path, *items: ClipInput) -> list[dict[str, Any]]:
    return Predictor(bundle, ServedClips(folder)).predict(items)


def test_a_row_is_asked_what_evaluation_asked(folder: Path, bundle: Path, asked: dict[str, Any]) -> None:
    """The lines with the emotions and with what is said were left out."""
    say(bundle, datasets={"dfew": None})
    silent, said = rows(
        folder, bundle, ClipInput("good.mp4"), ClipInput("good.mp4", None, "dfew", "You came!")
    )
    assert silent["error"] is said["error"] is None
    names = LabelSpace.load("dfew").names
    assert asked["0"] == SHIPPED.ask(names)
    assert asked["1"] == SHIPPED.ask(names, "You came!")


def test_a_row_that_can_not_be_asked_costs_itself_only(
    folder: Path, bundle: Path, asked: dict[str, Any]
) -> None:
    say(bundle, datasets={"dfew": None, "mafw": None})
    found = rows(
        folder,
        bundle,
        ClipInput("good.mp4"),
        ClipInput("good.mp4", dataset="ravdess"),
        ClipInput("good.mp4", dataset="mafw", subtitle="<video> you came"),
        ClipInput("good.mp4", dataset="mafw", subtitle=1.5),
        ClipInput("good.mp4", dataset="mafw"),
    )
    errors = [row["error"] for row in found]
    assert "name one of them in the field dataset" in errors[0]
    assert "not with 'ravdess'" in errors[1]
    assert errors[2] == "the subtitle has a placeholder for frames or sound, such as <video>; take it out"
    assert "the subtitle is not a text" in errors[3]
    assert errors[4] is None
    assert list(asked) == ["4", "sound"]


def test_a_version_that_does_not_say_what_it_was_tested_with_is_not_asked(folder: Path, bundle: Path) -> None:
    say(bundle)
    (row,) = rows(folder, bundle, ClipInput("good.mp4"))
    assert "the version does not say which it was tested with" in row["error"]
    say(bundle, Prompt("Who?\n{subtitle}"))
    (row,) = rows(folder, bundle, ClipInput("good.mp4"))
    assert row["error"] is None


def test_its_own_label_space_is_asked_and_read(
    folder: Path, bundle: Path, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team's own name for an emotion gave no agreement."""
    (bundle / "label_spaces").mkdir()
    (bundle / "label_spaces/team.yaml").write_text(
        "name: team\nlabels:\n  - {id: 0, name: delight}\nmaps: {mafw: {delight: happiness}}\n"
    )
    say(bundle, datasets={"team": "label_spaces/team.yaml"})
    predictor = Predictor(bundle, ServedClips(folder))
    assert predictor.predict([ClipInput("good.mp4")])[0]["error"] is None
    assert "Choose one of: delight." in asked["0"]

    text = format_completion("She smiles.", "delight")
    monkeypatch.setattr(generate, "generate_completions", lambda *_, **__: {"0": text})
    assert isinstance(predictor.predict([ClipInput("good.mp4")])[0]["agreement"], float)
    say(bundle, Prompt(), datasets={"mafw": None})
    assert rows(folder, bundle, ClipInput("good.mp4"))[0]["agreement"] is None


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ({"missing_audio": "mark"}, None),
        (
            {"missing_audio": "quarantine"},
            "no sound track; clips without sound were left out when this version was made"
            " (extract.missing_audio: quarantine), so it answers none",
        ),
        (
            {},
            "no sound track; this version does not say that it was made with such clips, so it answers none",
        ),
    ],
)
def test_clips_without_sound_are_answered_if_they_were_evaluated(
    folder: Path, bundle: Path, asked: dict[str, Any], recorded: dict[str, str], said: str | None
) -> None:
    """They were refused by a sentence about training that was not true."""
    say(bundle, Prompt(), **recorded)
    silent, good = rows(folder, bundle, ClipInput("silent.mp4"), ClipInput("good.mp4"))
    assert silent["error"] == said
    assert good["error"] is None
    assert isinstance(silent["completion"], str) == (said is None)
    assert asked["sound"] == ([False, True] if said is None else [True])


def test_a_policy_that_does_not_think_has_no_agreement(folder: Path, bundle: Path) -> None:
    """Its empty explanation agreed with nothing, 0.0, where evaluation leaves such figures out."""
    say(bundle, Prompt(), datasets={"mafw": None})
    (bundle / "policy/arm.json").write_text('{"thinks": false}')
    (row,) = rows(folder, bundle, ClipInput("good.mp4"))
    assert row["completion"].startswith("<think></think>")
    assert row["agreement"] is None


def test_the_signature_and_the_example_have_what_a_question_needs(bundle: Path, tmp_path: Path) -> None:
    say(bundle, datasets={"mafw": None, "dfew": None})
    content = model_content(bundle, tmp_path / "code")
    assert content["signature"].inputs.input_names() == ["clip", "content", "dataset", "subtitle"]
    assert list(content["input_example"].columns) == ["clip", "dataset", "subtitle"]
    assert set(content["input_example"]["dataset"]) == {"dfew"}
    say(bundle, Prompt(), datasets={"mafw": None})
    assert list(model_content(bundle, tmp_path / "other")["input_example"].columns) == ["clip"]


def test_a_fault_of_the_model_is_no_fault_of_a_row(
    folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(bundle, datasets={"mafw": None})
    predictor = Predictor(bundle, ServedClips(folder))

    def broken(*_: Any, **__: Any) -> list[int]:
        raise DataError("/srv/model: its chat template can't be rendered")

    monkeypatch.setattr(predictor.policy.processor, "prompt_ids", broken)
    with pytest.raises(DataError, match="chat template"):
        predictor.predict([ClipInput("good.mp4")])
