"""The runtime of tests: one process with one thread on the CPU."""

from erv.settings import RuntimeSettings

RUNTIME = RuntimeSettings(
    device="cpu", dtype="float32", threads=1, accelerate=None, processes=1, feature_cache_gb=1.0
)
