"""Completions in pieces: kept over a kill, from shared features, the same in any number of processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from erv.completions import answering, features
from erv.completions.completions import complete
from erv.completions.draws import DrawnTokens, draws_of, numbers_of
from erv.completions.kept import JUDGING, generating_code
from erv.completions.pieces import Asked, Decoding, plan
from erv.errors import DataError, EvaluationError
from erv.policies import load_policy
from erv.policies.common.generate import generate_completions
from erv.shards import ShardReader
from tests.support.paths import ROOT
from tests.support.rooms import closure
from tests.support.runtime import RUNTIME
from tests.support.sft_policy import write_base, write_clips

DECODING = Decoding(batch_size=3, max_new_tokens=12, samples=2)


def answers(shards: Path, policy: Path, work: Path, decoding: Decoding = DECODING, **changes):
    reader = ShardReader(shards)
    options = {
        "name": "sft",
        "policy": policy,
        "shards": shards,
        "family": "humanomni",
        "runtime": RUNTIME,
        "root": work / "pieces",
        "features": work / "features",
        "feature_bytes": 10**9,
    }
    clips = [Asked(clip_id, sound=clip_id not in reader.silent) for clip_id in reader.clip_ids]
    return complete(dataset="reasoning", clips=clips, decoding=decoding, **(options | changes))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder)
    return folder / "reasoning"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("policies") / "sft")


@pytest.fixture(scope="module")
def other(policy: Path) -> Path:
    """A policy with the same towers and another language model, as training leaves it."""
    changed = load_policy(policy)
    with torch.no_grad():
        changed.model.model.language_model.layers[0].mlp.up_proj.weight.mul_(1.5)
    changed.save(policy.parent / "erv")
    return policy.parent / "erv"


@pytest.fixture(scope="module")
def whole(shards: Path, policy: Path, tmp_path_factory: pytest.TempPathFactory):
    return answers(shards, policy, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of clips of each run of the towers."""
    runs: list[int] = []
    plainly = answering.encode
    monkeypatch.setattr(answering, "encode", lambda p, clips: runs.append(len(clips)) or plainly(p, clips))
    return runs


def test_they_are_those_of_plain_generation(shards, policy, whole):
    plain = generate_completions(
        load_policy(policy),
        iter(ShardReader(shards)),
        batch_size=1,
        max_new_tokens=12,
        temperature=0.0,
        seed=0,
    )
    assert {clip_id: item.completion for clip_id, item in whole.items()} == plain
    assert len(plain) == 10


def test_clips_are_sorted_by_what_their_prompts_hold():
    clips = [
        Asked("b", instruction="longer"),
        Asked("a", instruction="longer"),
        Asked("c", sound=False),
        Asked("d"),
    ]
    assert [[clip.clip_id for clip in piece.clips] for piece in plan(clips, 3)] == [["c", "d", "a"], ["b"]]
    assert plan([], 3) == []


def test_what_is_kept_is_not_generated_again(shards, policy, whole, tmp_path, monkeypatch):
    assert answers(shards, policy, tmp_path) == whole
    monkeypatch.setattr(answering, "load_policy", None)
    assert answers(shards, policy, tmp_path) == whole
    with pytest.raises(TypeError):
        answers(shards, policy, tmp_path, replace(DECODING, max_new_tokens=11))


def test_pieces_of_other_settings_go_once_theirs_are_complete(shards, policy, tmp_path):
    answers(shards, policy, tmp_path)
    (before,) = (tmp_path / "pieces/sft/reasoning").iterdir()
    answers(shards, policy, tmp_path, replace(DECODING, max_new_tokens=11))
    (after,) = (tmp_path / "pieces/sft/reasoning").iterdir()
    assert before != after
    assert sorted(path.name for path in after.iterdir()) == ["00000", "00001", "00002", "00003"]


@pytest.mark.slow
def test_a_kill_in_the_middle_changes_nothing(shards, policy, whole, tmp_path, encoded):
    command = [sys.executable, "-m", "tests.support.completion_process", shards, policy, tmp_path]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(5):  # three times per piece: the second is half done
            assert process.stdout.readline() == "generated\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    (folder,) = (tmp_path / "pieces/sft/reasoning").iterdir()
    assert [path.name for path in folder.iterdir()] == ["00000"]
    written = (folder / "00000/complete.json").stat().st_mtime_ns
    assert answers(shards, policy, tmp_path) == whole
    assert (folder / "00000/complete.json").stat().st_mtime_ns == written
    assert encoded == [3, 1], "the features of the piece that was half done were kept"


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_damaged_piece_is_answered_again(shards, policy, whole, tmp_path, damage, encoded):
    answers(shards, policy, tmp_path)
    (file,) = (tmp_path / "pieces").glob("sft/reasoning/*/00001/completions.json")
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-5] if damage == "cut" else content.replace(b'"', b"'", 1))
    encoded.clear()
    assert answers(shards, policy, tmp_path) == whole
    assert encoded == [], "its features are kept"
    assert file.read_bytes() == content


def test_policies_with_equal_towers_share_features(shards, policy, other, whole, tmp_path, encoded):
    assert answers(shards, policy, tmp_path) == whole
    assert encoded == [3, 3, 3, 1]
    shared = answers(shards, other, tmp_path, name="erv")
    assert encoded == [3, 3, 3, 1]
    assert shared != whole
    assert answers(shards, other, tmp_path / "apart", name="erv", feature_bytes=0) == shared
    assert len(encoded) == 8
    assert len([path for path in (tmp_path / "features").iterdir() if path.is_dir()]) == 1


def test_other_towers_share_nothing(shards, policy, tmp_path, encoded):
    answers(shards, policy, tmp_path)
    changed = load_policy(policy)
    with torch.no_grad():
        changed.model.model.audio_tower.layer_norm.weight.mul_(1.01)
    changed.save(tmp_path / "policy")
    answers(shards, tmp_path / "policy", tmp_path, name="erv")
    assert encoded == [3, 3, 3, 1] * 2
    assert len([path for path in (tmp_path / "features").iterdir() if path.is_dir()]) == 2


def test_damaged_features_are_encoded_again(shards, policy, other, tmp_path, encoded):
    answers(shards, policy, tmp_path)
    wanted = answers(shards, other, tmp_path / "apart", name="erv")
    for file in (tmp_path / "features").glob("*/*/features.safetensors"):
        content = bytearray(file.read_bytes())
        content[-2] ^= 64
        file.write_bytes(content)
    encoded.clear()
    assert answers(shards, other, tmp_path, name="erv") == wanted
    assert encoded == [3, 3, 3, 1]


def test_the_store_of_features_is_bounded(shards, policy, other, whole, tmp_path, encoded):
    answers(shards, policy, tmp_path)
    sizes = {path: path.stat().st_size for path in (tmp_path / "features").glob("*/*/*.safetensors")}
    most = sum(sizes.values()) - 1
    small = tmp_path / "small"
    assert answers(shards, policy, small, feature_bytes=most) == whole
    left = sum(path.stat().st_size for path in (small / "features").glob("*/*/*.safetensors"))
    assert 0 < left <= most
    assert answers(shards, policy, tmp_path / "none", feature_bytes=1) == whole
    assert not list((tmp_path / "none/features").glob("*/*/*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_say_the_same(shards, policy, whole, tmp_path, processes):
    assert answers(shards, policy, tmp_path, processes=processes) == whole


@pytest.mark.slow
def test_a_killed_process_is_an_error_in_one_sentence(shards, policy, whole, tmp_path, monkeypatch):
    from erv.completions import processes

    monkeypatch.setattr(processes, "_answer", _die)
    with pytest.raises(EvaluationError, match=r"for reasoning was killed, .* machine\.evaluate\.processes"):
        answers(shards, policy, tmp_path, processes=2)
    monkeypatch.undo()
    assert answers(shards, policy, tmp_path) == whole


def _die(piece):
    os.kill(os.getpid(), signal.SIGKILL)


def test_samples_belong_to_their_clip_and_seed(shards, policy, whole, tmp_path):
    other_batches = answers(shards, policy, tmp_path / "batches", replace(DECODING, batch_size=10))
    assert other_batches == whole
    assert all(len(item.samples) == 2 for item in whole.values())
    assert len({text for item in whole.values() for text in item.samples}) > 10
    more = answers(shards, policy, tmp_path / "more", replace(DECODING, samples=3))
    assert {clip_id: item.samples[:2] for clip_id, item in more.items()} == {
        clip_id: item.samples for clip_id, item in whole.items()
    }
    seeded = answers(shards, policy, tmp_path / "seed", replace(DECODING, seed=1))
    assert all(seeded[clip_id].completion == item.completion for clip_id, item in whole.items())
    assert any(seeded[clip_id].samples != item.samples for clip_id, item in whole.items())
    # And so does the first completion, if it is sampled.
    hot = answers(shards, policy, tmp_path / "hot", replace(DECODING, temperature=1.0, samples=0))
    assert hot == answers(
        shards, policy, tmp_path / "hot1", replace(DECODING, temperature=1.0, samples=0, batch_size=1)
    )
    assert any(hot[clip_id].completion != item.completion for clip_id, item in whole.items())


def test_a_token_is_drawn_as_often_as_it_is_probable():
    rows = 4000
    numbers = np.stack([numbers_of(0, "mafw", str(row), 1, 1) for row in range(rows)])
    logits = torch.log(torch.tensor([0.1, 0.6, 0.0, 0.3])).expand(rows, -1)
    drawn = DrawnTokens(numbers, 1.0, 5, [0])(torch.zeros(rows, 5, dtype=torch.long), logits).argmax(-1)
    shares = torch.bincount(drawn, minlength=4) / rows
    assert shares[[0, 2]].tolist() == [0.0, 0.0]
    assert shares[1] == pytest.approx(0.6 / 0.9, abs=0.03)


def test_a_clip_has_its_own_numbers_in_any_batch():
    """Whatever stands beside it, whatever the length of the padded prompts, at each step."""
    clips, steps = ["a", "b", "c", "d"], 6
    logits = torch.randn(len(clips), steps, 50, generator=torch.Generator().manual_seed(0))

    def tokens(order, prompt, sample=0, seed=0, dataset="mafw"):
        drawn = draws_of(
            seed, dataset, order, sample, tokens=steps, temperature=2.0, prompt=prompt, suppressed=[7]
        )
        rows = [clips.index(clip) for clip in order]
        said = [
            drawn(torch.zeros(len(rows), prompt + step, dtype=torch.long), logits[rows, step]).argmax(-1)
            for step in range(steps)
        ]
        return dict(zip(order, torch.stack(said, dim=1).tolist(), strict=True))

    whole = tokens(clips, 5)
    assert tokens(["d", "b"], 9) | tokens(["c"], 3) | tokens(["a"], 5) == whole
    assert all(7 not in said for said in whole.values())
    for other in ({"sample": 1}, {"seed": 1}, {"dataset": "dfew"}):
        assert all(said != whole[clip] for clip, said in tokens(clips, 5, **other).items())


def test_probabilities_that_are_not_finite_are_said():
    drawn = DrawnTokens(np.zeros((1, 1)), 1.0, 1)
    with pytest.raises(EvaluationError, match="probabilities are not finite"):
        drawn(torch.zeros(1, 1, dtype=torch.long), torch.tensor([[float("nan"), 1.0]]))


def test_sound_that_is_lost_is_not_taken_for_silence(shards, policy, tmp_path, monkeypatch):
    plainly = ShardReader.get
    lost = lambda reader, clip_id: replace(plainly(reader, clip_id), audio=np.zeros(0, np.int16))  # noqa: E731
    monkeypatch.setattr(ShardReader, "get", lost)
    with pytest.raises(DataError, match=r"clip 'sample_0000000\d' has no sound, but the prompt would say"):
        answers(shards, policy, tmp_path)


def test_judging_decides_no_completion(monkeypatch):
    monkeypatch.chdir(ROOT)
    modules = {
        f"src/{name.replace('.', '/')}"
        for start in ("completions", "answering", "processes")
        for name in closure(f"erv.completions.{start}", lambda name: False)
    }
    for path in JUDGING:
        if path.startswith("src/erv/settings/"):
            continue  # all sections are read together; completions are asked for none of these
        room = path.removesuffix(".py")
        assert not any(module == room or module.startswith(f"{room}/") for module in modules), path
    assert {"src/erv/completions", "src/erv/policies/common", "src/erv/shards.py"} <= set(generating_code())


def test_a_piece_is_json(shards, policy, tmp_path):
    answers(shards, policy, tmp_path)
    (file,) = (tmp_path / "pieces").glob("sft/reasoning/*/00003/completions.json")
    (row,) = json.loads(file.read_text())
    assert set(row) == {"clip_id", "completion", "samples"}


def test_towers_are_what_loading_leaves_frozen(policy):
    loaded = load_policy(policy)
    frozen = {
        name.split(".")[1] for name, weight in loaded.model.named_parameters() if not weight.requires_grad
    }
    assert frozen == {"vision_tower", "audio_tower"}
    assert features.towers_key(loaded, "") == features.towers_key(load_policy(policy), "")


def test_features_depend_on_buffers_and_threads(policy):
    loaded, threads = load_policy(policy), torch.get_num_threads()
    key = features.towers_key(loaded, "")
    try:
        torch.set_num_threads(threads + 1)
        assert features.towers_key(loaded, "") != key
    finally:
        torch.set_num_threads(threads)
    assert features.towers_key(loaded, "") == key
    loaded.model.register_buffer("shift", torch.ones(2))
    shifted = features.towers_key(loaded, "")
    loaded.model.shift.zero_()
    assert len({key, shifted, features.towers_key(loaded, "")}) == 3
