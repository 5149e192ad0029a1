"""`erv doctor --profile NAME`: everything that this machine lacks to run a profile, item by item."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

from erv.doctor import fit
from erv.doctor.base_policy import CONFIG, base_family_fault, base_lock, base_sizes
from erv.doctor.finding import Finding
from erv.doctor.gpus import Accelerator, see_accelerator
from erv.doctor.judge_check import lacks_of_judges
from erv.doctor.policy_sizes import PolicySizes, nominal
from erv.doctor.preflight import teacher_faults
from erv.doctor.workspace_check import TAKE_PINS
from erv.environment import Environment, load_environment, sample_remedy
from erv.errors import ErvError
from erv.settings import Settings
from erv.settings.across import written_by_vllm
from erv.settings.profile import Profile, differences, load_profile, merged_where_needed
from erv.sources.lock import Lock
from erv.sources.selection import is_video

_ROBERTA_BYTES = 500_000_000  # the verifier of the method, float32
_TINY = 0.5  # a base policy with a smaller share of the profile's parameters is a different model
_PROCESSOR = "policy/processor_config.json"
_SECONDS = 4  # of sound in a clip of MAFW or DFEW, on average
_COMPRESSED = 0.77  # of frames in shards, see erv.shards


def examine_profile(
    name: str, workspace: str | Path = ".", accelerator: Accelerator | None = None
) -> list[Finding]:
    """The findings for a profile; changes nothing.

    Args:
        name: name of the profile.
        workspace: top of the repository.
        accelerator: what to compare the profile with; by default, what torch sees.

    Raises:
        SettingsError: there is no such profile, or `params.yaml` has faults.
    """
    environment = load_environment(workspace)
    profile = load_profile(name)
    path = environment.workspace / "params.yaml"
    settings = merged_where_needed(profile, path)
    sizes, origin, doubts = _sizes(environment, profile)
    verifier = _ROBERTA_BYTES if profile.policy else 0
    findings = [
        *_params(profile, path),
        *doubts,
        *_base(environment, settings, profile, sizes),
        *_gpus(settings, sizes, origin, verifier, accelerator or see_accelerator()),
        *_packages(settings, environment.workspace),
        *_engine(environment, settings),
        *_data(environment, settings, profile),
        *_teachers(environment, settings),
        *_judges(environment, settings),
        *_disk(environment, settings, sizes),
    ]
    if sizes is not None:
        findings += _sequence(settings, sizes, origin)
    return findings


def _params(profile: Profile, path: Path) -> Iterator[Finding]:
    found = differences(profile, path)
    other = [item for item in found if not profile.is_adjustable(item.name)]
    own = [item for item in found if profile.is_adjustable(item.name)]
    remedy = f"`erv params use {profile.name}`"
    if other:
        detail = f"{len(other)} differ from the profile: " + ", ".join(map(str, other))
        yield Finding("parameters", "fail", detail, remedy)
        return
    detail = f"those of {profile.name}" + ("; for this machine: " + ", ".join(map(str, own)) if own else "")
    yield Finding("parameters", "ok", detail)


def _sizes(environment: Environment, profile: Profile) -> tuple[PolicySizes | None, str, list[Finding]]:
    """The sizes to use, where they come from, and a finding if the checkpoint can't be read."""
    released = nominal(profile.policy) if profile.policy else None
    try:
        pinned = base_sizes(environment)
    except ErvError as error:
        sentence, _, remedy = str(error).partition("; ")
        return released, "released sizes", [Finding("base policy", "fail", sentence, remedy)]
    if pinned is not None and (released is None or pinned.parameters >= _TINY * released.parameters):
        return pinned, "sizes of the pinned checkpoint", []
    return released, f"released sizes of {profile.policy}, no such checkpoint is pinned", []


def _base(
    environment: Environment, settings: Settings, profile: Profile, sizes: PolicySizes | None
) -> Iterator[Finding]:
    wanted = profile.policy or "a policy"
    put = "put it into policy/ of sources.base (docs/paper.md), then `erv data pin base`"
    if not profile.policy:
        put = sample_remedy(environment.workspace) or f"{TAKE_PINS}, or {put}"
    try:
        lock = base_lock(environment)
    except ErvError as error:
        yield Finding("base", "fail", str(error), "`erv data pin base`")
        return
    if lock is None:
        yield Finding("base policy", "fail", f"{wanted} is missing: sources.base is not pinned", put)
        detail = "the verifier's encoder is missing: sources.base is not pinned"
        yield Finding("base encoder", "fail", detail, put.replace("policy/", "encoder/"))
        return
    weights = [file for file in lock.files if file.path.startswith("policy/") and _is_weights(file.path)]
    if CONFIG not in lock or not weights:
        lacks = CONFIG if CONFIG not in lock else "policy/*.safetensors"
        yield Finding("base policy", "fail", f"{lock.uri} has no {lacks}", put)
    elif wrong := _wrong_family(environment, settings):
        sentence, _, remedy = wrong.partition("; ")
        yield Finding("base policy", "fail", sentence, remedy)
    elif profile.policy and sizes is not None and sizes.name == profile.policy:
        yield Finding("base policy", "fail", f"{lock.uri}/policy is not {wanted}", put)
    elif _PROCESSOR not in lock:
        detail = f"{lock.uri} has no {_PROCESSOR}: it still has the released format"
        yield Finding("base policy", "fail", detail, put)
    else:
        size = sum(file.bytes for file in weights)
        yield Finding("base policy", "ok", f"{lock.uri}/policy, {size / 1e9:.2f} GB of weights")
    yield _encoder(lock, profile)


def _wrong_family(environment: Environment, settings: Settings) -> str | None:
    try:
        return base_family_fault(environment, settings.policy.family)
    except ErvError:  # said by _sizes, which reads the same file
        return None


def _encoder(lock: Lock, profile: Profile) -> Finding:
    remedy = "put the method's classifier, or a RoBERTa, into encoder/, then `erv data pin base`"
    weights = [file for file in lock.files if file.path.startswith("encoder/") and _is_weights(file.path)]
    size = sum(file.bytes for file in weights)
    if "encoder/config.json" not in lock or not weights:
        detail = f"{lock.uri} has no encoder/ with config.json and weights"
        return Finding("base encoder", "fail", detail, remedy)
    if profile.policy and size < _TINY * _ROBERTA_BYTES / 2:  # half precision halves it
        detail = (
            f"{lock.uri}/encoder has {size / 1e6:.1f} MB of weights: too small for the method's classifier"
        )
        return Finding("base encoder", "fail", detail, remedy)
    return Finding("base encoder", "ok", f"{lock.uri}/encoder, {size / 1e6:.1f} MB of weights")


def _is_weights(path: str) -> bool:
    return path.endswith(".safetensors")  # a pickle is never read


def _gpus(
    settings: Settings,
    sizes: PolicySizes | None,
    origin: str,
    verifier: int,
    here: Accelerator,
) -> Iterator[Finding]:
    estimates = [fit.sft_memory(settings, sizes), fit.grpo_memory(settings, sizes, verifier)] if sizes else []
    needed = max((estimate.total for estimate in estimates), default=0)
    processes = settings.machine.processes
    wish = f"{processes} GPU(s) with {math.ceil(needed / 1e9)} GB each"
    reasons = fit.needs_gpu(settings)
    if not reasons and (settings.runtime.device == "cpu" or not here.gpus):
        yield Finding("gpu", "ok", f"not needed: runtime.device is {settings.runtime.device}")
    elif not here.gpus:
        remedy = f"run it on a machine with {wish}" + (
            "" if here.cuda_build else ", and install a CUDA build of torch there"
        )
        detail = f"none here: {here.why_none}; the profile needs {wish} ({', '.join(reasons)})"
        yield Finding("gpu", "fail", detail, remedy)
    elif len(here.gpus) > 1 and settings.machine.accelerate is None:
        detail = f"{len(here.gpus)} here, and machine.accelerate is null"
        remedy = "set it and machine.processes to use them, or CUDA_VISIBLE_DEVICES to use one"
        yield Finding("gpu", "fail", detail, remedy)
    elif len(here.gpus) < processes:
        detail = f"{len(here.gpus)} here, machine.processes is {processes}"
        yield Finding("gpu", "fail", detail, "lower machine.processes, or run it on a larger machine")
    else:
        yield Finding(
            "gpu", "ok", ", ".join(f"{gpu.name} ({gpu.memory_bytes / 1e9:.1f} GB)" for gpu in here.gpus)
        )
    if here.gpus and settings.runtime.dtype == "bfloat16" and not here.bfloat16:
        detail = f"{here.gpus[0].name} does not compute in bfloat16"
        yield Finding("precision", "fail", detail, "set runtime.dtype: float16")
    available = min((gpu.memory_bytes for gpu in here.gpus), default=None)
    for estimate in estimates:
        name = f"memory {estimate.stage}"
        if available is None or settings.runtime.device == "cpu":
            yield Finding(name, "ok", f"{estimate}; from {origin}, with no GPU here to compare it with")
        elif estimate.total > available:
            detail = f"{estimate}, the GPU has {available / 1e9:.1f} GB"
            yield Finding(name, "fail", detail, fit.remedies(settings, estimate))
        elif estimate.total > 0.9 * available:
            detail = f"{estimate}, of {available / 1e9:.1f} GB: close, and only an estimate"
            yield Finding(name, "warn", detail, "`erv doctor --gpu` measures it")
        else:
            yield Finding(name, "ok", f"{estimate} of {available / 1e9:.1f} GB")


def _sequence(settings: Settings, sizes: PolicySizes, origin: str) -> Iterator[Finding]:
    faults = fit.faults(settings, sizes)
    for fault in faults:
        sentence, _, remedy = fault.rpartition("; ")
        yield Finding("sequence", "fail", sentence, remedy)
    if not faults:
        row = fit.budget(sizes, settings.grpo.max_completion_length)
        yield Finding("sequence", "ok", f"{row}; {origin}")


def _packages(settings: Settings, workspace: Path) -> Iterator[Finding]:
    four_bits = [
        f"{stage}.lora.quantize is nf4"
        for stage, lora in (("sft", settings.sft.lora), ("grpo", settings.grpo.lora))
        if lora.quantize == "nf4"
    ]
    if four_bits:
        yield _four_bits(" and ".join(four_bits), workspace)
    wanted = {}
    if settings.machine.accelerate in ("zero2", "zero3"):
        wanted["deepspeed"] = f"machine.accelerate is {settings.machine.accelerate}"
    if settings.machine.extract.dask is not None:
        wanted["distributed"] = "machine.extract.dask names a scheduler"
    for package, reason in wanted.items():
        if util.find_spec(package) is None:
            yield Finding(
                f"package {package}", "fail", f"not installed; {reason}", f"`pip install {package}`"
            )
        else:
            yield Finding(f"package {package}", "ok", f"{metadata.version(package)}; {reason}")


def _four_bits(reason: str, workspace: Path) -> Finding:
    from erv.training.common.adapters import four_bit_fault
    from erv.training.common.pins import installed_version

    version = installed_version("bitsandbytes")
    fault = four_bit_fault(version, workspace)
    if fault is None:
        return Finding("package bitsandbytes", "ok", f"{version}; {reason}")
    what, _, remedy = fault.partition("; ")
    return Finding("package bitsandbytes", "fail", f"{what}; {reason}", remedy)


def _engine(environment: Environment, settings: Settings) -> Iterator[Finding]:
    if not written_by_vllm(settings):
        return
    from erv.training.common.pins import version_fault
    from erv.training.grpo.engine.lacks import INSTALL, REQUIREMENTS, vllm_version

    python = environment.workspace / settings.machine.grpo.vllm_python
    version = vllm_version(python)
    fault = version_fault("vllm", version, environment.workspace / REQUIREMENTS)
    if fault is not None:
        yield Finding("vLLM", "fail", f"{python} has {fault}; grpo.generation is vllm", f"`{INSTALL}`")
    else:
        yield Finding("vLLM", "ok", f"{version}; grpo.generation is vllm")


def _data(environment: Environment, settings: Settings, profile: Profile) -> Iterator[Finding]:
    from erv.ingest.published import published_counts
    from erv.sample.layouts import MARK

    for name in (*settings.datasets, "judge"):
        path = environment.workspace / "data" / "sources" / f"{name}.lock.json"
        place = settings.sources.model_dump()[name]
        if not path.is_file():
            detail = f"not pinned; sources.{name} is {place}"
            yield Finding(
                f"data {name}", "fail", detail, f"put it there or change it, then `erv data pin {name}`"
            )
            continue
        try:
            lock = Lock.load(path)
        except ErvError as error:
            yield Finding(f"data {name}", "fail", str(error), f"`erv data pin {name}`")
            continue
        reader = settings.ingest.readers.get(name)
        published = published_counts(reader) if reader is not None else None
        clips = _clips(lock)
        remedy = f"set sources.{name} to your own tree, then `erv data pin {name}`"
        if lock.uri != place:
            detail = f"pinned at {lock.uri}, sources.{name} is {place}"
            yield Finding(f"data {name}", "fail", detail, f"`erv data pin {name}`")
        elif profile.policy and MARK in lock and name != "judge":
            yield Finding(f"data {name}", "fail", f"{lock.uri} is the sample corpus", remedy)
        elif profile.policy and published is not None and clips < published.clips:
            detail = f"{lock.uri} has {clips} clips, {published.source} say {published.clips}"
            yield Finding(f"data {name}", "fail", detail, remedy)
        elif profile.policy and MARK in lock:
            detail = f"{lock.uri}: the judge would learn from the sample corpus, which is worded differently"
            yield Finding(f"data {name}", "warn", detail, "write a texts.csv (text, label) of your own")
        else:
            yield Finding(f"data {name}", "ok", f"{lock.uri}, {clips or len(lock.files)} files are pinned")


def _clips(lock: Lock) -> int:
    """Number of files that may be clips: videos and folders of frames."""
    return sum(bool(file.frames) or is_video(file.path) for file in lock.files)


def _teachers(environment: Environment, settings: Settings) -> Iterator[Finding]:
    try:
        faults = teacher_faults(environment.workspace, settings)
    except ErvError:  # a faulty lock file, which the findings on the data report
        return
    for fault in faults:
        sentence, _, remedy = fault.partition("; ")
        yield Finding("teachers", "fail", sentence, remedy)


def _judges(environment: Environment, settings: Settings) -> Iterator[Finding]:
    paths = [environment.workspace / "data" / "sources" / f"{name}.lock.json" for name in ("judge", "base")]
    try:
        own, base = (Lock.load(path) for path in paths)
    except ErvError:  # which the findings on the data report
        return
    for faults in lacks_of_judges(settings, (own, base)).values():
        for fault in faults:
            sentence, _, remedy = fault.partition("; ")
            yield Finding("judges", "fail", sentence, remedy)


def _disk(environment: Environment, settings: Settings, sizes: PolicySizes | None) -> Iterator[Finding]:
    if sizes is None:
        return
    needed = disk_bytes(settings, sizes, _pinned_clips(environment, settings))
    free = shutil.disk_usage(environment.workspace).free
    detail = f"{free / 1e9:.0f} GB free, the profile writes about {needed / 1e9:.0f} GB"
    if free < needed:
        remedy = "make room; DVC's cache can be on another disk: `dvc cache dir --local PATH`"
        yield Finding("disk needed", "fail", detail, remedy)
    else:
        yield Finding("disk needed", "ok", detail)


def _pinned_clips(environment: Environment, settings: Settings) -> int:
    """Number of clips of all data sets: as published if known, else as pinned."""
    from erv.ingest.published import published_counts

    total = 0
    for name in settings.datasets:
        reader = settings.ingest.readers.get(name)
        published = published_counts(reader) if reader is not None else None
        path = environment.workspace / "data" / "sources" / f"{name}.lock.json"
        if published is not None and settings.ingest.expect == "full":
            total += published.clips
        elif path.is_file():
            try:
                total += _clips(Lock.load(path))
            except ErvError:  # reported by the findings on the data
                continue
    return total


def disk_bytes(settings: Settings, sizes: PolicySizes, clips: int) -> int:
    """What a whole run writes, without the raw data: shards, policies, checkpoints; twice if DVC caches it.

    Args:
        settings: all parameters.
        sizes: sizes of the policy.
        clips: number of clips of all data sets.
    """
    extract = settings.extract
    frames = extract.frames * extract.size**2 * 3 * _COMPRESSED
    shards = clips * round(frames + _SECONDS * 2 * extract.sample_rate)
    policy = 4 * sizes.parameters
    policies = policy * (1 + len(settings.compare.train))
    estimate = fit.grpo_memory(settings, sizes).parts
    # Two complete checkpoints and one that is being written, for each of two variants in parallel.
    checkpoint = estimate["optimiser"] + (0 if settings.grpo.lora.enabled else policy)
    return 2 * (shards + policies + policy) + policy + 6 * checkpoint
