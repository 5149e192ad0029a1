"""leakage: compares the clips of all data sets, and fails if one is in two splits.

Command: see `leakage` in dvc.yaml. It runs before any training and reads the data sets that have a role.

Deviations from the paper:
1. The paper compares nothing; its code tests on the file that it trains on. Here, a clip that is trained or
tuned on must not be tested on, not even under another name, in another data set or re-encoded.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage

if TYPE_CHECKING:
    from erv.leakage.fingerprints import Fingerprint
    from erv.manifest import ClipRow

logger = logging.getLogger("stages.leakage")


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Compares the clips; writes the record, the excluded clips and the hashes of the training sets."""
    from erv.exclusions import write_exclusions
    from erv.files import write_document
    from erv.leakage.fingerprints import fingerprint
    from erv.leakage.leakage import exclusions, find_leaks, record, require_none, used
    from erv.manifest import read_manifests
    from erv.shards import ShardReader
    from erv.training_sets import hash_training_sets, write_training_sets

    roles = settings.roles
    names = list(dict.fromkeys([roles.cold_start, *roles.train, *roles.test]))
    manifests = read_manifests(arguments.manifests, names, fold=settings.ingest.fold)
    readers = {name: ShardReader(arguments.shards / name) for name in names}
    clips = used(manifests, roles)

    def fingerprint_of(row: ClipRow) -> Fingerprint | None:
        reader = readers[row.dataset]
        return fingerprint(reader.get(row.clip_id)) if row.clip_id in reader else None

    leaks = find_leaks(clips, fingerprint_of, settings.leakage)
    found = record(clips, leaks, settings.leakage, roles)
    write_exclusions(exclusions(leaks, settings.leakage, roles), arguments.exclusions)
    hashes = hash_training_sets(arguments.manifests, arguments.shards, arguments.cues, roles.train)
    write_training_sets(hashes, arguments.training_sets)
    write_document(found, arguments.record)
    for name in names:
        run.log_dataset(name, arguments.manifests / f"{name}.parquet", "source")
    run.log_metrics({name: float(found[name]) for name in ("same_content", "same_look", "excluded")})
    run.log_metrics({f"clips/{use}": float(count) for use, count in found["clips"].items()})
    run.log_artifact(arguments.record)
    logger.info(
        "%s: %d in two splits",
        ", ".join(f"{count} clips to {_VERBS[use]}" for use, count in found["clips"].items()),
        len(leaks),
    )
    require_none(leaks, settings.leakage, roles)


_VERBS = {"train": "train on", "validation": "tune on", "test": "test on"}


if __name__ == "__main__":
    run_stage(
        "leakage",
        main,
        Option("manifests", Path),
        Option("shards", Path),
        Option("cues", Path),
        Option("record", Path),
        Option("exclusions", Path),
        Option("training-sets", Path),
    )
