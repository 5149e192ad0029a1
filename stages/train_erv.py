"""train_erv: the Emotional Rationale Verifier, a classifier of sentences with calibrated probabilities.

Command: see `train_erv` in dvc.yaml. Deviations from the paper:

1. The encoder comes from the base source; the demo's is small, with random weights. The paper starts from a
   RoBERTa trained on GoEmotions; if you use it, eleven of its outputs are kept.
2. The eleven MAFW names are the labels, not the 28 of GoEmotions.
3. Probabilities are calibrated and each label has its own threshold, both chosen on the validation split;
   the paper uses 0.1 for all labels.
4. Quality is measured on texts held out of training, each counted once, and on cases written by hand.
"""

from pathlib import Path

from erv.checkpoints import checkpoint_folder, clear
from erv.settings import Settings
from erv.sources import Lock, store_for
from erv.stage import Arguments, Option, StageRun, run_stage

ENCODER = Path(".erv/base/encoder")


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Trains, calibrates, measures and writes the verifier."""
    from erv.curves import Curves
    from erv.train_erv.train_erv import train_verifier

    lock = Lock.load(arguments.base)
    store = store_for([lock.uri])
    ENCODER.parent.mkdir(parents=True, exist_ok=True)
    encoder = lock.fetch_tree(store, "encoder", ENCODER)
    checkpoints = checkpoint_folder(
        "train_erv",
        sentences=arguments.sentences,
        encoder=encoder,
        # The minimums decide whether the result is used, not what it is: lowering one resumes.
        settings=settings.train_erv.model_copy(update={"minimum_f1": 0.0, "minimum_labels": 0.0}),
        runtime=settings.runtime,
        seed=settings.seed,
    )
    run.log_dataset("sentences", arguments.sentences, "training")
    curves = Curves(
        checkpoints,
        lambda values, step: run.log_metrics({f"train/{name}": v for name, v in values.items()}, step),
    )
    metrics = train_verifier(
        arguments.sentences,
        encoder,
        arguments.verifier,
        settings.train_erv,
        settings.runtime,
        seed=settings.seed,
        checkpoints=checkpoints,
        on_metrics=curves,
    )
    curves.write(arguments.curves)
    clear(checkpoints)
    names = ("macro_f1", "micro_f1", "exact_match", "calibration_error", "named_calibration_error")
    behaviour = [(name, found) for name, found in metrics["behaviour"].items() if found["total"]]
    run.log_metrics(
        {f"test/{name}": float(metrics[name]) for name in names}
        | {f"test/f1/{label}": float(row["f1"]) for label, row in metrics["per_label"].items()}
        | {f"behaviour/{ability}": found["passed"] / found["total"] for ability, found in behaviour}
    )
    run.log_artifact(arguments.verifier / "README.md", "verifier")
    run.log_artifact(arguments.verifier / "metrics.json", "verifier")


if __name__ == "__main__":
    run_stage(
        "train_erv",
        main,
        Option("sentences", Path),
        Option("base", Path),
        Option("verifier", Path),
        Option("curves", Path),
    )
