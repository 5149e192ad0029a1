"""register: writes the candidate bundle of the chosen policy, with the verdicts of its gates.

Command: see `register` in dvc.yaml. Publishing is not part of this stage, because a registry entry is not a
file: the flow, or `erv publish`, makes sure that the bundle is registered.

Deviations from the paper: the paper has no such step.
"""

from pathlib import Path

from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Writes the bundle."""
    from erv.register.decoding import serving_settings
    from erv.register.register import write_candidate

    name = settings.register_.policy
    bundle = write_candidate(
        arguments.candidate,
        policy=arguments.policies / name,
        verifier=arguments.verifier,
        evaluations=arguments.evaluations,
        comparison=arguments.comparison,
        serving=serving_settings(settings),
        settings=settings.register_,
        seed=settings.seed,
    )
    for verdict in bundle.verdicts:
        if verdict.value is not None:
            against = f"-{verdict.against}" if verdict.against else ""
            judge = f" by {verdict.judge}" if verdict.judge else ""
            run.log_metrics({f"gate/{verdict.metric}{against}{judge}": verdict.value})
    run.log_params({"bundle": bundle.hash})
    run.log_artifact(arguments.candidate / "card.md")
    run.log_artifact(arguments.candidate / "gates.json")


if __name__ == "__main__":
    run_stage(
        "register",
        main,
        Option("comparison", Path),
        Option("evaluations", Path),
        Option("policies", Path),
        Option("verifier", Path),
        Option("candidate", Path),
    )
