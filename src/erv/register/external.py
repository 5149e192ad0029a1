"""Imports a `from_pretrained` folder as an external version: one that this pipeline did not make.

Its lineage ends at the folder's hashes; what the folder says of its origin is kept as a claim. It has no
gates, so it becomes champion only by force, with a reason.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.environment import Environment
from erv.errors import DataError, RegistryError
from erv.files import followed, parse_yaml, remove, whole_folder
from erv.model_folders import check_folder
from erv.policies.common.arm import FILE as ARM
from erv.policies.common.arm import Arm, stated_arm
from erv.policies.common.families import family_of, read_config
from erv.policies.common.policy import stored_prompt
from erv.register.card import with_verdicts
from erv.register.claimed import claims_in, misfits
from erv.register.decoding import fault_of
from erv.register.explained import explained
from erv.register.record import RECORD
from erv.register.register import EXTERNAL, Bundle, copy_tree, read_bundle, write_json, write_manifest
from erv.register.registration import one_version
from erv.register.serving_code import serving_code
from erv.register.tested import SPACES, store_spaces, take_spaces
from erv.register.turn import registry_turn
from erv.register.usable import check_usable
from erv.tracking.lock_entries import client_of

# What an exported folder has beside the policy: `erv.export.export` writes them.
VERIFIER, SERVING, CARD = "verifier", "serving.json", "README.md"
_NO_LINKS = "`hf download NAME --local-dir FOLDER` makes a folder without links"
_BESIDE = (SERVING, RECORD, CARD)
# The header that model hubs read: YAML between two lines of dashes, at the top.
_HEADER = re.compile(r"---[ \t]*\n(?P<yaml>(?:.*\n)*?)---[ \t]*(?:\n|\Z)")


def write_external(
    folder: Path,
    bundle: Path,
    *,
    verifier: Path | None,
    serving: Mapping[str, Any],
    datasets: Sequence[str] = (),
) -> Bundle:
    """Writes the bundle of a folder from elsewhere. Equal folders give equal bytes.

    Args:
        folder: an exported version, or any folder with a policy; nothing in it is run.
        bundle: the folder to write; it is replaced as a whole.
        verifier: a verifier's folder, used if `folder` has none.
        serving: content of `serving.json` but for `datasets`, used if `folder` has none.
        datasets: what such a folder's policy will be tested with; their label spaces are the workspace's.

    Raises:
        TrainingError: there is no policy, or no family reads it.
        DataError: loading the policy or the verifier would run code.
        RegistryError: there is no verifier, weights or tokenizers are missing or damaged, `serving.json` is
            not what an export has or says too little for the policy's question, the card is no text, or
            something leads out of the folder.
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
    exported = (folder / SERVING).is_file()
    if exported:
        serving = _json(folder / SERVING)
        if fault := fault_of(serving):
            raise RegistryError(
                f"{folder / SERVING}: {fault}, so this erv did not export it; export the version again"
            )
        _check_question(folder, serving)
    check_usable(folder, family, found, serving)
    card = _card(folder, family)
    with whole_folder(bundle) as work:
        policy = work / "policy"
        copy_tree(folder, policy, "export")
        for name in (VERIFIER, SPACES):
            shutil.rmtree(policy / name, ignore_errors=True)
        for name in (*_BESIDE, *hidden(folder)):
            remove(policy / name)
        copy_tree(found, work / VERIFIER, "train_erv")
        if exported:
            take_spaces(folder, serving.get("datasets") or {}, work)
        elif datasets:
            serving = {**serving, "datasets": store_spaces(datasets, work)}
        write_json(work / SERVING, serving)
        write_json(work / "gates.json", [])
        write_json(work / EXTERNAL, _origin(folder))
        (work / "card.md").write_text(card, encoding="utf-8", newline="\n")
        write_manifest(work)
    return read_bundle(bundle)


def hidden(folder: Path) -> list[str]:
    """What of a folder is left out: entries such as `.cache`, in which downloads keep times of their own."""
    return sorted(path.name for path in folder.glob(".*"))


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
    arm = stated_arm(folder)
    if arm.folder is not None:
        raise RegistryError(
            f"{folder}: is an arm, whose weights are elsewhere; name the folder with the weights"
        )
    if arm not in (Arm(), Arm(thinks=False)):
        raise RegistryError(
            f"{folder / ARM}: expected whether the policy thinks and nothing else, as training writes it;"
            " fetch the folder again"
        )
    for path in sorted(folder.rglob("*")):
        if not path.is_symlink():
            continue
        try:
            real = followed(path)
        except OSError:
            raise RegistryError(f"{path}: a link that leads nowhere; {_NO_LINKS}") from None
        if not real.is_relative_to(folder.resolve()):
            raise RegistryError(f"{path}: a link that leads out of the folder; {_NO_LINKS}")
        if real.is_dir():  # its files would be left out
            raise RegistryError(f"{path}: a link to a folder; {_NO_LINKS}")


def _check_question(folder: Path, serving: Mapping[str, Any]) -> None:
    """Refuses a policy whose question lists emotions, if nobody knows which."""
    if "labels" in stored_prompt(folder).fields and not serving.get("datasets"):
        raise RegistryError(
            f"{folder / SERVING}: does not say with which data sets the policy was tested (datasets), and its"
            " question lists their emotions; export it from a version that says so, or take the file away:"
            " those of roles.test count then"
        )


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
    """The text of the folder's card without its header, under a sentence that says what this is.

    Raises:
        RegistryError: it is not UTF-8.
    """
    path = folder / CARD
    try:
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise RegistryError(
            f"{path}: can't be read as UTF-8 text (byte {error.start}); save it as UTF-8, or take it away"
        ) from None
    text = _without_header(text)
    said = (
        f"External: a policy of the family {family} that this pipeline did not make. No gate of it was"
        " decided here, and nothing that its card says was verified."
    )
    card = with_verdicts(text, None).strip()  # older exports have open gates
    return f"{said} Its card said:\n\n{card}\n" if card else f"{said}\n"


def _without_header(text: str) -> str:
    """A card without its header; lines of dashes that hold no YAML mapping are text."""
    header = _HEADER.match(text)
    if header is None:
        return text
    try:
        values = parse_yaml(header["yaml"].encode())
    except ValueError:
        return text
    return text[header.end() :] if values is None or isinstance(values, dict) else text


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{path}: not valid JSON ({error}); export the version again") from None
    if not isinstance(content, dict):
        raise RegistryError(f"{path}: expected a JSON object; export the version again")
    return content
