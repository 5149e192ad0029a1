"""The candidate bundle: one folder with everything in a model version. Equal inputs give equal bytes.

policy/ verifier/        the models, as `from_pretrained` folders (safetensors, no pickles)
metrics.json             of the policy alone; comparison.json with the others, on the same clips
predictions.parquet      what a later candidate is compared with
gates.json card.md       verdicts, and the card for people
serving.json             how a clip is decoded before the policy sees it, and what the policy was tested with
label_spaces/            of the data sets that it was tested with, those that don't come with erv
bundle.json              SHA-256 of every file, and the hash of them all: the bundle's name in the registry
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.errors import RegistryError
from erv.files import PICKLES, sha256_of_file, sha256_of_text, whole_folder
from erv.register.gates import SCOPE, decide, require_test_split
from erv.register.tested import store_spaces
from erv.register.verdict import CHAMPION, Verdict, read_verdict
from erv.settings import RegisterSettings

MANIFEST = "bundle.json"
EXTERNAL = "external.json"  # only in a bundle that was imported: what it says of its origin


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk that matches its `bundle.json`."""

    folder: Path
    hash: str
    files: Mapping[str, str]
    verdicts: tuple[Verdict, ...]

    def json(self, name: str) -> Any:
        """The content of one of its JSON files."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    @property
    def is_external(self) -> bool:
        """Whether its policy was not made by this pipeline (`erv.register.external`)."""
        return EXTERNAL in self.files


def write_candidate(
    folder: Path,
    *,
    policy: Path,
    verifier: Path,
    evaluations: Path,
    comparison: Path,
    serving: Mapping[str, Any],
    settings: RegisterSettings,
    seed: int,
) -> Bundle:
    """Writes the bundle of `settings.policy` and decides the gates that need no champion.

    Args:
        folder: the folder to write; it is replaced as a whole.
        policy: the policy's folder.
        verifier: the verifier's folder.
        evaluations: a folder per policy, with its `metrics.json` and `predictions.parquet`.
        comparison: the report's `comparison.json`.
        serving: what `erv.answering.predictor` needs to decode a clip as it was decoded for training; the
            data sets of the evaluation are added.
        settings: the `register` section.
        seed: of the draws for the intervals of gates.

    Raises:
        RegistryError: an input is missing, holds a file that runs code when loaded, or was not measured on
            the test split, or the comparison doesn't say how good verifier and judge are.
        DataError: a data set's label space is missing or contradicts itself.
    """
    from erv.evaluate.evaluate import read_predictions

    compared = _read_json(comparison, "report")
    quality = _quality(compared, comparison)
    verdicts = decide(settings.gates, settings.policy, _for_gates(evaluations, compared, settings, seed))
    evaluation = evaluations / settings.policy
    with whole_folder(folder) as work:
        copy_tree(policy, work / "policy", "grpo")
        copy_tree(verifier, work / "verifier", "train_erv")
        _copy(evaluation / "metrics.json", work / "metrics.json", "evaluate")
        _copy(evaluation / "predictions.parquet", work / "predictions.parquet", "evaluate")
        predictions = read_predictions(work / "predictions.parquet")
        require_test_split(predictions)
        _copy(comparison, work / "comparison.json", "report")
        write_json(work / "gates.json", [verdict.as_dict() for verdict in verdicts])
        datasets = store_spaces((row["dataset"] for row in predictions), work)
        write_json(work / "serving.json", {**serving, "datasets": datasets})
        card = _card(settings, compared, verdicts, work, quality)
        (work / "card.md").write_text(card, encoding="utf-8")
        write_manifest(work)
    return read_bundle(folder)


def write_manifest(folder: Path) -> None:
    """Writes `bundle.json`, which makes a folder a bundle."""
    files = hash_files(folder)
    write_json(folder / MANIFEST, {"files": files, "hash": bundle_hash(files)})


def _for_gates(
    evaluations: Path, compared: Mapping[str, Any], settings: RegisterSettings, seed: int
) -> dict[str, Any]:
    """The comparison of the policies that gates name, with the intervals of the gates' own settings."""
    from erv.evaluate.by_judge import worth_of_judges
    from erv.evaluate.compare import compare
    from erv.evaluate.evaluate import read_predictions

    asked = {settings.policy, *(gate.against for gate in settings.gates)} - {None, CHAMPION}
    names = [name for name in compared.get("order", ()) if name in asked]
    metrics = {name: _read_json(evaluations / name / "metrics.json", "evaluate") for name in names}
    if settings.policy not in names:
        return dict(compared)  # `decide` says what is missing
    result = compare(
        {name: read_predictions(evaluations / name / "predictions.parquet") for name in names},
        samples=settings.bootstrap_samples,
        confidence=settings.confidence,
        seed=seed,
        worth=worth_of_judges(metrics),
        unexplained=[name for name, item in metrics.items() if not item.get("explains", True)],
    )
    return result | {key: compared[key] for key in ("judge", "verifier") if key in compared}


def _quality(compared: Mapping[str, Any], path: Path) -> list[str]:
    """A line each on the verifier and the judge; without these figures the others can't be judged."""
    from erv.evaluate.judges import judge_quality

    verifier, judge = compared.get("verifier", {}), compared.get("judge", {})
    try:
        f1, count = float(verifier["macro_f1"]), int(verifier["n"])
        return [
            f"verifier: macro F1 {f1:.3f} on {count} held-out sentences",
            f"judge: {judge_quality(judge)}",
        ]
    except (KeyError, TypeError, ValueError):
        raise RegistryError(
            f"{path}: lacks the quality of the verifier (macro_f1, n) or of the judge (its"
            " worth), so its gates mean nothing; run `dvc repro report` again"
        ) from None


def read_bundle(folder: Path) -> Bundle:
    """Opens a bundle and checks every file against its manifest.

    Raises:
        RegistryError: there is no bundle, or a file is missing, changed or added.
    """
    manifest = _read_json(folder / MANIFEST, "register")
    files = hash_files(folder)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise RegistryError(
            f"{folder / MANIFEST}: not what register writes; restore it with `dvc checkout --force register`"
        )
    listed = manifest["files"]
    changed = sorted({path for path in {*files, *listed} if files.get(path) != listed.get(path)})
    if changed or bundle_hash(files) != manifest.get("hash"):
        raise RegistryError(
            f"{folder}: {', '.join(changed[:3]) or MANIFEST} does not match {MANIFEST}; "
            "restore it with `dvc checkout --force register`"
        )
    gates = json.loads((folder / "gates.json").read_text(encoding="utf-8"))
    return Bundle(folder, manifest["hash"], files, tuple(map(read_verdict, gates)))


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a bundle except its manifest, by relative path, sorted."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: sha256_of_file(path) for name, path in sorted(found.items()) if name != MANIFEST}


def bundle_hash(files: Mapping[str, str]) -> str:
    """The hash of a bundle: SHA-256 over its files' paths and hashes."""
    return sha256_of_text("".join(f"{digest}  {name}\n" for name, digest in sorted(files.items())))


def _card(
    settings: RegisterSettings,
    comparison: Mapping[str, Any],
    verdicts: Sequence[Verdict],
    work: Path,
    quality: Sequence[str],
) -> str:
    from erv.evaluate.compare import format_table, metrics_table, table_notes

    percent = round(100 * float(comparison["confidence"]))
    policy = hash_files(work / "policy")
    verifier = hash_files(work / "verifier")
    lines = [
        f"# {settings.model_name}",
        "",
        f"Policy `{settings.policy}`: names the emotion that a person in a clip shows by face and voice, and "
        "explains it. With it comes the verifier that its explanations were rewarded by.",
        "",
        "## Metrics",
        "",
        format_table(metrics_table(comparison, SCOPE)),
        "",
        f"In percent over all clips, with {percent}% intervals. WAR, UAR: recall of the answers. EEA: the "
        "explanation speaks of the true emotion. EPC: it agrees with the answer. FCR: both are right. "
        "Inconsistency: of the right answers, those whose explanation names another emotion. The "
        "explanations were judged by a model that had no part in the reward.",
        "",
        *[f"- {note}" for note in table_notes(comparison, SCOPE)],
        "",
        "## Verifier and judge",
        "",
        *[f"- {line}" for line in quality],
        "",
        "## Gates",
        "",
        *[f"- {verdict.text()}" for verdict in verdicts],
        "",
        "## Limits",
        "",
        "Emotions are read as data sets label them, from acted or filmed scenes; what a person feels may be "
        "something else. An explanation that agrees with its answer can still name a cue that is not there. "
        "Not for decisions about people.",
        "",
        "## Content",
        "",
        f"- policy: {len(policy)} files, `{bundle_hash(policy)}`",
        f"- verifier: {len(verifier)} files, `{bundle_hash(verifier)}`",
    ]
    return "\n".join(lines) + "\n"


def copy_tree(source: Path, target: Path, stage: str) -> None:
    """Copies a folder that a stage wrote; raises RegistryError if it is missing or holds a pickle."""
    if not source.is_dir():
        raise RegistryError(f"{source}: not found; run `dvc repro {stage}` first")
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        if path.suffix in PICKLES:
            raise RegistryError(f"{path}: such a file runs code when it is loaded; save as safetensors")
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _copy(source: Path, target: Path, stage: str) -> None:
    if not source.is_file():
        raise RegistryError(f"{source}: not found; run `dvc repro {stage}` first")
    shutil.copyfile(source, target)


def _read_json(path: Path, stage: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RegistryError(f"{path}: not found; run `dvc repro {stage}` first") from None
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{path}: not valid JSON ({error}); run `dvc repro {stage}` again") from None


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON; equal values give equal bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
