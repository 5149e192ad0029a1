"""What can be evaluated, under which name, and which models see other clips than those here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from erv.errors import RegistryError
from erv.policies.common.arm import Arm, write_arm
from erv.register.decoding import serving_settings
from erv.register.evaluation import Subject, _check_decoding, is_model_folder, subject_of_folder
from erv.settings import load_settings
from tests.support.paths import ROOT

SETTINGS = load_settings(ROOT / "params.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Looks like a policy in the format of the Hub."""
    path = tmp_path / "Their Model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


def test_a_policy_of_the_hub_is_the_folder_itself(folder: Path) -> None:
    assert is_model_folder(folder)
    assert not is_model_folder(folder.parent)
    found = subject_of_folder(folder)
    assert (found.title, found.policy, found.serving) == ("Their Model", folder, None)
    assert found.name == f"any-their-model-{found.digest[:8]}"


def test_the_policy_of_a_bundle_is_a_folder_in_it(folder: Path) -> None:
    (folder / "policy").mkdir()
    (folder / "policy/config.json").write_text("{}")
    (folder / "serving.json").write_text(json.dumps(serving_settings(SETTINGS)))
    found = subject_of_folder(folder)
    assert found.policy == folder / "policy"
    assert found.serving is not None


def test_another_content_has_another_digest(folder: Path) -> None:
    before = subject_of_folder(folder).digest
    (folder / "config.json").write_text('{"a": 1}')
    assert subject_of_folder(folder).digest != before


def test_an_arm_is_refused_as_its_weights_are_elsewhere(folder: Path) -> None:
    write_arm(Arm(folder="/elsewhere", digest="0" * 64), folder)
    with pytest.raises(RegistryError, match="is an arm, whose weights are elsewhere"):
        subject_of_folder(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"frames": "many"}'])
def test_what_an_export_has_not_is_refused(folder: Path, content: str) -> None:
    (folder / "serving.json").write_text(content)
    with pytest.raises(RegistryError, match=r"serving\.json: .*export the version again"):
        subject_of_folder(folder)


def test_other_decoding_is_refused_and_unknown_decoding_is_said(tmp_path: Path) -> None:
    serving = serving_settings(SETTINGS)
    said: list[str] = []
    same = Subject("theirs", tmp_path, "0" * 64, serving)
    _check_decoding(same, SETTINGS, said.append)
    _check_decoding(
        replace(same, serving={k: v for k, v in serving.items() if k != "resize"}), SETTINGS, said.append
    )
    assert said == []
    with pytest.raises(RegistryError) as caught:
        _check_decoding(replace(same, serving={**serving, "geometry": "pad"}), SETTINGS, said.append)
    assert str(caught.value).startswith(
        "theirs sees clips with geometry pad, but those here are extracted with extract.geometry: stretch;"
    )
    _check_decoding(replace(same, serving=None), SETTINGS, said.append)
    (line,) = said
    assert line.startswith("theirs: nothing says how clips were decoded for it")
