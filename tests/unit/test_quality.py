import dataclasses
import json

import pytest

from erv.data.ingest import ingest
from erv.data.sources import pin
from erv.errors import DataError
from erv.media import Probe
from erv.quality import probe_clips, require_success, validate
from erv.settings import ValidateSettings

SETTINGS = ValidateSettings(min_seconds=0.5, max_seconds=60.0, max_failed_share=0.1)
GONE = Probe(0.0, 0, 0, 0, False, "container can't be read: nothing there")


@pytest.fixture
def reasoning(corpus):
    lock = pin("reasoning", str(corpus / "reasoning"), None)
    return list(ingest("reasoning", lock, None, fold=1, validation_share=0.1, seed=0).rows)


@pytest.fixture
def probes(reasoning):
    return {row.clip_id: Probe(2.0, 24, 160, 160, True, None) for row in reasoning}


def test_the_sample_passes_and_is_rendered(reasoning, tmp_path):
    verdict = validate("reasoning", reasoning, probe_clips(reasoning, None), SETTINGS, tmp_path / "docs")
    require_success(verdict)
    assert verdict["clips"] == 11
    assert verdict["media"]["seconds"] == pytest.approx(11 * 2.2, rel=0.2)
    assert (tmp_path / "docs/index.html").is_file()
    assert len(list((tmp_path / "docs/validations").rglob("*.html"))) == 1
    assert str(tmp_path) not in json.dumps(verdict)


def test_a_critical_fault_names_the_clip(reasoning, probes):
    reasoning[3] = dataclasses.replace(reasoning[3], label="joy")
    reasoning[4] = dataclasses.replace(reasoning[4], completion="sad")
    verdict = validate("reasoning", reasoning, probes, SETTINGS)
    assert verdict["success"] is False
    assert verdict["expectations"]["label_in_space"]["clips"] == [reasoning[3].clip_id]
    message = rf"label_in_space \(1 clips: {reasoning[3].clip_id}\).*completion_well_formed \(1 clips: "
    with pytest.raises(DataError, match=message):
        require_success(verdict)


def test_broken_media_are_tolerated_up_to_the_share(reasoning, probes):
    probes[reasoning[0].clip_id] = GONE
    verdict = validate("reasoning", reasoning, probes, SETTINGS)
    assert verdict["success"] is True
    assert verdict["expectations"]["media_readable"]["clips"] == [reasoning[0].clip_id]
    assert verdict["media"]["unreadable"] == 1
    probes[reasoning[1].clip_id] = GONE
    with pytest.raises(DataError, match=r"media_readable \(2 clips"):
        require_success(validate("reasoning", reasoning, probes, SETTINGS))


def test_the_same_content_in_two_splits_fails_and_names_the_clips(reasoning, probes):
    reasoning[1] = dataclasses.replace(reasoning[1], sha256=reasoning[0].sha256, split="train")
    reasoning[0] = dataclasses.replace(reasoning[0], split="validation")
    verdict = validate("reasoning", reasoning, probes, SETTINGS)
    names = [reasoning[0].clip_id, reasoning[1].clip_id]
    assert verdict["expectations"]["content_in_one_split"] == {
        "weight": "critical",
        "success": False,
        "failed": 2,
        "clips": sorted(names),
    }
    with pytest.raises(DataError, match=rf"content_in_one_split \(2 clips: {', '.join(sorted(names))}\)"):
        require_success(verdict)


def test_a_warning_does_not_fail(reasoning, probes):
    reasoning[0] = dataclasses.replace(reasoning[0], split="train")
    reasoning[1] = dataclasses.replace(reasoning[1], split="train", sha256=reasoning[0].sha256)
    verdict = validate("reasoning", reasoning, probes, SETTINGS)
    assert verdict["expectations"]["content_unique"] == {
        "weight": "warning",
        "success": False,
        "failed": 2,
        "clips": sorted([reasoning[0].clip_id, reasoning[1].clip_id]),
    }
    require_success(verdict)
