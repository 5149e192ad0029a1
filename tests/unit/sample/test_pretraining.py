"""Training of towers and projectors: they learn what is there, and give the same bytes twice."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from erv.policies import Policy
from erv.sample.pretraining import LabelledClip, train_towers
from erv.sample.projectors import align_projectors
from erv.sample.tiny_policy import build_tiny_policy
from erv.shards import Clip
from tests.support.sizes import SMALLEST

SIZES = replace(SMALLEST, layers=1)


def clips(count, seed):
    """Anger is bright above and low in pitch, fear is bright below and high in pitch."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        angry = number % 2 == 0
        frames = random.integers(0, 90, (2, 32, 32, 3), dtype=np.uint8)
        frames[:, :16] += np.uint8(120 * angry)
        frames[:, 16:] += np.uint8(120 * (not angry))
        tone = np.sin(np.arange(16000) * 2 * np.pi * (200 if angry else 2000) / 16000)
        audio = (6000 * tone + random.normal(0, 300, 16000)).astype(np.int16)
        clip = Clip(f"{number:03d}", frames, audio, 16000)
        made.append(
            LabelledClip(
                clip,
                "anger" if angry else "fear",
                ("frown",) if angry else ("wide",),
                ("low",) if angry else ("high",),
            )
        )
    return made


def trained():
    torch.set_num_threads(1)
    model, processor = build_tiny_policy(["a b"] * 3, seed=0, sizes=SIZES)
    towers = train_towers(model, processor, clips(16, 0), 0, vision_steps=40, audio_steps=40)
    untouched = [p.clone() for p in model.model.vision_tower.parameters()]
    projectors = align_projectors(model, processor, clips(16, 0), 0, steps=120)
    assert all(map(torch.equal, untouched, model.model.vision_tower.parameters()))
    return Policy(model, processor), (towers, projectors)


@pytest.mark.slow
def test_towers_and_projectors_learn_and_repeat(tmp_path):
    policy, measures = trained()
    for measure in measures:
        shares = measure(clips(20, 1))
        assert shares["vision"] >= 0.9
        assert shares["audio"] >= 0.9
    assert all(p.requires_grad for p in policy.model.model.visual_projector.parameters())
    assert not any(p.requires_grad for p in policy.model.model.vision_tower.parameters())
    again, _ = trained()
    policy.save(tmp_path / "one")
    again.save(tmp_path / "two")
    for path in sorted(p for p in (tmp_path / "one").rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


@pytest.mark.slow
def test_the_untrained_policy_is_the_same_in_every_process(tmp_path):
    """Hash order differs between processes; no vocabulary or weight may follow it."""
    program = (
        "import sys; from pathlib import Path; from erv.policies import Policy\n"
        "from erv.sample.tiny_policy import TinySizes, build_tiny_policy\n"
        "texts = ['the quick brown fox jumps over the lazy dog ' * 3, 'loud voices and wide eyes ' * 3]\n"
        "sizes = TinySizes(vision_width=16, audio_width=16, hidden=32, layers=1, heads=2, mlp=64)\n"
        "Policy(*build_tiny_policy(texts, 0, sizes)).save(Path(sys.argv[1]))\n"
    )
    for name, salt in (("one", "1"), ("two", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": salt, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=True, env=environment)
    for path in sorted(p for p in (tmp_path / "one").rglob("*") if p.is_file()):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes(), path.name
