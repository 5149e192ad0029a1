"""arms: records a policy that is evaluated without being trained here, by the digest of its files.

Command: see `arms` in dvc.yaml. There is one stage per entry of `arms` in params.yaml, none in the demo.
Deviation from the paper: it has no arm that answers without thinking.
"""

from __future__ import annotations

import logging
from pathlib import Path

from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage

logger = logging.getLogger(__name__)


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Writes the folder that stands for the policy."""
    from erv.arms.arms import record_arm

    (thinks,) = (arm.thinks for arm in settings.arms if arm.name == arguments.name)
    arm = record_arm(arguments.folder, arguments.policy, family=settings.policy.family, thinks=thinks)
    run.log_metrics({"arm/files": float(len(arm.sizes)), "arm/bytes": float(sum(arm.sizes.values()))})
    run.log_artifact(arguments.policy / "arm.json")
    says = "" if arm.thinks else ", answers without thinking"
    logger.info("%s: %s, sha256 %s%s", arguments.name, arm.folder, arm.digest, says)


if __name__ == "__main__":
    run_stage("arms", main, Option("name"), Option("folder", Path), Option("policy", Path))
