"""The champion's answers on the present test clips, so that a candidate can be compared with it.

Those that are kept with it count if they are as they were registered, of the same clips, read by the same
judges and decoded alike. If they aren't, its policy is fetched from the registry and evaluated as the
candidate was, by the command that `dvc.lock` has for the candidate. That is no stage: which version is
champion is known to the registry alone, and no result of the pipeline depends on it. A killed evaluation goes
on where it stopped.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from erv.environment import Environment
from erv.errors import RegistryError
from erv.files import sha256_of_file
from erv.pipeline import in_use, read_lock_entries
from erv.policies.common.families import family_fault, read_config
from erv.register.evaluate_stage import METRICS, PREDICTIONS, names_its_policy, run_for
from erv.register.gates import content_unknown, measured_otherwise
from erv.register.record import RECORD, RECORD_TAG
from erv.register.register import Bundle, read_bundle, write_json
from erv.register.verdict import CHAMPION
from erv.register.versions import PATH_TAG
from erv.settings import Settings
from erv.tracking.opening import FLOW_VARIABLES, PARENT_VARIABLE, flow_run_id
from erv.tracking.patience import repeated

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from erv.media.decode import DecodeRule

logger = logging.getLogger(__name__)

_REMEDY = "`erv promote --force --reason TEXT` decides without a comparison"
KEPT = "champion"  # folder of a publication's run, with the answers that were made for it


@dataclass(frozen=True)
class Opponent:
    """The champion as a candidate meets it.

    Attributes:
        version: its number.
        predictions: its rows of predictions; none if `missing` says why.
        metrics: content of its `metrics.json`.
        anew: whether it was evaluated now.
        missing: why it can't be compared; empty if it can.
    """

    version: str
    predictions: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    anew: bool = False
    missing: str = ""


def opponent(
    client: MlflowClient,
    environment: Environment,
    bundle: Bundle,
    number: str,
    settings: Settings,
    *,
    parent_run_id: str | None,
    cancelled: Callable[[], bool],
) -> Opponent:
    """The champion's kept answers, or new ones if the test clips, the judges, their code or decoding changed.

    Args:
        client: of the registry.
        environment: where it is evaluated.
        bundle: the candidate.
        number: of the version that is champion.
        settings: for the model's name and the candidate's policy.
        parent_run_id: the run of MLflow under which the evaluation is shown.
        cancelled: asked while it is evaluated.

    Raises:
        RegistryError: the champion was not published by erv, or its evaluation failed.
        MlflowException: MLflow can't be reached or refuses.
        StageCancelledError: `cancelled` returned True.
    """
    from erv.evaluate.evaluate import read_predictions

    environment.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="champion-", dir=environment.state) as name:
        kept = _Kept(client, settings.register_.model_name, number, Path(name))
        answers = kept.answers()
        mine = read_predictions(bundle.folder / "predictions.parquet"), bundle.json("metrics.json")
        if why := content_unknown(mine[0]):
            return _missing(number, why)
        if answers is None:  # an external version has none
            why = f"the registry has no answers of version {number}, the champion, as they were registered"
        elif not (why := _otherwise(bundle, mine, answers)):
            return answers
        entry = in_use(read_lock_entries()).get(f"evaluate@{settings.register_.policy}", {})
        copy = kept.bundle()
        hindrance = _hindrance(bundle, copy, settings, entry)
        if copy is None or hindrance:
            return _missing(number, f"{why}, and can't be evaluated anew, as {hindrance}")
        logger.warning("%s; evaluating version %s anew", why, number)
        folder = Path(name) / "anew"
        flow = repeated(lambda: flow_run_id(client, parent_run_id))
        runs = {PARENT_VARIABLE: parent_run_id, FLOW_VARIABLES[0]: flow}
        _evaluate(str(entry["cmd"]), copy, folder, environment, runs, cancelled)
        found = replace(_read(number, folder), anew=True)
    why = _otherwise(bundle, mine, found)
    return _missing(number, f"{why}, also after it was evaluated anew") if why else found


def keep_answers(client: MlflowClient, run_id: str, other: Opponent) -> None:
    """Stores the answers of a champion that was evaluated anew, on which verdicts rest.

    They lie below `champion/`, in a folder named by its version and the SHA-256 of its predictions, as far as
    it fits a name.

    Args:
        client: of MLflow.
        run_id: of the run that published the candidate.
        other: the champion.
    """
    from erv.evaluate.evaluate import write_predictions

    with tempfile.TemporaryDirectory() as name:
        predictions = Path(name) / PREDICTIONS
        write_predictions(other.predictions, predictions)
        write_json(Path(name) / METRICS, other.metrics)
        place = f"{KEPT}/{other.version}-{sha256_of_file(predictions)[:12]}"
        repeated(lambda: client.log_artifacts(run_id, name, place))


def _missing(number: str, reason: str) -> Opponent:
    return Opponent(number, missing=f"{reason}; {_REMEDY}")


def _otherwise(bundle: Bundle, mine: tuple[list[dict[str, Any]], dict[str, Any]], other: Opponent) -> str:
    return measured_otherwise(bundle.verdicts, mine[0], other.predictions, mine[1], other.metrics)


class _Kept:
    """What the registry keeps of a version, fetched as far as it is needed: weights may be many GB.

    A file that isn't as it was registered counts as missing, because verdicts would rest on it.

    Raises:
        RegistryError: the version was not published by erv.
    """

    def __init__(self, client: MlflowClient, name: str, number: str, folder: Path) -> None:
        tags = client.get_model_version(name, number).tags
        if PATH_TAG not in tags:
            raise RegistryError(
                f"{name} version {number} is the champion but was not published by erv; "
                "remove its alias or promote another version"
            )
        self._number, self._folder, self._record = number, folder, tags.get(RECORD_TAG)
        self._model, self._path, self._server = (
            f"models:/{name}/{number}",
            tags[PATH_TAG],
            client.tracking_uri,
        )

    def answers(self) -> Opponent | None:
        """Its predictions and metrics; None if one of the files isn't there."""
        if not {PREDICTIONS, METRICS} <= self._listed(self._path):
            return None
        for file in (PREDICTIONS, METRICS):
            fetched = self._fetched(f"{self._path}/{file}", self._folder / "answers")
        return _read(self._number, fetched.parent) if self._is_registered(fetched.parent) else None

    def bundle(self) -> Bundle | None:
        """All of it; None if it isn't whole."""
        fetched = self._fetched(self._path, self._folder / "bundle")
        try:
            return read_bundle(fetched) if self._is_registered(fetched) else None
        except RegistryError as error:
            logger.warning("the registry's copy of version %s: %s", self._number, error)
            return None

    def _is_registered(self, folder: Path) -> bool:
        """Whether all files of a copy, of the bundle or of a part of it, are as they were registered."""
        if self._record is None:  # an older erv recorded none
            return True
        files = [path for path in folder.rglob("*") if path.is_file()]
        expected = self._digests
        changed = sorted(
            path.relative_to(folder).as_posix()
            for path in files
            if sha256_of_file(path) != expected.get(f"{self._path}/{path.relative_to(folder).as_posix()}")
        )
        if changed:
            logger.warning("version %s: %s changed since it was registered", self._number, changed[0])
        return not changed

    @cached_property
    def _digests(self) -> Mapping[str, str]:
        """SHA-256 of each file of the version; none if the record of them isn't there, or was changed."""
        if RECORD not in self._listed(""):
            return {}
        path = self._fetched(RECORD, self._folder / "record")
        if sha256_of_file(path) != self._record:
            return {}
        files: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["files"]
        return files

    def _listed(self, path: str) -> set[str]:
        import mlflow
        from mlflow.exceptions import MlflowException

        where = {"artifact_uri": f"{self._model}/{path}".rstrip("/"), "tracking_uri": self._server}
        try:
            found = repeated(lambda: mlflow.artifacts.list_artifacts(**where))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return set()
            raise
        return {PurePosixPath(item.path).name for item in found}

    def _fetched(self, path: str, folder: Path) -> Path:
        import mlflow

        folder.mkdir(exist_ok=True)
        where = {
            "artifact_uri": f"{self._model}/{path}",
            "dst_path": str(folder),
            "tracking_uri": self._server,
        }
        return Path(repeated(lambda: mlflow.artifacts.download_artifacts(**where)))


def _read(number: str, folder: Path) -> Opponent:
    from erv.evaluate.evaluate import read_predictions

    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    return Opponent(number, read_predictions(folder / PREDICTIONS), metrics)


def _hindrance(bundle: Bundle, champion: Bundle | None, settings: Settings, entry: Mapping[str, Any]) -> str:
    """Why the champion can't be evaluated as the candidate was; empty if it can."""
    command = entry.get("cmd")
    if not names_its_policy(command):
        return f"dvc.lock has no command of evaluate@{settings.register_.policy} that says how"
    if champion is None:
        return "the registry has no whole copy of it"
    if _decode_rule(champion) != _decode_rule(bundle):
        return "it sees clips that are decoded otherwise"
    policy = champion.folder / "policy"
    fault = family_fault(read_config(policy), "its policy", settings.policy.family)
    return fault or ""


def _decode_rule(bundle: Bundle) -> DecodeRule:
    """How clips are decoded for a policy; the rest of its `serving.json` is about answering."""
    from erv.media.decode import DecodeRule

    known = {rule.name for rule in fields(DecodeRule)}
    return DecodeRule(**{name: value for name, value in bundle.json("serving.json").items() if name in known})


def _evaluate(
    command: str,
    champion: Bundle,
    folder: Path,
    environment: Environment,
    runs: Mapping[str, str | None],
    cancelled: Callable[[], bool],
) -> None:
    """Runs the command of the candidate's evaluation for the champion; the results are in `folder`.

    `runs` are the variables that say under which runs of MLflow and Prefect it is shown.
    """
    policy = champion.folder / "policy"
    if reason := run_for(command, CHAMPION, policy, folder, environment, runs, cancelled):
        raise RegistryError(
            f"the champion can't be compared, because its evaluation on the present test clips failed:"
            f" {reason}; `erv publish` tries again"
        )
