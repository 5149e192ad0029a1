"""What is seen of GRPO while it trains, on a very small policy: speed, samples, and the end of a collapse."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from erv.checkpoints import is_complete
from erv.errors import TrainingError
from erv.shards import ShardReader
from erv.training.common.throughput import TIMED, Throughput
from erv.training.grpo.generation import Generation
from erv.training.grpo.grpo import train_grpo
from erv.training.grpo.samples import SampleTable
from erv.training.grpo.watch import Watcher
from tests.support.runtime import RUNTIME, machine
from tests.support.tiny_grpo import write_cold_start
from tests.support.tiny_grpo_text import CLIPS, clip_rows, grpo_settings, write_clips


@pytest.fixture(scope="module")
def cold_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cold_start(tmp_path_factory.mktemp("policies") / "sft")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    return write_clips(tmp_path_factory.mktemp("shards") / "mafw")


Seen = list[dict[str, float]]
Train = Callable[..., tuple[Path, Seen, list[SampleTable]]]


@pytest.fixture
def train(cold_start: Path, clips: ShardReader, tmp_path: Path) -> Train:
    def run(name: str = "out", *, rewards: Any = None, stop_in: int | None = None, **changes: Any) -> Any:
        seen: Seen = []
        tables: list[SampleTable] = changes.pop("tables", [])
        every, saved = changes.pop("sample_steps", 2), changes.pop("save_steps", 1)

        def on_metrics(metrics: dict[str, float], step: int) -> None:
            seen.append(metrics)
            if step == stop_in:
                raise KeyboardInterrupt

        folder = train_grpo(
            cold_start,
            clip_rows(),
            {"mafw": clips},
            rewards or [("place", place, 1.0)],
            grpo_settings(**changes),
            output=tmp_path / name,
            checkpoints=tmp_path / f"{name}-checkpoints",
            on_metrics=on_metrics,
            seed=0,
            runtime=RUNTIME,
            machine=machine(sample_steps=every, save_steps=saved),
            on_samples=tables.append,
        )
        return folder, seen, tables

    return run


def place(completions: list[Any], **columns: Any) -> list[float]:
    return [float(index) for index in range(len(completions))]


def until(step: int, then: float, maximum: float | None = None) -> Callable[..., list[float]]:
    """A reward that differs in the first steps and is the same for all from then on."""

    def reward(completions: list[Any], trainer_state: Any, **columns: Any) -> list[float]:
        return place(completions) if trainer_state.global_step < step else [then] * len(completions)

    if maximum is not None:
        reward.maximum = maximum  # type: ignore[attr-defined]
    return reward


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- speed ---


def test_a_step_says_how_fast_it_was(train: Train) -> None:
    _, seen, _ = train(max_steps=1)
    assert {name for name in seen[0] if name in TIMED} == {
        "step_seconds",
        "tokens_per_second",
        "trained_tokens_per_second",
    }, "a CPU has no GPU"
    # Both are of the same seconds; the prompts of frames and sound are trained on too.
    share = seen[0]["tokens_per_second"] / seen[0]["trained_tokens_per_second"]
    assert 0 < share < 0.5
    sampled = seen[0]["completion_length"] * 4
    assert seen[0]["tokens_per_second"] <= sampled / seen[0]["step_seconds"]


def test_a_further_step_on_the_same_completions_is_reported_too(train: Train) -> None:
    _, seen, _ = train(max_steps=4, num_iterations=2, save_steps=2, learning_rate=0.05)
    assert len(seen) == 4
    for first, second in (seen[:2], seen[2:]):
        assert {"reward", "completion_length", "tokens_per_second"} <= first.keys()
        assert not {"reward", "completion_length", "tokens_per_second"} & second.keys()
        assert {"loss", "kl", "grad_norm", "trained_tokens_per_second"} <= second.keys()
        assert first["clipped_share"] == 0.0
        assert second["clipped_share"] > 0.0  # the only steps in which a ratio can leave its bounds


def test_the_log_shows_the_rewards_of_the_completions_in_use(
    train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        train(max_steps=4, num_iterations=2, save_steps=2)
    lines = [line for line in caplog.messages if line.startswith("grpo: step")]
    assert len(lines) == 4
    assert all(", place 1.50, kl " in line and ", 0 tokens" not in line for line in lines)


# --- samples ---


def test_samples_come_every_so_many_steps_and_at_the_end(train: Train) -> None:
    rewards = [("place", place, 1.0), ("none", lambda completions, **_: [None] * len(completions), 2.0)]
    _, _, tables = train(rewards=rewards, max_steps=3, sample_steps=2)
    assert [table.step for table in tables] == [2, 3]
    table = tables[0]
    columns = ["step", "clip_id", "dataset", "label", "completion"]
    assert table.columns == [*columns, "reward/place", "reward/none", "reward", "advantage"]
    found = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    # The first completions of both clips, then the second ones.
    assert [row["reward/place"] for row in found] == [0.0, 2.0, 1.0, 3.0]
    assert {row["reward/none"] for row in found} == {None}
    assert [row["reward"] for row in found] == [0.0, 2.0, 1.0, 3.0]
    assert [row["advantage"] < 0 for row in found] == [True, True, False, False]
    assert {row["clip_id"] for row in found[:2]} == set(CLIPS)
    assert [row["clip_id"] for row in found[:2]] == [row["clip_id"] for row in found[2:]]
    assert {(row["step"], row["dataset"], row["label"]) for row in found} == {(2, "mafw", "happiness")}
    assert all(isinstance(row["completion"], str) and row["completion"] for row in found)


@pytest.mark.slow
def test_a_resumed_run_shows_the_same_samples(train: Train) -> None:
    whole, _, tables = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("resumed", stop_in=2)
    resumed, _, rest = train("resumed")
    assert [table.rows for table in rest] == [table.rows for table in tables]
    assert files(resumed) == files(whole)


# --- collapse ---


def test_a_collapse_fails_the_stage_and_keeps_what_came_before(train: Train, tmp_path: Path) -> None:
    rewards = [("mine", until(3, 0.25), 2.0)]
    with pytest.raises(TrainingError) as caught:
        train(rewards=rewards, max_steps=12, collapse_patience=4)
    checkpoints = tmp_path / "out-checkpoints"
    assert str(caught.value) == (
        "grpo step 7: in 4 generations in a row the completions of each clip had the same reward (they earn"
        " 0.50 on average), so there is nothing to learn; lower grpo.learning_rate, raise"
        " grpo.temperature or grpo.beta, check the rewards, or set grpo.collapse_patience to null;"
        f" the last good checkpoint is {checkpoints / 'checkpoint-3'}"
    )
    assert names(checkpoints) == ["checkpoint-3", "checkpoint-5", "checkpoint-6"]
    assert is_complete(checkpoints / "checkpoint-3")
    assert not (tmp_path / "out").exists()
    with pytest.raises(TrainingError) as again:  # started again, it knows how long it has been so
        train(rewards=rewards, max_steps=12, collapse_patience=4)
    assert str(again.value) == str(caught.value)


@pytest.mark.slow
def test_further_steps_on_the_same_completions_are_no_sign_of_collapse(train: Train) -> None:
    options: dict[str, Any] = {"num_iterations": 2, "save_steps": 2, "collapse_patience": 3}
    rewards = [("mine", until(4, 0.25), 2.0)]
    # Two flat generations, four steps: the patience of three is not used up.
    _, seen, _ = train("ends", rewards=rewards, max_steps=8, **options)
    assert len(seen) == 8
    with pytest.raises(TrainingError, match=r"grpo step 9: in 3 generations .*/checkpoint-4"):
        train("collapses", rewards=rewards, max_steps=12, **options)


def test_a_collapse_is_shown_before_it_fails(train: Train, tmp_path: Path) -> None:
    tables: list[SampleTable] = []
    with pytest.raises(TrainingError, match=r"grpo step 3: in 3 .*; there is no earlier checkpoint"):
        train(rewards=[("mine", until(0, 0.0), 1.0)], collapse_patience=3, sample_steps=9, tables=tables)
    assert [table.step for table in tables] == [3]
    assert names(tmp_path / "out-checkpoints") == ["checkpoint-1", "checkpoint-2"]


def test_a_difference_in_time_is_no_collapse_and_old_checkpoints_go_again(
    train: Train, tmp_path: Path
) -> None:
    def now_and_then(completions: list[Any], trainer_state: Any, **columns: Any) -> list[float]:
        return place(completions) if trainer_state.global_step in (0, 4) else [1.0] * len(completions)

    _, seen, _ = train(rewards=[("mine", now_and_then, 1.0)], max_steps=7, collapse_patience=4)
    assert [metrics["zero_std_share"] for metrics in seen] == [0, 1, 1, 1, 0, 1, 1]
    assert names(tmp_path / "out-checkpoints") == ["checkpoint-5", "checkpoint-6", "checkpoint-7"]


@pytest.mark.slow
def test_a_policy_that_earns_all_there_is_ends_early_and_well(
    train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rewards = [("mine", until(1, 1.0, maximum=1.0), 1.0)]
    options: dict[str, Any] = {"rewards": rewards, "max_steps": 9, "collapse_patience": 2, "sample_steps": 9}
    with caplog.at_level("INFO"):
        whole, seen, tables = train("whole", **options)
    assert len(seen) == 3
    assert [table.step for table in tables] == [3]
    assert "grpo step 3: in 2 generations in a row every completion has earned the maximum" in caplog.text
    assert names(tmp_path / "whole-checkpoints") == ["checkpoint-1", "checkpoint-2"]

    with pytest.raises(KeyboardInterrupt):
        train("resumed", stop_in=2, **options)
    resumed, rest, _ = train("resumed", **options)
    assert len(rest) == 2
    assert files(resumed) == files(whole)
    again, once_more, _ = train("whole", **options)  # its output is written again from the last checkpoint
    assert len(once_more) == 1
    assert files(again) == files(resumed)


# --- what is not finite ---


def test_weights_that_are_not_finite_never_make_a_checkpoint(train: Train, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"grpo step 1: a weight is not finite; .*no earlier checkpoint"):
        train(max_steps=3, learning_rate=1e39)
    assert [path for path in (tmp_path / "out-checkpoints").iterdir() if is_complete(path)] == []
    assert not (tmp_path / "out").exists()


def test_divergence_leaves_the_checkpoints_from_before(train: Train, tmp_path: Path) -> None:
    def explodes(completions: list[Any], trainer_state: Any, **columns: Any) -> list[float]:
        return [value * (1e38 if trainer_state.global_step >= 2 else 1.0) for value in place(completions)]

    with pytest.raises(
        TrainingError, match=r"is not finite; .* the last good checkpoint is .*/checkpoint-2$"
    ):
        train(rewards=[("mine", explodes, 1.0)], max_steps=5, scale_rewards="none")
    assert is_complete(tmp_path / "out-checkpoints" / "checkpoint-2")
    assert names(tmp_path / "out-checkpoints") == ["checkpoint-1", "checkpoint-2"]


# --- the watcher ---


def test_the_watcher_is_handed_what_was_sampled(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Generation] = []
    take = Watcher.on_generation

    def on_generation(self: Watcher, generation: Generation) -> None:
        made.append(generation)
        take(self, generation)

    monkeypatch.setattr(Watcher, "on_generation", on_generation)
    rewards = [("place", place, 0.5), ("none", lambda completions, **_: [None] * len(completions), 1.0)]
    _, seen, tables = train(rewards=rewards, max_steps=4, num_iterations=2, save_steps=2, sample_steps=1)
    assert [generation.step for generation in made] == [1, 3]
    for generation, metrics, table in zip(made, seen[::2], tables[::2], strict=True):
        assert (generation.group, generation.processes) == (2, 1)
        assert generation.rewards == {"place": [0.0, 1.0, 2.0, 3.0], "none": [None] * 4}
        assert generation.weights == {"place": 0.5, "none": 1.0}
        assert generation.totals == [0.0, 0.5, 1.0, 1.5]
        assert generation.advantages == pytest.approx([-0.707, 0.707] * 2, abs=1e-3)
        first, second = generation.columns["clip_id"][::2]
        assert generation.columns["clip_id"] == [first, first, second, second]
        assert {first, second} == set(CLIPS)
        assert generation.columns["dataset"] == ["mafw"] * 4
        assert generation.completion_tokens == metrics["completion_length"] * 4
        assert generation.prompt_tokens > generation.completion_tokens  # frames and sound
        shown = [row[table.columns.index("completion")] for row in table.rows]
        assert shown == [generation.completions[row] for row in (0, 2, 1, 3)]


def watcher(on_metrics: Callable[[dict[str, float], int], None], **changes: Any) -> Watcher:
    rewards = [("mine", place, 1.0)]
    return Watcher(grpo_settings(**changes), 100, rewards, Throughput("cpu"), on_metrics, sample_steps=20)


def generation(step: int, explanation: str) -> Generation:
    return Generation(
        step=step,
        group=2,
        completions=[f"<think>{explanation}</think>\n<answer>anger</answer>"] * 2,
        rewards={"mine": [0.0, 1.0]},
        weights={"mine": 1.0},
        advantages=[-1.0, 1.0],
        columns={},
        prompt_tokens=50,
        completion_tokens=18,
    )


def test_a_resumed_run_knows_how_it_began(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first steps are gone with the process; what they were is kept with the checkpoint."""
    arguments, control = TrainingArguments(output_dir=str(tmp_path), use_cpu=True), TrainerControl()
    seen: list[dict[str, float]] = []

    def steps(watching: Watcher, explanation: str, begin: int, end: int) -> None:
        state = TrainerState(global_step=begin, max_steps=100)
        watching.on_step_begin(arguments, state, control)
        for step in range(begin + 1, end + 1):
            watching.on_generation(generation(step, explanation))
            state.global_step = step
            watching.on_log(arguments, state, control, logs={"loss": 0.0, "reward": 1.0})

    first = watcher(lambda metrics, step: seen.append(metrics))
    steps(first, "He is in rage. She weeps.", 0, 15)
    first.save(tmp_path)
    second = watcher(lambda metrics, step: seen.append(metrics))
    second.load(tmp_path)
    with caplog.at_level(logging.WARNING):
        steps(second, "He is in rage. He is in rage.", 15, 25)
    # On a busy machine the meter speaks, too.
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [
        "grpo step 21: explanations repeat their own sentences: explanations/repeated was 0.00 at first,"
        " 0.30 in the last 10 steps"
    ]
    assert [metrics["drift_warnings"] for metrics in seen] == [0.0] * 20 + [1.0] * 5
    second.save(tmp_path / "later")
    second.load(tmp_path / "no such checkpoint")
    second.save(tmp_path / "emptied")
    watcher(lambda metrics, step: None).save(tmp_path / "new")
    assert files(tmp_path / "emptied") == files(tmp_path / "new") != files(tmp_path / "later")


def test_every_process_checks_and_the_main_one_reports(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments, control = TrainingArguments(output_dir=str(tmp_path), use_cpu=True), TrainerControl()
    seen: list[int] = []
    for main in (True, False):
        state = TrainerState(global_step=5, max_steps=9, is_world_process_zero=main)
        watching = watcher(lambda metrics, step: seen.append(step))
        watching.on_generation(generation(5, "He is in rage."))
        watching.on_step_begin(arguments, TrainerState(), control)
        with caplog.at_level(logging.INFO):
            watching.on_log(arguments, state, control, logs={"loss": 0.5, "kl": 0.1})
        with pytest.raises(TrainingError, match="grpo step 5: grad_norm is nan"):
            watching.on_log(arguments, state, control, logs={"loss": 0.5, "grad_norm": float("nan")})
        watching.on_log(arguments, state, control, logs={"train_loss": 0.5})  # the summary
    assert seen == [5]
    assert [record.getMessage().split(",")[0] for record in caplog.records] == ["grpo: step 5/9"]
