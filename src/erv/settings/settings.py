"""`params.yaml` as frozen, typed settings: parsed once, every fault reported at once.

Sections are named after the stages. Cross-field checks run here, before a GPU or a download is touched.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from erv.errors import SettingsError
from erv.settings.faults import describe
from erv.settings.ingest import DatasetName, ReaderSettings
from erv.settings.policies import GrpoSettings, SftSettings
from erv.settings.policy import PolicySettings
from erv.settings.section import PositiveFloat, PositiveInt, Section, Share
from erv.settings.verifier import DistillSettings, TrainErvSettings

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|[Ss]3:")
_BUCKET = re.compile(r"s3://[^/\s]+(/.*)?")
_FOLDER = re.compile(r"file:///.*")
_SCHEDULER = re.compile(r"(tcp|tls)://(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")


def _place_of_a_tree(place: str) -> str:
    if not place.strip():
        raise ValueError("is empty, expected s3://bucket/prefix or a local folder")
    if _SCHEME.match(place) and not (_BUCKET.fullmatch(place) or _FOLDER.fullmatch(place)):
        raise ValueError("not a place of a source; expected s3://bucket/prefix or a local folder")
    return place


def _address_of_a_scheduler(address: str) -> str:
    match = _SCHEDULER.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 2**16:
        raise ValueError(
            "not an address of a Dask scheduler; expected tcp://host:port or tls://host:port, or null"
        )
    return address


Place = Annotated[str, AfterValidator(_place_of_a_tree)]
SchedulerAddress = Annotated[str, AfterValidator(_address_of_a_scheduler)]


class RuntimeSettings(Section):
    """Device, precision, CPU threads, and how many processes train a policy."""

    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["float32", "bfloat16", "float16"]
    threads: PositiveInt
    accelerate: Literal["ddp", "fsdp", "zero2", "zero3"] | None
    processes: PositiveInt
    feature_cache_gb: PositiveFloat

    @model_validator(mode="after")
    def _precision_fits_the_device(self) -> RuntimeSettings:
        if self.device == "cpu" and self.dtype != "float32":
            raise ValueError(f"dtype {self.dtype} needs a GPU; with device cpu use float32")
        return self

    @model_validator(mode="after")
    def _several_processes_are_launched(self) -> RuntimeSettings:
        if self.processes > 1 and self.accelerate is None:
            raise ValueError(
                f"processes is {self.processes}, but accelerate is null; name a configuration of"
                " infra/accelerate (ddp, fsdp, zero2 or zero3)"
            )
        return self


class SourcesSettings(Section):
    """Where each raw tree lives: `s3://bucket/prefix` or a local folder; data sets under their names."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, Place] = Field(init=False)

    base: Place
    judge: Place


class IngestSettings(Section):
    """Fold, validation split, what is expected of the data sets and how each is read."""

    fold: PositiveInt
    validation_share: Share
    expect: Literal["full", "subset"]
    max_excluded_share: Share
    readers: dict[DatasetName, ReaderSettings]


class ValidateSettings(Section):
    """Expectations over the manifest and the probed media."""

    min_seconds: PositiveFloat
    max_seconds: PositiveFloat
    min_fps: PositiveFloat
    min_side: PositiveInt
    min_brightness: Annotated[float, Field(ge=0.0, le=255.0)]
    min_loudness_db: Annotated[float, Field(le=0.0)]
    max_failed_share: Share
    duplicates: Literal["fail", "warn"]
    workers: PositiveInt
    clip_timeout_seconds: PositiveInt
    clip_memory_mb: PositiveInt

    @model_validator(mode="after")
    def _ordered(self) -> ValidateSettings:
        if self.min_seconds >= self.max_seconds:
            raise ValueError(
                f"min_seconds ({self.min_seconds}) must be smaller than max_seconds ({self.max_seconds})"
            )
        return self


class ExtractSettings(Section):
    """Frames, audio and shards."""

    frames: PositiveInt
    size: PositiveInt
    geometry: Literal["stretch", "pad"]
    sample_rate: PositiveInt
    short_folders: Literal["repeat", "black"]
    missing_audio: Literal["quarantine", "mark", "fail"]
    clip_timeout_seconds: PositiveInt
    clip_memory_mb: PositiveInt
    workers: PositiveInt
    dask: SchedulerAddress | None
    clips_per_shard: PositiveInt
    max_quarantine_share: Share


class EvaluateSettings(Section):
    """Generation and judgement on held-out clips."""

    policies: Annotated[tuple[str, ...], Field(min_length=1)]
    split: Literal["test", "validation"]
    batch_size: PositiveInt
    max_new_tokens: PositiveInt
    temperature: Annotated[float, Field(ge=0.0)]
    judge: Literal["lexical"]


class ReportSettings(Section):
    """Paired comparison and the page."""

    bootstrap_samples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    examples: Annotated[int, Field(ge=0)]


class GateSettings(Section):
    """A condition for `champion`: a floor, or a paired difference against another policy or the champion."""

    metric: Literal["WAR", "UAR", "EEA", "EPC", "FCR"]
    minimum: float
    against: str | None = None


class RegisterSettings(Section):
    """The candidate and its gates."""

    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    policy: str
    gates: Annotated[tuple[GateSettings, ...], Field(min_length=1)]


class Settings(Section):
    """All of `params.yaml`."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    runtime: RuntimeSettings
    policy: PolicySettings
    datasets: Annotated[tuple[DatasetName, ...], Field(min_length=1)]
    sources: SourcesSettings
    ingest: IngestSettings
    validate_: Annotated[ValidateSettings, Field(alias="validate")]
    extract: ExtractSettings
    sft: SftSettings
    distill: DistillSettings
    train_erv: TrainErvSettings
    grpo: GrpoSettings
    evaluate: EvaluateSettings
    report: ReportSettings
    register_: Annotated[RegisterSettings, Field(alias="register")]

    @model_validator(mode="after")
    def _policies_exist(self) -> Settings:
        known = set(self.evaluate.policies)
        wanted = {"register.policy": self.register_.policy}
        for gate in self.register_.gates:
            if gate.against not in (None, "champion"):
                wanted[f"register.gates[{gate.metric}].against"] = str(gate.against)
        faults = [
            f"{key} is {name!r}, expected one of {', '.join(sorted(known))}"
            for key, name in wanted.items()
            if name not in known
        ]
        trained = ["sft", *self.grpo.train]
        faults += [
            f"evaluate.policies names {name!r}, expected some of {', '.join(trained)}"
            for name in self.evaluate.policies
            if name not in trained
        ]
        if len(set(self.evaluate.policies)) != len(self.evaluate.policies):
            faults.append(f"evaluate.policies names one twice: {', '.join(self.evaluate.policies)}")
        if self.distill.validation_share + self.distill.test_share >= 0.8:
            faults.append("distill.validation_share + distill.test_share leave under 20% to train on")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @model_validator(mode="after")
    def _processes_share_a_step(self) -> Settings:
        processes, grpo, sft = self.runtime.processes, self.grpo, self.sft
        steps = (
            (
                "grpo.prompts_per_step x grpo.num_generations",
                grpo.prompts_per_step * grpo.num_generations,
                "grpo.rows_per_pass",
                grpo.rows_per_pass,
            ),
            ("sft.batch_size", sft.batch_size, "sft.rows_per_pass", sft.rows_per_pass),
        )
        faults = []
        for what, rows, parameter, per_pass in steps:
            if rows % processes:
                faults.append(f"runtime.processes ({processes}) must divide {what}, {rows}")
            elif per_pass is not None and rows // processes % per_pass:
                faults.append(
                    f"{parameter} ({per_pass}) must divide the share of a process of {what},"
                    f" {rows // processes}"
                )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @model_validator(mode="after")
    def _adapters_are_merged(self) -> Settings:
        if self.runtime.accelerate in (None, "ddp"):
            return self
        for stage, lora in (("sft", self.sft.lora), ("grpo", self.grpo.lora)):
            if lora.enabled:
                raise ValueError(
                    f"{stage}.lora.enabled is true and runtime.accelerate {self.runtime.accelerate}: adapters"
                    " can't be merged into weights that lie in shards; set accelerate: ddp, or enabled: false"
                )
        return self

    @model_validator(mode="after")
    def _datasets_are_described(self) -> Settings:
        faults = []
        if len(set(self.datasets)) != len(self.datasets):
            faults.append(f"datasets names one twice: {', '.join(self.datasets)}")
        for name in self.datasets:
            if name not in self.ingest.readers:
                faults.append(f"datasets names {name!r}, which ingest.readers does not describe")
            if name not in self.sources.model_dump():
                faults.append(f"datasets names {name!r}, and sources.{name} does not say where it lies")
        if faults:
            raise ValueError("; ".join(faults))
        return self


def load_settings(path: str | Path = "params.yaml") -> Settings:
    """Reads and checks the parameters.

    Raises:
        SettingsError: the file is missing, is not YAML, or has faults; the message lists all, one a line.
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: not found; run this from the top of the repository") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: can't be read as UTF-8 text ({error})") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise SettingsError(f"{path}: expected a mapping of sections, found {type(raw).__name__}")
    return parse_settings(raw, source=str(path))


def parse_settings(raw: dict[str, Any], source: str = "params.yaml") -> Settings:
    """Checks parameters that are already a mapping; raises `SettingsError` with every fault."""
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        faults = [describe(item, Settings) for item in error.errors()]
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise SettingsError(f"{source}: {count}\n" + "\n".join(f"  - {fault}" for fault in faults)) from None
