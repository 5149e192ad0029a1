"""`params.yaml` as frozen, typed settings, parsed once; all faults are reported together."""

from erv.settings.arms import ArmSettings
from erv.settings.compare import CompareSettings
from erv.settings.controls import ControlsSettings
from erv.settings.distill import DistillSettings
from erv.settings.evaluate import EvaluateSettings
from erv.settings.extract import ExtractSettings
from erv.settings.grounding import GroundingSettings
from erv.settings.grpo import GrpoSettings, LossType, ShapingSettings
from erv.settings.ingest import IngestSettings
from erv.settings.leakage import LeakageSettings
from erv.settings.lora import LoraSettings
from erv.settings.machine import MachineSettings
from erv.settings.policy import PolicySettings
from erv.settings.register import GateSettings, RegisterSettings
from erv.settings.report import ReportSettings
from erv.settings.roles import RolesSettings
from erv.settings.rollouts import RolloutSettings
from erv.settings.runtime import RuntimeSettings
from erv.settings.settings import Settings, load_settings, parse_settings
from erv.settings.sft import SftSettings
from erv.settings.sources import SourcesSettings
from erv.settings.train_erv import TrainErvSettings
from erv.settings.validate import ValidateSettings
from erv.settings.variants import BUILT_IN_REWARDS, RewardSettings, VariantSettings

__all__ = [
    "BUILT_IN_REWARDS",
    "ArmSettings",
    "CompareSettings",
    "ControlsSettings",
    "DistillSettings",
    "EvaluateSettings",
    "ExtractSettings",
    "GateSettings",
    "GroundingSettings",
    "GrpoSettings",
    "IngestSettings",
    "LeakageSettings",
    "LoraSettings",
    "LossType",
    "MachineSettings",
    "PolicySettings",
    "RegisterSettings",
    "ReportSettings",
    "RewardSettings",
    "RolesSettings",
    "RolloutSettings",
    "RuntimeSettings",
    "Settings",
    "SftSettings",
    "ShapingSettings",
    "SourcesSettings",
    "TrainErvSettings",
    "ValidateSettings",
    "VariantSettings",
    "load_settings",
    "parse_settings",
]
