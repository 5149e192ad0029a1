"""`erv doctor --gpu`: one step of GRPO at the real shapes, on the device that training will use.

The trainer is the real one. The clips are noise, all completions have the maximum length (the end token is
one that generation never writes), and the run ends before it would write a checkpoint. If no base checkpoint
is pinned, a policy of the released sizes with random weights takes its place: memory and time don't depend on
the values of the weights.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.doctor import fit
from erv.doctor.base_policy import CONFIG, base_lock, base_sizes
from erv.doctor.finding import Finding
from erv.doctor.gpus import Accelerator, see_accelerator
from erv.doctor.policy_sizes import RELEASED, nominal, our_config, sizes_of
from erv.environment import Environment, load_environment
from erv.errors import ErvError, TrainingError
from erv.settings import Settings, load_settings
from erv.settings.profile import load_profile, merged_where_needed

if TYPE_CHECKING:
    from erv.policies import Policy

_DATASET = "mafw"  # the statistics of the rewards read its label space
_SECONDS_OF_SOUND = 4
_BASE = Path(".erv/base/policy")  # the stage sft unpacks it here, too


@dataclass(frozen=True)
class Measured:
    """What one step took.

    Attributes:
        policy: the policy that took the step.
        device: name of the device.
        rows: number of completions generated and scored.
        tokens: tokens per completion.
        seconds: time of the step: encoding, generation, scoring, update.
        peak_bytes: peak memory of the device; on a CPU, of the process, libraries included.
        device_bytes: memory of the device; None on a CPU.
        estimate: the estimate of `erv.doctor.fit`, None for a family of unknown sizes.
    """

    policy: str
    device: str
    rows: int
    tokens: float
    seconds: float
    peak_bytes: int
    device_bytes: int | None
    estimate: fit.Estimate | None

    def __str__(self) -> str:
        of = f" of {self.device_bytes / 1e9:.1f} GB" if self.device_bytes else ""
        note = f" (estimate {self.estimate.total / 1e9:.1f})" if self.estimate and self.device_bytes else ""
        return (
            f"one step of {self.rows} completions of {self.tokens:.0f} tokens by {self.policy}"
            f" on {self.device}: peak {self.peak_bytes / 1e9:.2f} GB{of}{note}, {self.seconds:.1f} s,"
            f" {self.rows * self.tokens / self.seconds:.1f} tokens/s"
        )


class _Enough(Exception):
    """Ends the run once its step is measured, before a checkpoint or a policy is written."""


def examine_gpu(profile: str | None = None, workspace: str | Path = ".") -> list[Finding]:
    """The dry run as a finding; raises no error that a user can act on.

    Args:
        profile: use its parameters, and its sizes if its base checkpoint is not pinned.
        workspace: top of the repository.
    """
    try:
        measured = dry_run(load_environment(workspace), profile)
    except ErvError as error:
        sentence, _, remedy = str(error).rpartition("; ")
        return [Finding("dry run", "fail", sentence or remedy, remedy if sentence else "")]
    return [Finding("dry run", "ok", str(measured))]


def dry_run(
    environment: Environment, profile: str | None = None, accelerator: Accelerator | None = None
) -> Measured:
    """Runs and measures one step.

    Args:
        environment: environment of the workspace.
        profile: as in `examine_gpu`.
        accelerator: what torch sees; by default, it is asked.

    Raises:
        TrainingError: there is no GPU though `runtime.device` is not cpu, no base policy is pinned, or
            the step does not fit.
        ErvError: the parameters, the pinned policy or the trainer fail.
    """
    path = environment.workspace / "params.yaml"
    chosen = load_profile(profile) if profile else None
    settings = merged_where_needed(chosen, path) if chosen else load_settings(path)
    here = accelerator or see_accelerator()
    if settings.runtime.device != "cpu" and not here.gpus:
        raise TrainingError(
            f"no GPU here ({here.why_none}), and runtime.device is {settings.runtime.device}; run it on a"
            " machine with one, or set runtime.device: cpu to measure the same step on the CPU"
        )
    with tempfile.TemporaryDirectory(prefix="erv-dry-run-", ignore_cleanup_errors=True) as name_of_folder:
        folder = Path(name_of_folder)
        name, estimate = _prepare(environment, settings, chosen.policy if chosen else None, folder)
        return _measure(settings, name, estimate, folder)


def _policy(environment: Environment, wanted: str | None, family: str) -> tuple[str, Policy]:
    """The pinned base policy, or one of the released sizes."""
    from erv.policies import load_policy

    lock = base_lock(environment)
    if lock is not None and CONFIG in lock:
        sizes = base_sizes(environment)
        if wanted is None or sizes is None or sizes.parameters > nominal(wanted).parameters / 2:
            from erv.sources import store_for

            target = environment.workspace / _BASE
            target.parent.mkdir(parents=True, exist_ok=True)
            base = lock.fetch_tree(store_for([lock.uri]), "policy", target)
            return f"{lock.uri}/policy", load_policy(base, family=family)
    if wanted is None:
        raise TrainingError(
            "no base policy is pinned; run `erv data pin base`, or name a profile whose sizes are known"
            " (`erv doctor --gpu --profile paper-0.5b`)"
        )
    return f"random weights of {wanted}'s sizes", random_policy(RELEASED[wanted])


def released_config(released: Mapping[str, Any], tokenizer: Any, **towers: Mapping[str, Any]) -> Any:
    """The `HumanOmniConfig` of a released `config.json`, for our tokenizer.

    Args:
        released: the released configuration.
        tokenizer: a tokenizer that knows the placeholders.
        **towers: as for `random_policy`.
    """
    from erv.policies.humanomni import HumanOmniConfig
    from erv.prompts import AUDIO_PLACEHOLDER, VIDEO_PLACEHOLDER

    ours = our_config(released)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    video, audio = tokenizer.convert_tokens_to_ids([VIDEO_PLACEHOLDER, AUDIO_PLACEHOLDER])
    given = {
        "text_config": ours["text_config"] | ends | {"bos_token_id": None},
        "video_token_id": video,
        "audio_token_id": audio,
    }
    return HumanOmniConfig.from_dict(ours | towers | given)


def random_policy(released: Mapping[str, Any], **towers: Mapping[str, Any]) -> Policy:
    """A HumanOmni policy with the sizes of a released `config.json`, random weights and a small tokenizer.

    Args:
        released: the released configuration.
        **towers: other sizes of `vision_config`, `audio_config`, `gate_config` than the released towers'.
    """
    import torch
    from transformers import GenerationConfig, WhisperFeatureExtractor

    from erv.policies import Policy
    from erv.policies.humanomni import HumanOmniForConditionalGeneration, HumanOmniProcessor
    from erv.policies.humanomni.processing import chat_template
    from erv.prompts import INSTRUCTION
    from erv.sample.tiny_policy import train_tokenizer, train_wordpiece

    tokenizer = train_tokenizer([INSTRUCTION], 400)
    gate_tokenizer = train_wordpiece([INSTRUCTION], 256, max_length=64)
    config = released_config(released, tokenizer, **towers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = HumanOmniForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=model.placeholder_ids,
    )
    tokenizer.chat_template = chat_template(
        config.num_frames * config.tokens_per_frame, config.audio_tokens, wrap=True
    )
    mel_seconds = config.audio_config.max_source_positions * 2 * 160 // 16000
    processor = HumanOmniProcessor(
        feature_extractor=WhisperFeatureExtractor(
            feature_size=config.audio_config.num_mel_bins, chunk_length=mel_seconds
        ),
        tokenizer=tokenizer,
        gate_tokenizer=gate_tokenizer,
        image_size=config.vision_config.image_size,
        num_frames=config.num_frames,
    )
    return Policy(model.eval(), processor)


def _prepare(
    environment: Environment, settings: Settings, wanted: str | None, folder: Path
) -> tuple[str, fit.Estimate | None]:
    """Writes the policy to measure into the folder; the trainer loads it, so it leaves memory here."""
    from erv.training.grpo.watch import quiet_libraries

    name, policy = _policy(environment, wanted, settings.policy.family)
    _never_end(policy)
    with quiet_libraries():
        policy.save(folder / "policy")
    sizes = sizes_of(policy.model.config.to_dict(), "the policy")
    return name, fit.grpo_memory(settings, sizes) if sizes else None


def _measure(settings: Settings, name: str, estimate: fit.Estimate | None, folder: Path) -> Measured:
    import torch

    from erv.determinism import resolve_device
    from erv.shards import ShardReader
    from erv.training.grpo.grpo import train_grpo

    device = resolve_device(settings.runtime.device)
    on_gpu = device.type == "cuda"
    # One process of several takes its share of the step, whole groups of it.
    processes = settings.machine.processes
    prompts = -(-settings.grpo.prompts_per_step // processes)
    own = prompts * settings.grpo.num_generations
    whole = settings.machine.grpo
    share = whole.model_copy(
        update={"rows_per_pass": whole.rows_per_pass and math.gcd(whole.rows_per_pass, own)}
    )
    grpo = settings.grpo.model_copy(
        update={"max_steps": settings.grpo.num_iterations, "epochs": None, "prompts_per_step": prompts}
    )
    machine = settings.machine.model_copy(update={"accelerate": None, "processes": 1, "grpo": share})
    rows = _write_clips(settings, prompts, folder / "shards" / _DATASET)
    found: dict[str, float] = {}

    def stop(metrics: dict[str, float], step: int) -> None:
        found.update(metrics)
        raise _Enough

    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    started = time.monotonic()
    try:
        train_grpo(
            folder / "policy",
            rows,
            {_DATASET: ShardReader(folder / "shards" / _DATASET)},
            [("letters", _different_letters, 1.0)],
            grpo,
            output=folder / "out",
            checkpoints=folder / "checkpoints",
            on_metrics=stop,
            seed=settings.seed,
            runtime=settings.runtime,
            machine=machine,
        )
    except _Enough:
        pass
    except torch.OutOfMemoryError as error:
        remedy = fit.remedies(settings, estimate) if estimate else "lower machine.grpo.rows_per_pass"
        raise TrainingError(f"a step of grpo does not fit into {_name(device)}; {remedy}") from error
    total = torch.cuda.get_device_properties(device).total_memory if on_gpu else None
    return Measured(
        policy=name,
        device=_name(device),
        rows=prompts * grpo.num_generations,
        tokens=found["completion_length"],
        seconds=found.get("step_seconds", time.monotonic() - started),
        peak_bytes=torch.cuda.max_memory_reserved(device) if on_gpu else _peak_of_process(),
        device_bytes=total,
        estimate=estimate,
    )


def _never_end(policy: Policy) -> None:
    """Makes a placeholder the end token: generation never writes one, so completions have the full length."""
    token = policy.model.placeholder_ids[0]
    policy.processor.tokenizer.eos_token = policy.processor.tokenizer.convert_ids_to_tokens(token)
    policy.model.generation_config.eos_token_id = token
    policy.model.config.get_text_config().eos_token_id = token


def _write_clips(settings: Settings, count: int, folder: Path) -> list[dict[str, Any]]:
    """Writes clips of noise to a shard; returns the rows that ask about them."""
    import numpy as np

    from erv.prompts import user_content
    from erv.shards import Clip, ShardWriter

    extract, random = settings.extract, np.random.default_rng(settings.seed)
    prompt = [{"role": "user", "content": user_content()}]
    rows = []
    with ShardWriter(folder, clips_per_shard=count) as writer:
        for number in range(count):
            clip = f"{number:05d}"
            frames = random.integers(0, 256, (extract.frames, extract.size, extract.size, 3), dtype=np.uint8)
            sound = random.integers(-9000, 9000, _SECONDS_OF_SOUND * extract.sample_rate).astype(np.int16)
            writer.add(Clip(clip, frames, sound, extract.sample_rate))
            rows.append(
                {
                    "prompt": prompt,
                    "clip": f"{_DATASET}/{clip}",
                    "solution": "<answer>happiness</answer>",
                    "dataset": _DATASET,
                    "clip_id": clip,
                }
            )
    return rows


def _different_letters(*, completions: list[Any], **columns: Any) -> list[float]:
    """A reward that differs between completions, so that there is something to learn from."""
    from erv.prompts import completion_text

    return [float(len(set(completion_text(completion)))) for completion in completions]


def _name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def _peak_of_process() -> int:
    import resource
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
