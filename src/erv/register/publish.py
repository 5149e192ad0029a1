"""The model registry in MLflow: publishing a bundle, gating it, moving aliases.

`publish` makes sure that a bundle is registered and gated on a server, however often it is called: it
recognises a version by the hash of its bundle. A version is gated once; whatever a person decides later
(`promote`, `rollback`) stands. Processes that change the registry take turns (`registry_turn`). Where they
can't see each other's lease, two may still register one bundle: the lowest version stays, the others go.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import erv
from erv.environment import Environment
from erv.errors import RegistryError
from erv.files import content_digest
from erv.pipeline import read_lock_entries
from erv.register.gates import Verdict, decide_against_champion
from erv.register.register import Bundle, read_bundle
from erv.register.turn import registry_turn
from erv.settings import Settings
from erv.stack.reach import require
from erv.tracking.header import RunHeader
from erv.tracking.lock_entries import LOCK_ARTIFACT_FOLDER, client_of, pipeline_files
from erv.tracking.patience import patient_requests, repeated

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
HASH_TAG = "erv.bundle_hash"
PATH_TAG = "erv.bundle_path"
GATES_TAG = "erv.register.gates"
PUBLISH_RUN_TAG = "erv.publish_run"
HISTORY_TAG = "erv.champions"
MODEL_TAG = "erv.model"
PUBLISHER_TAG = "erv.publisher"
# Packages that loading a version needs; the exact versions in this environment are recorded with it.
_REQUIREMENTS = (
    "av", "boto3", "click", "decord", "eva-decord", "fastapi", "filelock", "jinja2", "mlflow", "numpy",
    "pandas", "pillow", "psutil", "pyarrow", "pydantic", "pyyaml", "safetensors", "starlette", "torch",
    "transformers",
)  # fmt: skip


@dataclass(frozen=True)
class PublishResult:
    """A registered version.

    Attributes:
        name: name of the registered model.
        version: number of the version.
        aliases: the aliases that point to it now.
        verdicts: the verdicts on its gates, as decided when it was first published.
        new: whether this call registered it.
        champion: the version that is champion now, or None.
        copies: versions of the same bundle that another process registered at the same time; deleted.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    new: bool
    champion: str | None
    copies: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every gate that counted holds."""
        return all(verdict.passed is not False for verdict in self.verdicts)

    def lines(self) -> list[str]:
        """What happened, in sentences for people."""
        what = "registered" if self.new else "was already registered"
        aliases = f"; alias {', '.join(self.aliases)}" if self.aliases else ""
        lines = [f"{self.name} version {self.version} {what}{aliases}"]
        if self.copies:
            lines.append(f"deleted version {', '.join(self.copies)}: a second registration of this bundle")
        failed = [verdict for verdict in self.verdicts if verdict.passed is False]
        if failed:
            lines.append(f"kept from champion by {len(failed)} of {len(self.verdicts)} gates:")
            lines += [f"  {verdict.text()}" for verdict in failed]
        elif CHAMPION in self.aliases:
            lines.append("all gates hold: it is the champion")
        elif self.champion is not None:
            lines.append(f"champion is version {self.champion}")
        return lines


def publish(
    folder: str | Path,
    environment: Environment,
    settings: Settings,
    parent_run_id: str | None = None,
) -> PublishResult:
    """Makes sure that a bundle is registered and gated.

    Args:
        folder: the bundle, written by `register`.
        environment: where MLflow is.
        settings: for the model's name and the comparison with the champion.
        parent_run_id: the flow's run, under which the publication is shown.

    Raises:
        RegistryError: there is no bundle, it was changed, `dvc.lock` does not describe it, MLflow can't be
            reached or refuses, or another process changes the registry for too long.
        StorageError: the object store, which keeps the lease, can't be reached.
    """
    bundle = read_bundle(Path(folder))
    check_lock(bundle.folder)
    name = settings.register_.model_name
    with _explained(environment), registry_turn(environment, name) as check:
        client = client_of(environment)
        _close_killed(client, environment, name)
        version, new, copies = _one_version(client, bundle, name, environment, parent_run_id, check)
        number = str(version.version)
        if GATES_TAG not in version.tags:
            verdicts = repeated(lambda: _gate(client, bundle, name, number, settings))
            check()
            # The tag comes last, so that the next publication gates one that was interrupted.
            repeated(lambda: client.set_registered_model_alias(name, CHALLENGER, number))
            if all(verdict.passed for verdict in verdicts):
                _make_champion(client, name, number)
            text = json.dumps([verdict.as_dict() for verdict in verdicts])
            repeated(lambda: client.set_model_version_tag(name, number, GATES_TAG, text))
        else:
            verdicts = tuple(Verdict(**gate) for gate in json.loads(version.tags[GATES_TAG]))
        aliases = dict(repeated(lambda: client.get_registered_model(name)).aliases)
    mine = tuple(sorted(alias for alias, owner in aliases.items() if str(owner) == number))
    return PublishResult(name, number, mine, verdicts, new, _text(aliases.get(CHAMPION)), copies)


def check_lock(folder: Path) -> None:
    """Makes sure that a bundle written by `register` is the one in `dvc.lock`, which is stored with it.

    Raises:
        RegistryError: the folder holds a different bundle, or `dvc.lock` has no entry that describes it.
        PipelineError: `dvc.lock` is damaged.
    """
    for name, entry in read_lock_entries().items():
        if name.partition("@")[0] != "register":
            continue
        for out in entry.get("outs") or []:
            if Path(out["path"]).resolve() != folder.resolve():
                continue
            if content_digest(folder) != out.get("md5"):
                raise RegistryError(
                    f"{folder}: not the bundle that dvc.lock describes; run `dvc repro {name}`"
                )
            return
    raise RegistryError(
        f"{folder}: no entry of dvc.lock describes it, so its lineage would be lost; run `dvc repro register`"
    )


def promote(version: str, environment: Environment, settings: Settings) -> str:
    """Makes a version champion by hand, gates or not; returns a sentence for people.

    Raises:
        RegistryError: no such version.
    """
    name = settings.register_.model_name
    with _explained(environment), registry_turn(environment, name) as check:
        client = client_of(environment)
        number = str(repeated(lambda: get_version(client, name, version)).version)
        before = _champion(client, name)
        if before == number:
            return f"{name} version {number} is already the champion"
        check()
        _make_champion(client, name, number)
    return f"{name} version {number} is now the champion" + (f"; it was version {before}" if before else "")


def rollback(environment: Environment, settings: Settings) -> str:
    """Makes the previous champion the champion again; returns a sentence for people.

    Raises:
        RegistryError: there was none.
    """
    name = settings.register_.model_name
    with _explained(environment), registry_turn(environment, name) as check:
        client = client_of(environment)
        history = _history(client, name)
        if len(history) < 2:
            raise RegistryError(f"{name}: there is no previous champion; see `erv promote`")
        present, before = history[-1], history[-2]
        check()
        # The tag first: if it is interrupted then, repeating it goes back to the same version.
        text = ",".join(history[:-1])
        repeated(lambda: client.set_registered_model_tag(name, HISTORY_TAG, text))
        repeated(lambda: client.set_registered_model_alias(name, CHAMPION, before))
    return f"{name} version {before} is the champion again; it was version {present}"


def find_version(client: MlflowClient, name: str, bundle_hash: str) -> ModelVersion | None:
    """The version registered for a bundle, or None."""
    found = versions_of(client, name, bundle_hash)
    return found[0] if found else None


def versions_of(client: MlflowClient, name: str, bundle_hash: str) -> list[ModelVersion]:
    """The versions registered for a bundle, the lowest first."""
    return [v for v in repeated(lambda: versions(client, name)) if v.tags.get(HASH_TAG) == bundle_hash]


def versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions, the oldest first; none if the model is not registered."""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=200, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return sorted(found, key=lambda v: int(v.version))


def get_version(client: MlflowClient, name: str, target: str) -> ModelVersion:
    """The version with a number or an alias.

    Raises:
        RegistryError: no such version.
    """
    from mlflow.exceptions import MlflowException

    try:
        if target.isdigit():
            return client.get_model_version(name, target)
        return client.get_model_version_by_alias(name, target)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise RegistryError(
            f"{name} has no version or alias {target!r}; `erv lineage {CHALLENGER}` shows the newest"
        ) from None


def _one_version(
    client: MlflowClient,
    bundle: Bundle,
    name: str,
    environment: Environment,
    parent_run_id: str | None,
    check: Callable[[], None],
) -> tuple[ModelVersion, bool, tuple[str, ...]]:
    """The only version of a bundle, registered if there is none; whether it is ours; the copies deleted."""
    runs: list[str] = []

    def attempt() -> list[ModelVersion]:
        # An attempt whose answer was lost may have registered it: look before and after.
        if not (found := versions_of(client, name, bundle.hash)):
            check()
            _register(bundle, name, environment, parent_run_id, runs)
            found = versions_of(client, name, bundle.hash)
        return found

    first, *copies = repeated(attempt)
    new = first.tags.get(PUBLISH_RUN_TAG) in runs
    if new:
        card = (bundle.folder / "card.md").read_text(encoding="utf-8")
        repeated(lambda: client.update_model_version(name, first.version, card))
    for copy in copies:
        check()
        _replace(client, name, str(copy.version), str(first.version))
    return first, new, tuple(str(copy.version) for copy in copies)


def _replace(client: MlflowClient, name: str, copy: str, number: str) -> None:
    """Deletes a copy of a version; its aliases and its place in the history go to the version."""
    model = repeated(lambda: client.get_registered_model(name))
    history = [n for n in model.tags.get(HISTORY_TAG, "").split(",") if n]
    if copy in history:
        renamed: list[str] = []
        for entry in history:
            renamed = _extended(renamed, number if entry == copy else entry)
        text = ",".join(renamed)
        repeated(lambda: client.set_registered_model_tag(name, HISTORY_TAG, text))
    for alias in [alias for alias, owner in model.aliases.items() if str(owner) == copy]:
        repeated(lambda alias=alias: client.set_registered_model_alias(name, alias, number))  # type: ignore[misc]
    repeated(lambda: _delete(client, name, copy))


def _delete(client: MlflowClient, name: str, number: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.delete_model_version(name, number)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _close_killed(client: MlflowClient, environment: Environment, name: str) -> None:
    """Closes the runs of killed publications: only one process publishes at a time, and that is us."""
    experiment = repeated(lambda: client.get_experiment_by_name(environment.mlflow_experiment))
    if experiment is None:
        return
    query = "tags.`erv.kind` = 'publish' and attributes.status = 'RUNNING'"
    for run in repeated(lambda: client.search_runs([experiment.experiment_id], query)):
        run_id = run.info.run_id
        if run.data.tags.get(MODEL_TAG, name) == name and not _lives_here(run.data.tags.get(PUBLISHER_TAG)):
            repeated(lambda run_id=run_id: client.set_terminated(run_id, "KILLED"))  # type: ignore[misc]
            logger.warning("closed run %s, which a killed publication left open", run_id)


def _publisher() -> str:
    import psutil

    created = psutil.Process().create_time()
    return json.dumps({"host": platform.node(), "pid": os.getpid(), "created": created})


def _lives_here(publisher: str | None) -> bool:
    """Whether a publisher is another live process of this machine; one that failed in this process isn't."""
    if publisher is None:
        return False
    found = json.loads(publisher)
    if found["host"] != platform.node() or found["pid"] == os.getpid():
        return False
    return RunHeader("", "", 0, pid=found["pid"], created=found["created"]).owner_lives()


def _register(
    bundle: Bundle, name: str, environment: Environment, parent_run_id: str | None, runs: list[str]
) -> None:
    """Stores the bundle as a model and registers it, tagged with its hash from the start.

    The id of the run that does it is added to `runs`.
    """
    import mlflow

    mlflow.set_tracking_uri(environment.mlflow_uri)
    mlflow.set_registry_uri(environment.mlflow_uri)
    mlflow.end_run("FAILED")  # of an earlier attempt that could not be ended
    tags = {
        "erv.kind": "publish",
        HASH_TAG: bundle.hash,
        MODEL_TAG: name,
        PUBLISHER_TAG: _publisher(),
    }
    if parent_run_id:
        tags["mlflow.parentRunId"] = parent_run_id
    experiment = mlflow.set_experiment(environment.mlflow_experiment)
    with mlflow.start_run(experiment_id=experiment.experiment_id, run_name="publish", tags=tags) as run:
        runs.append(run.info.run_id)
        for file in pipeline_files():
            mlflow.log_artifact(str(file), LOCK_ARTIFACT_FOLDER)
        info = mlflow.pyfunc.log_model(name="model", **model_content(bundle.folder))
        mlflow.register_model(
            info.model_uri,
            name,
            tags={
                HASH_TAG: bundle.hash,
                PATH_TAG: f"artifacts/{bundle.folder.name}",
                PUBLISH_RUN_TAG: run.info.run_id,
                **({"erv.parent_run": parent_run_id} if parent_run_id else {}),
            },
        )


def model_content(bundle: Path) -> dict[str, Any]:
    """What MLflow stores of a bundle, as arguments of `mlflow.pyfunc.log_model` and `save_model`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    package = Path(erv.__file__).parent
    columns = [ColSpec("string", column) for column in ("clip", "answer", "explanation")]
    return {
        "python_model": str(package / "register" / "serving_model.py"),
        "artifacts": {"bundle": str(bundle)},
        "code_paths": [str(package)],
        "pip_requirements": _requirements(),
        "signature": ModelSignature(
            inputs=Schema(columns[:1]),
            outputs=Schema(
                [
                    *columns,
                    ColSpec("double", "agreement", required=False),
                    ColSpec("string", "completion"),
                ]
            ),
        ),
    }


def _gate(
    client: MlflowClient, bundle: Bundle, name: str, number: str, settings: Settings
) -> tuple[Verdict, ...]:
    """All verdicts; without a champion, only the gates that need none."""
    from erv.evaluate.evaluate import read_predictions

    champion = _champion(client, name)
    if champion is None or champion == number:
        return tuple(verdict for verdict in bundle.verdicts if verdict.passed is not None)
    predictions, metrics = _evaluation_of(client, name, champion)
    return decide_against_champion(
        bundle.verdicts,
        read_predictions(bundle.folder / "predictions.parquet"),
        predictions,
        samples=settings.report.bootstrap_samples,
        confidence=settings.report.confidence,
        seed=settings.seed,
        candidate_metrics=bundle.json("metrics.json"),
        champion_metrics=metrics,
    )


def _evaluation_of(
    client: MlflowClient, name: str, number: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Predictions of a version, and the content of its `metrics.json`."""
    import tempfile

    import mlflow

    from erv.evaluate.evaluate import read_predictions

    path = client.get_model_version(name, number).tags.get(PATH_TAG)
    if path is None:
        raise RegistryError(
            f"{name} version {number} is the champion but was not published by erv; "
            "remove its alias or promote another version"
        )
    with tempfile.TemporaryDirectory() as folder:
        predictions, metrics = (
            Path(
                mlflow.artifacts.download_artifacts(
                    artifact_uri=f"models:/{name}/{number}/{path}/{file}",
                    dst_path=folder,
                    tracking_uri=client.tracking_uri,
                )
            )
            for file in ("predictions.parquet", "metrics.json")
        )
        return read_predictions(predictions), json.loads(metrics.read_text(encoding="utf-8"))


def _make_champion(client: MlflowClient, name: str, number: str) -> None:
    history = _extended(_history(client, name), number)
    text = ",".join(history[-50:])
    repeated(lambda: client.set_registered_model_alias(name, CHAMPION, number))
    repeated(lambda: client.set_registered_model_tag(name, HISTORY_TAG, text))


def _extended(history: Sequence[str], number: str) -> list[str]:
    """The history with a new champion; a publication that is resumed does not count twice."""
    return [*history] if list(history[-1:]) == [number] else [*history, number]


def _history(client: MlflowClient, name: str) -> list[str]:
    """The champions so far, the current one last, even if its alias was moved by other means."""
    model = repeated(lambda: client.get_registered_model(name))
    history = [n for n in model.tags.get(HISTORY_TAG, "").split(",") if n]
    present = _text(model.aliases.get(CHAMPION))
    if present is not None and history[-1:] != [present]:
        history.append(present)
    return history


def _champion(client: MlflowClient, name: str) -> str | None:
    return _text(repeated(lambda: client.get_registered_model(name)).aliases.get(CHAMPION))


def _text(version: Any) -> str | None:
    return None if version is None else str(version)


def _requirements() -> list[str]:
    found: Sequence[str] = []
    for package in _REQUIREMENTS:
        try:
            found = [*found, f"{package}=={importlib.metadata.version(package).partition('+')[0]}"]
        except importlib.metadata.PackageNotFoundError:  # one of the two decords
            continue
    return list(found)


@contextmanager
def _explained(environment: Environment) -> Iterator[None]:
    """Turns errors of MLflow into one sentence."""
    require("MLflow", environment.mlflow_uri)
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        with patient_requests():
            yield
    except (MlflowException, RequestException) as error:
        text = environment.mask(" ".join(str(error).split()))[:300]
        absent = getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"
        hint = "; `erv run` registers the first version" if absent else ""
        raise RegistryError(f"MLflow at {environment.mlflow_uri}: {text}{hint}") from error
