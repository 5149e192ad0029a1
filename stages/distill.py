"""distill: teachers label every sentence of the explanations, for the verifier.

Command: see `distill` in dvc.yaml. Deviations from the paper:

1. The demo's teacher, `reference`, reads the labels that came with the reasoning set; the paper asks a large
   language model, as the teachers `openai` and `local` do.
2. Sentences are held out by a hash of their text, so no text is in two splits.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage

if TYPE_CHECKING:
    from erv.distill.corpus import Sentence
    from erv.distill.teachers import Teacher

TEACHERS = Path(".erv/base")


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Collects the sentences, has them labelled and writes table, quarantine and summary."""
    from erv.distill.distill import distill
    from erv.distill.table import write_sentences
    from erv.files import write_document
    from erv.manifest import write_table

    corpus, lost = _corpus(arguments, settings)
    teachers = _teachers(arguments, settings)
    try:
        found = distill(corpus, teachers, settings.distill, settings.seed)
    finally:
        for name, teacher in teachers.items():  # log the usage even after a failure
            if teacher is not None:
                usage = dataclasses.asdict(teacher.usage)
                run.log_metrics({f"{name}/{key}": float(n) for key, n in usage.items() if n is not None})
    if settings.rollouts.policies:
        found.summary["completions_without_explanation"] = lost
    write_table(found.quarantine, arguments.quarantine)
    write_sentences(found.sentences, arguments.sentences)
    write_document(found.summary, arguments.summary)
    run.log_dataset(arguments.manifest.stem, arguments.manifest, "training")
    run.log_metrics(
        {f"sentences/{split}": float(count) for split, count in found.summary["splits"].items()}
        | {"sentences/quarantined": float(found.quarantine.num_rows)}
        | {
            f"kappa/{' / '.join(pair['teachers'])}": pair["kappa"]
            for pair in found.summary["agreement"]
            if pair["kappa"] is not None
        }
    )
    run.log_artifact(arguments.summary)


def _corpus(arguments: Arguments, settings: Settings) -> tuple[list[Sentence], int]:
    """The sentences, and how many sampled completions had no explanation."""
    from erv.distill.corpus import read_corpus, read_rollouts, rollout_sentences
    from erv.exclusions import read_exclusions
    from erv.manifest import read_manifest
    from erv.sources import Lock, store_for

    lock = Lock.load(arguments.reasoning)
    labelled = any(teacher.kind == "reference" for teacher in settings.distill.teachers)
    out = {(item.dataset, item.clip_id) for item in read_exclusions(arguments.exclusions)}
    # The source's labels are checked against all explanations, so excluded ones leave afterwards.
    sentences = [
        sentence
        for sentence in read_corpus(
            lock, store_for([lock.uri]), read_manifest(arguments.manifest), labelled=labelled
        )
        if (sentence.source, sentence.clip_id) not in out
    ]
    lost = 0
    for policy in settings.rollouts.policies:
        explanations, empty = read_rollouts(arguments.rollouts / f"{policy}.parquet")
        sentences += rollout_sentences(explanations)
        lost += empty
    return sentences, lost


def _teachers(arguments: Arguments, settings: Settings) -> dict[str, Teacher | None]:
    """The teachers by name; None for the labels that came with the corpus."""
    from erv.distill.teachers import build_teacher
    from erv.sources import Lock, store_for

    base = Lock.load(arguments.base)

    def folder_of(model: str) -> Path:
        TEACHERS.mkdir(parents=True, exist_ok=True)
        return base.fetch_tree(store_for([base.uri]), model, TEACHERS / model)

    return {
        teacher.name: None
        if teacher.kind == "reference"
        else build_teacher(teacher, runtime=settings.runtime, folder_of=folder_of)
        for teacher in settings.distill.teachers
    }


if __name__ == "__main__":
    run_stage(
        "distill",
        main,
        Option("manifest", Path),
        Option("reasoning", Path),
        Option("base", Path),
        Option("rollouts", Path),
        Option("exclusions", Path),
        Option("sentences", Path),
        Option("quarantine", Path),
        Option("summary", Path),
    )
