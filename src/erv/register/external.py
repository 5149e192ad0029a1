"""Imports a `from_pretrained` folder as an external version: one that this pipeline did not make.

Its lineage ends at the folder's hashes; what the folder says of its origin is kept as a claim. It has no
gates, so it becomes champion only by force, with a reason.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from erv.environment import Environment
from erv.errors import DataError, RegistryError
from erv.files import whole_folder
from erv.model_folders import check_folder
from erv.policies.common.arm import FILE as ARM
from erv.policies.common.families import family_of, read_config
from erv.register.card import with_verdicts
from erv.register.claimed import claims_in, misfits
from erv.register.explained import explained
from erv.register.record import RECORD
from erv.register.register import EXTERNAL, Bundle, copy_tree, read_bundle, write_json, write_manifest
from erv.register.registration import one_version
from erv.register.serving_code import serving_code
from erv.register.turn import registry_turn
from erv.tracking.lock_entries import client_of

# What an exported folder has beside the policy: `erv.export.export` writes them.
VERIFIER, SERVING, CARD = "verifier", "serving.json", "README.md"
_BESIDE = (SERVING, RECORD, CARD)
_TYPES = {dict: "an object", float: "a number", int: "a whole number", str: "a text"}  # of JSON
_LATER = ("resize",)  # older versions don't say so, and have its default


def write_external(
    folder: Path, bundle: Path, *, verifier: Path | None, serving: Mapping[str, Any]
) -> Bundle:
    """Writes the bundle of a folder from elsewhere. Equal folders give equal bytes.

    Args:
        folder: an exported version, or any folder with a policy; nothing in it is run.
        bundle: the folder to write; it is replaced as a whole.
        verifier: a verifier's folder, used if `folder` has none.
        serving: content of `serving.json`, used if `folder` has none.

    Raises:
        TrainingError: there is no policy, or no family reads it.
        DataError: loading the policy or the verifier would run code.
        RegistryError: there is no verifier, `serving.json` is not what an export has, or something leads
            out of the folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; name one with a policy, such as `erv export` writes")
    family = family_of(read_config(folder), folder)
    check_folder(folder)
    _check_closed(folder)
    found = folder / VERIFIER if (folder / VERIFIER).is_dir() else verifier
    if found is None or not found.is_dir():
        raise RegistryError(f"{folder}: has no {VERIFIER}/; name a verifier's folder with --verifier")
    check_folder(found)
    if (folder / SERVING).is_file():
        usual, serving = serving, _json(folder / SERVING)
        if fault := next(_faults(serving, usual), None):
            raise RegistryError(
                f"{folder / SERVING}: {fault}, so this erv did not export it; export the version again"
            )
    with whole_folder(bundle) as work:
        policy = work / "policy"
        copy_tree(folder, policy, "export")
        shutil.rmtree(policy / VERIFIER, ignore_errors=True)
        for name in _BESIDE:
            (policy / name).unlink(missing_ok=True)
        copy_tree(found, work / VERIFIER, "train_erv")
        write_json(work / SERVING, serving)
        write_json(work / "gates.json", [])
        write_json(work / EXTERNAL, _origin(folder))
        (work / "card.md").write_text(_card(folder, family), encoding="utf-8", newline="\n")
        write_manifest(work)
    return read_bundle(bundle)


def register_external(bundle: Bundle, environment: Environment, name: str) -> tuple[str, bool]:
    """Makes sure that an external bundle is a version; no alias leads to it.

    Args:
        bundle: from `write_external`.
        environment: where MLflow is.
        name: of the registered model.

    Returns:
        The number of the version, and whether this call registered it.

    Raises:
        RegistryError: MLflow can't be reached or refuses, or another process changes the registry for too
            long.
        StorageError: the object store, which keeps the lease, can't be reached.
    """
    with explained(environment), registry_turn(environment, name) as check:
        code = serving_code(bundle.folder)
        version, new, _ = one_version(client_of(environment), bundle, code, name, environment, None, check)
    return str(version.version), new


def _check_closed(folder: Path) -> None:
    """Refuses what would bring files from outside the folder into the version."""
    if (folder / ARM).is_file():
        raise RegistryError(
            f"{folder}: is an arm, whose weights are elsewhere; name the folder with the weights"
        )
    for path in sorted(folder.rglob("*")):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise RegistryError(
                f"{path}: a link that leads out of the folder; `hf download NAME --local-dir FOLDER` makes a"
                " folder without links"
            )


def _faults(found: Mapping[str, Any], usual: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """What is wrong with settings, which must have the names and types of the usual ones."""
    yield from (f"{within}{name} is unknown" for name in sorted(found.keys() - usual.keys()))
    for name, expected in usual.items():
        if name not in found:
            if name not in _LATER:
                yield f"{within}{name} is missing"
        elif isinstance(expected, Mapping) and isinstance(found[name], Mapping):
            yield from _faults(found[name], expected, f"{within}{name}.")
        elif not _fits(found[name], expected):
            yield f"{within}{name} is {found[name]!r}, not {_TYPES[type(expected)]}"


def _fits(value: Any, expected: Any) -> bool:
    if isinstance(expected, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(expected)


def _origin(folder: Path) -> dict[str, Any]:
    """What an exported folder says of its version; nobody here can check it.

    Raises:
        RegistryError: it is not said as `schemas/version.json` has it.
    """
    path = folder / RECORD
    if not path.is_file():
        return {"says": None}
    record = _json(path)
    if fault := next(misfits(record), None):
        raise RegistryError(
            f"{path}: {fault}, so erv did not write it; export the version again, or take the file away"
        )
    return {"says": claims_in(record)}


def _card(folder: Path, family: str) -> str:
    """The text of the folder's card without its header, under a sentence that says what this is."""
    text = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
    if text.startswith("---\n"):
        text = text.partition("\n---\n")[2]
    said = (
        f"External: a policy of the family {family} that this pipeline did not make. No gate of it was"
        " decided here, and nothing that its card says was verified."
    )
    card = with_verdicts(text, None).strip()  # older exports have open gates
    return f"{said} Its card said:\n\n{card}\n" if card else f"{said}\n"


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{path}: not valid JSON ({error}); export the version again") from None
    if not isinstance(content, dict):
        raise RegistryError(f"{path}: expected a JSON object; export the version again")
    return content
