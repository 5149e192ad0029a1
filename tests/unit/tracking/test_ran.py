"""What a run notes of how it ran: hardware, precision, libraries, the weights of its policy."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from erv.tracking import ran
from erv.tracking.ran import note_trained, policy_tags, ran_tags

SOUND = {"feature_size": 128, "sampling_rate": 16000, "n_fft": 400, "hop_length": 160, "chunk_length": 30}


@pytest.fixture(autouse=True)
def _nothing_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ran, "_noted", {})


def test_it_names_what_is_installed_and_the_processor() -> None:
    found = ran_tags("cpu", "float32")
    assert found["erv.ran.precision"] == "float32"
    assert found["erv.ran.libraries"].startswith(f"Python {platform.python_version()}, ")
    assert f"torch {metadata.version('torch')}" in found["erv.ran.libraries"]
    assert found["erv.ran.hardware"].endswith(" cores")
    assert "erv.ran.trained_parameters" not in found


def test_only_weights_that_train_are_counted() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    model[0].requires_grad_(False)
    note_trained(model.parameters())
    assert ran_tags("cpu", "float32")["erv.ran.trained_parameters"] == "10"


def test_the_weights_of_all_files_of_a_policy_are_counted(tmp_path: Path) -> None:
    for name, shape in (("model-1", (3, 4)), ("model-2", (5,))):
        save_file({name: torch.zeros(shape)}, tmp_path / f"{name}.safetensors", metadata={"format": "pt"})
    (tmp_path / "adapter").mkdir()
    save_file({"merged": torch.zeros(100)}, tmp_path / "adapter/adapter_model.safetensors")
    assert policy_tags(tmp_path) == {"erv.ran.parameters": "17"}


@pytest.mark.parametrize("name", ["processor_config.json", "preprocessor_config.json"])
def test_sound_features_are_those_of_the_processor(tmp_path: Path, name: str) -> None:
    nested = {"feature_extractor": SOUND, "image_size": 224}
    (tmp_path / name).write_text(json.dumps(nested if name.startswith("processor") else SOUND))
    assert policy_tags(tmp_path) == {
        "erv.ran.sound_features": "log-mel, 128 bands at 16000 Hz, window 400, step 160, 30 s"
    }


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_damaged_folder_says_nothing_it_does_not_know(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "processor_config.json").write_bytes(content)
    assert policy_tags(tmp_path).get("erv.ran.parameters") in (None, "0")
    assert policy_tags(tmp_path / "missing") == {}
