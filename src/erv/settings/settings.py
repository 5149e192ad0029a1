"""`params.yaml` as frozen, typed settings, parsed once; all faults are reported together.

Each section has its own module. Checks across sections run here, before any GPU or download is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from erv.errors import SettingsError
from erv.files import parse_yaml
from erv.settings import across
from erv.settings.arms import ArmSettings
from erv.settings.compare import CompareSettings
from erv.settings.controls import ControlsSettings
from erv.settings.distill import DistillSettings
from erv.settings.evaluate import EvaluateSettings
from erv.settings.extract import ExtractSettings
from erv.settings.faults import describe, own_faults
from erv.settings.grounding import GroundingSettings
from erv.settings.grpo import GrpoSettings
from erv.settings.ingest import DatasetName, IngestSettings
from erv.settings.leakage import LeakageSettings
from erv.settings.machine import MachineSettings
from erv.settings.policy import PolicySettings
from erv.settings.register import RegisterSettings
from erv.settings.report import ReportSettings
from erv.settings.roles import RolesSettings
from erv.settings.rollouts import RolloutSettings
from erv.settings.runtime import RuntimeSettings
from erv.settings.section import Section
from erv.settings.sft import SftSettings
from erv.settings.sources import SourcesSettings
from erv.settings.study import StudySettings
from erv.settings.train_erv import TrainErvSettings
from erv.settings.validate import ValidateSettings
from erv.settings.variants import VariantSettings


class Settings(Section):
    """All of `params.yaml`."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    runtime: RuntimeSettings
    machine: MachineSettings
    policy: PolicySettings
    datasets: Annotated[tuple[DatasetName, ...], Field(min_length=1)]
    roles: RolesSettings
    sources: SourcesSettings
    ingest: IngestSettings
    validate_: Annotated[ValidateSettings, Field(alias="validate")]
    extract: ExtractSettings
    leakage: LeakageSettings
    sft: SftSettings
    rollouts: RolloutSettings
    distill: DistillSettings
    train_erv: TrainErvSettings
    grpo: GrpoSettings
    variants: Annotated[dict[str, VariantSettings], Field(min_length=1)]
    arms: tuple[ArmSettings, ...]
    compare: CompareSettings
    evaluate: EvaluateSettings
    controls: ControlsSettings
    grounding: GroundingSettings
    report: ReportSettings
    register_: Annotated[RegisterSettings, Field(alias="register")]
    study: StudySettings

    @model_validator(mode="after")
    def _sections_fit(self) -> Settings:
        faults = across.faults(self)
        if faults:
            raise ValueError("; ".join(faults))
        return self


def load_settings(path: str | Path = "params.yaml") -> Settings:
    """Reads and checks the parameters.

    Raises:
        SettingsError: the file is missing, is not YAML, or has faults; the message lists all, one per line.
    """
    path = Path(path)
    try:
        raw = parse_yaml(path.read_bytes())
    except FileNotFoundError:
        raise SettingsError(f"{path}: not found; run this from the top of the repository") from None
    except OSError as error:
        raise SettingsError(f"{path}: can't be read as UTF-8 text ({error})") from error
    except ValueError as error:
        raise SettingsError(f"{path}: {error}; correct it, or restore it from git") from None
    if not isinstance(raw, dict):
        raise SettingsError(f"{path}: expected a mapping of sections, found {type(raw).__name__}")
    return parse_settings(raw, source=str(path))


def parse_settings(raw: dict[str, Any], source: str = "params.yaml") -> Settings:
    """Checks parameters that are already a mapping; raises `SettingsError` listing every fault."""
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        faults = [describe(item, Settings) for item in own_faults(error.errors())]
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise SettingsError(f"{source}: {count}\n" + "\n".join(f"  - {fault}" for fault in faults)) from None
