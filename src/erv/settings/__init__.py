"""`params.yaml` as frozen, typed settings; parsed once, every fault reported at once."""

from erv.settings.settings import (
    EvaluateSettings,
    ExtractSettings,
    GateSettings,
    IngestSettings,
    RegisterSettings,
    ReportSettings,
    RuntimeSettings,
    Settings,
    SourcesSettings,
    ValidateSettings,
    load_settings,
    parse_settings,
)

__all__ = [
    "EvaluateSettings",
    "ExtractSettings",
    "GateSettings",
    "IngestSettings",
    "RegisterSettings",
    "ReportSettings",
    "RuntimeSettings",
    "Settings",
    "SourcesSettings",
    "ValidateSettings",
    "load_settings",
    "parse_settings",
]
