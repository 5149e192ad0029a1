"""What a policy says about clips, piece by piece: a killed run goes on and ends with the same bytes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from erv.completions.kept import ROOT, KeptPieces, completions_key
from erv.completions.pieces import Asked, Completed, Decoding, plan
from erv.determinism import resolve_device
from erv.files import sha256_of
from erv.progress import meter
from erv.settings import RuntimeSettings

if TYPE_CHECKING:
    from erv.completions.pieces import Piece

logger = logging.getLogger(__name__)

FEATURES = Path(".erv/features")


def complete(
    name: str,
    dataset: str,
    clips: Sequence[Asked],
    decoding: Decoding,
    *,
    policy: Path,
    shards: Path,
    family: str | None,
    runtime: RuntimeSettings,
    processes: int = 1,
    feature_bytes: int = 0,
    root: Path = ROOT,
    features: Path = FEATURES,
) -> dict[str, Completed]:
    """The completions of a data set's clips.

    Finished pieces are kept outside the outputs and reused, so a killed evaluation goes on where it stopped.
    If all are kept, the policy is not even loaded.

    Args:
        name: name of the policy.
        dataset: name of the data set.
        clips: what is asked about which clips; each is in the shards.
        decoding: how completions are generated.
        policy: folder of the policy.
        shards: folder of the data set's shards.
        family: `policy.family`.
        runtime: device, precision and threads.
        processes: processes that share the pieces; their number changes no completion.
        feature_bytes: size of the store of the towers' features, which policies share; 0 for none.
        root: parent of the folders of kept pieces.
        features: parent of the folders of kept features.

    Returns:
        By clip id.

    Raises:
        DataError: the policy or the shards are missing or damaged.
        EvaluationError: a process was killed, or the policy's probabilities are not finite.
        TrainingError: the folder is not a policy of the family.
    """
    if not clips:
        return {}
    digest = sha256_of(shards)
    device = str(resolve_device(runtime.device))
    key = completions_key(
        policy, digest, clips, decoding, device=device, dtype=runtime.dtype, threads=runtime.threads
    )
    kept = KeptPieces(name, dataset, key, root)
    pieces = plan(clips, decoding.batch_size)
    done: dict[str, Completed] = {}
    todo: list[Piece] = []
    for piece in pieces:
        found = kept.read(piece)
        if found is None:
            todo.append(piece)
        else:
            done |= {item.clip_id: item for item in found}
    if done:
        logger.info("%s: %d of %d completions kept from an earlier run", dataset, len(done), len(clips))
    if todo:
        from erv.completions.answering import Answering, Task

        task = Task(
            dataset=dataset,
            policy=policy,
            family=family,
            shards=shards,
            shards_digest=digest,
            decoding=decoding,
            device=device,
            dtype=runtime.dtype,
            threads=runtime.threads,
            kept=kept,
            feature_bytes=feature_bytes,
            features=features,
        )
        with meter(f"{name} on {dataset}", len(clips), "clips", logger, done=len(done)) as bar:
            if processes > 1 and len(todo) > 1:
                from erv.completions.processes import shared

                answers = shared(task, todo, processes)
            else:
                answering = Answering(task)
                answers = ((piece, answering(piece)) for piece in todo)
            for piece, completed in answers:
                done |= {item.clip_id: item for item in completed}
                bar.update(len(piece.clips))
    kept.remove_others()
    return done
