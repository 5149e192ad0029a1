"""The judge of grounding in params.yaml: what it is shown, and whether that may leave this machine."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from erv.errors import SettingsError
from erv.settings import parse_settings
from tests.support.paths import ROOT

JUDGE = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:8000/v1"}


def judge(**changes: Any) -> Any:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["grounding"]["judge"] = JUDGE | changes
    return parse_settings(raw).grounding.judge


def test_it_reads_captions_unless_it_is_to_be_shown_clips() -> None:
    assert (judge().shows, judge(base_url="https://api.openai.com/v1").shows) == ("caption", "caption")
    shown = judge(shows="clip", max_frames=2, max_side=64)
    assert (shown.shows, shown.max_frames, shown.max_side, shown.send_media) == ("clip", 2, 64, ())


@pytest.mark.parametrize(
    "here", ["http://localhost:1/v1", "http://127.0.0.5/v1", "http://[::1]:8000/v1", "http://LOCALHOST/v1"]
)
def test_clips_may_be_shown_on_this_machine(here: str) -> None:
    assert judge(shows="clip", base_url=here).on_this_machine


@pytest.mark.parametrize(
    "far",
    [
        "https://api.openai.com/v1",
        "http://192.168.0.7/v1",
        "http://localhost.example/v1",
        "http://0.0.0.0/v1",
        "http://127.0.0.1.example/v1",
    ],
)
def test_clips_leave_this_machine_only_if_a_data_set_is_named(far: str) -> None:
    with pytest.raises(
        SettingsError, match=r"grounding\.judge: shows: clip would send frames and sound"
    ) as caught:
        judge(shows="clip", base_url=far)
    assert "send_media (those of MAFW and DFEW don't)" in str(caught.value)
    assert judge(shows="clip", base_url=far, send_media=["ravdess"]).send_media == ("ravdess",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shows": "video"}, r"grounding\.judge\.shows: Input should be 'caption' or 'clip', found 'video'"),
        ({"max_frames": 4}, r"grounding\.judge: max_frames: only for shows: clip"),
        ({"send_media": ["mafw"], "max_side": 64}, r"max_side, send_media: only for shows: clip"),
        ({"shows": "clip", "max_frames": 0}, r"grounding\.judge\.max_frames: .* greater than 0"),
        ({"shows": "clip", "max_side": 2000}, r"grounding\.judge\.max_side: .* less than or equal to 512"),
        ({"shows": "clip", "frames": 4}, r"grounding\.judge\.frames: unknown parameter"),
    ],
)
def test_faults_are_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        judge(**changes)
