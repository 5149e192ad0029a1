"""Arms that are only evaluated: what is recorded of them, how they load, how they answer without thinking."""

import json
import shutil
from pathlib import Path

import pytest

from erv.arms.arms import record_arm
from erv.errors import DataError, TrainingError
from erv.policies import load_policy
from erv.policies.common.arm import FILE, Arm, read_arm
from erv.policies.common.generate import generate_completions
from erv.policies.common.policy import stored_prompt
from erv.prompts import DIRECT_BEGINNING, Prompt, parse_completion
from erv.shards import ShardReader
from tests.support.tiny_grpo import CLIPS, write_cold_start, write_shards


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cold_start(tmp_path_factory.mktemp("policies") / "sft")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    return ShardReader(write_shards(tmp_path_factory.mktemp("shards") / "mafw"))


def answers(folder: Path, reader: ShardReader) -> dict[str, str]:
    clips = [reader.get(clip_id) for clip_id in (CLIPS[0], CLIPS[-1])]
    options = {"batch_size": 2, "max_new_tokens": 6, "temperature": 0.0, "seed": 0}
    return generate_completions(load_policy(folder, family="humanomni"), clips, **options)


def test_an_arm_answers_as_the_policy_that_it_stands_for(
    policy: Path, reader: ShardReader, tmp_path: Path
) -> None:
    arm = record_arm(policy, tmp_path / "other", family="humanomni", thinks=True)
    assert read_arm(tmp_path / "other") == arm
    assert {path.name for path in (tmp_path / "other").iterdir()} == {FILE, "config.json"}
    assert answers(tmp_path / "other", reader) == answers(policy, reader)


def test_an_arm_may_answer_without_thinking(policy: Path, reader: ShardReader, tmp_path: Path) -> None:
    record_arm(policy, tmp_path / "direct", family="humanomni", thinks=False)
    loaded, plain = load_policy(tmp_path / "direct"), load_policy(policy)
    given = plain.processor.tokenizer(DIRECT_BEGINNING, add_special_tokens=False)["input_ids"]
    for audio in (True, False):
        prompt = plain.processor.prompt_ids(audio=audio)
        assert loaded.processor.prompt_ids(audio=audio) == [*prompt, *given]
    said = answers(tmp_path / "direct", reader)
    assert said != answers(policy, reader)
    for text in said.values():
        assert text.startswith(DIRECT_BEGINNING)
        assert not parse_completion(text).explanation


@pytest.mark.parametrize("thinks", [True, False])
def test_an_arm_is_asked_what_its_policy_is_asked(policy: Path, tmp_path: Path, thinks: bool) -> None:
    """`evaluate` and `controls` ask by the folder of the arm, which holds no question of its own."""
    own = shutil.copytree(policy, tmp_path / "own")
    config = json.loads((own / "processor_config.json").read_text())
    prompt = Prompt("Which of {labels}?", "Be brief.")
    stored = {"instruction": prompt.text, "system": prompt.system}
    (own / "processor_config.json").write_text(json.dumps(config | stored))
    record_arm(own, tmp_path / "arm", family="humanomni", thinks=thinks)
    assert stored_prompt(tmp_path / "arm") == stored_prompt(own) == prompt
    assert load_policy(tmp_path / "arm").processor.prompt == prompt
    record_arm(policy, tmp_path / "plain", family="humanomni", thinks=thinks)
    assert stored_prompt(tmp_path / "plain") == Prompt()


def test_the_digest_is_that_of_the_files(policy: Path, tmp_path: Path) -> None:
    first = record_arm(policy, tmp_path / "a", family="humanomni", thinks=True)
    copy = shutil.copytree(policy, tmp_path / "copy")
    again = record_arm(copy, tmp_path / "b", family="humanomni", thinks=True)
    assert (first.digest, first.sizes) == (again.digest, again.sizes)
    (copy / "notes.txt").write_text("more")
    other = record_arm(copy, tmp_path / "c", family="humanomni", thinks=True)
    assert other.digest != first.digest


def test_what_is_no_policy_here_is_refused(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"elsewhere: not a folder, but arms names it; give the folder of a policy"
    ):
        record_arm(tmp_path / "elsewhere", tmp_path / "out", family="humanomni", thinks=True)
    with pytest.raises(TrainingError, match=r"but policy\.family is qwen_omni"):
        record_arm(policy, tmp_path / "out", family="qwen_omni", thinks=True)
    foreign = shutil.copytree(policy, tmp_path / "foreign")
    config = json.loads((foreign / "config.json").read_text())
    (foreign / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(DataError, match="no code from a model folder is ever run"):
        record_arm(foreign, tmp_path / "out", family="humanomni", thinks=True)
    record_arm(policy, tmp_path / "arm", family="humanomni", thinks=True)
    with pytest.raises(DataError, match="is an arm itself"):
        record_arm(tmp_path / "arm", tmp_path / "out", family="humanomni", thinks=True)
    assert not (tmp_path / "out").exists()


def test_weights_that_have_changed_since_are_not_used(policy: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(policy, tmp_path / "copy")
    record_arm(copy, tmp_path / "arm", family="humanomni", thinks=True)
    (copy / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"config\.json: not as it was when the arm arm was recorded"):
        load_policy(tmp_path / "arm")
    (tmp_path / "arm" / FILE).write_text('{"thinks": true, "and": 1}')
    with pytest.raises(DataError, match="not what the stage arms writes"):
        read_arm(tmp_path / "arm")


def test_a_folder_without_the_file_thinks(policy: Path) -> None:
    assert read_arm(policy) == Arm()
    assert (Arm().begins, Arm(thinks=False).begins) == ("", DIRECT_BEGINNING)
