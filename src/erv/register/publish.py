"""The model registry in MLflow: publishing a bundle, gating it, moving aliases.

`publish` makes sure that a bundle is registered and gated on a server, however often it is called: it
recognises a version by the hash of its bundle. A version is gated once; whatever a person decides later
(`promote`, `rollback`) stands.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Sequence
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
from erv.settings import Settings
from erv.stack.reach import require
from erv.tracking.lock_entries import LOCK_ARTIFACT_FOLDER, client_of, pipeline_files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
HASH_TAG = "erv.bundle_hash"
PATH_TAG = "erv.bundle_path"
GATES_TAG = "erv.register.gates"
PUBLISH_RUN_TAG = "erv.publish_run"
HISTORY_TAG = "erv.champions"
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
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    new: bool
    champion: str | None

    @property
    def passed(self) -> bool:
        """Whether every gate that counted holds."""
        return all(verdict.passed is not False for verdict in self.verdicts)

    def lines(self) -> list[str]:
        """What happened, in sentences for people."""
        what = "registered" if self.new else "was already registered"
        aliases = f"; alias {', '.join(self.aliases)}" if self.aliases else ""
        lines = [f"{self.name} version {self.version} {what}{aliases}"]
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
        RegistryError: there is no bundle, it was changed, `dvc.lock` does not describe it, or MLflow can't be
            reached or refuses.
    """
    bundle = read_bundle(Path(folder))
    check_lock(bundle.folder)
    name = settings.register_.model_name
    with _explained(environment):
        client = client_of(environment)
        version = find_version(client, name, bundle.hash)
        new = version is None
        if version is None:
            version = _register(bundle, name, environment, parent_run_id)
        number = str(version.version)
        if GATES_TAG not in version.tags:
            # The tag comes last, so that the next publication gates one that was interrupted.
            client.set_registered_model_alias(name, CHALLENGER, number)
            verdicts = _gate(client, bundle, name, number, settings)
            if all(verdict.passed for verdict in verdicts):
                _make_champion(client, name, number)
            text = json.dumps([verdict.as_dict() for verdict in verdicts])
            client.set_model_version_tag(name, number, GATES_TAG, text)
        else:
            verdicts = tuple(Verdict(**gate) for gate in json.loads(version.tags[GATES_TAG]))
        aliases = dict(client.get_registered_model(name).aliases)
    mine = tuple(sorted(alias for alias, owner in aliases.items() if str(owner) == number))
    return PublishResult(name, number, mine, verdicts, new, _text(aliases.get(CHAMPION)))


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
    with _explained(environment):
        client = client_of(environment)
        number = str(get_version(client, name, version).version)
        before = _champion(client, name)
        if before == number:
            return f"{name} version {number} is already the champion"
        _make_champion(client, name, number)
    return f"{name} version {number} is now the champion" + (f"; it was version {before}" if before else "")


def rollback(environment: Environment, settings: Settings) -> str:
    """Makes the previous champion the champion again; returns a sentence for people.

    Raises:
        RegistryError: there was none.
    """
    name = settings.register_.model_name
    with _explained(environment):
        client = client_of(environment)
        history = _history(client, name)
        if len(history) < 2:
            raise RegistryError(f"{name}: there is no previous champion; see `erv promote`")
        present, before = history[-1], history[-2]
        client.set_registered_model_alias(name, CHAMPION, before)
        client.set_registered_model_tag(name, HISTORY_TAG, ",".join(history[:-1]))
    return f"{name} version {before} is the champion again; it was version {present}"


def find_version(client: MlflowClient, name: str, bundle_hash: str) -> ModelVersion | None:
    """The version registered for a bundle, or None."""
    found = [v for v in versions(client, name) if v.tags.get(HASH_TAG) == bundle_hash]
    return min(found, key=lambda v: int(v.version)) if found else None


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


def _register(bundle: Bundle, name: str, environment: Environment, parent_run_id: str | None) -> ModelVersion:
    """Stores the bundle as a model and registers it, tagged with its hash from the start."""
    import mlflow

    mlflow.set_tracking_uri(environment.mlflow_uri)
    mlflow.set_registry_uri(environment.mlflow_uri)
    tags = {"erv.kind": "publish", HASH_TAG: bundle.hash}
    if parent_run_id:
        tags["mlflow.parentRunId"] = parent_run_id
    experiment = mlflow.set_experiment(environment.mlflow_experiment)
    with mlflow.start_run(experiment_id=experiment.experiment_id, run_name="publish", tags=tags) as run:
        for file in pipeline_files():
            mlflow.log_artifact(str(file), LOCK_ARTIFACT_FOLDER)
        info = mlflow.pyfunc.log_model(name="model", **model_content(bundle.folder))
        version = mlflow.register_model(
            info.model_uri,
            name,
            tags={
                HASH_TAG: bundle.hash,
                PATH_TAG: f"artifacts/{bundle.folder.name}",
                PUBLISH_RUN_TAG: run.info.run_id,
                **({"erv.parent_run": parent_run_id} if parent_run_id else {}),
            },
        )
    card = (bundle.folder / "card.md").read_text(encoding="utf-8")
    client_of(environment).update_model_version(name, version.version, card)
    return version


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
    client.set_registered_model_alias(name, CHAMPION, number)
    client.set_registered_model_tag(name, HISTORY_TAG, ",".join(history[-50:]))


def _extended(history: Sequence[str], number: str) -> list[str]:
    """The history with a new champion; a publication that is resumed does not count twice."""
    return [*history] if list(history[-1:]) == [number] else [*history, number]


def _history(client: MlflowClient, name: str) -> list[str]:
    """The champions so far, the current one last, even if its alias was moved by other means."""
    history = [n for n in client.get_registered_model(name).tags.get(HISTORY_TAG, "").split(",") if n]
    present = _champion(client, name)
    if present is not None and history[-1:] != [present]:
        history.append(present)
    return history


def _champion(client: MlflowClient, name: str) -> str | None:
    return _text(client.get_registered_model(name).aliases.get(CHAMPION))


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

    try:
        yield
    except MlflowException as error:
        text = environment.mask(" ".join(str(error).split()))[:300]
        absent = error.error_code == "RESOURCE_DOES_NOT_EXIST"
        hint = "; `erv run` registers the first version" if absent else ""
        raise RegistryError(f"MLflow at {environment.mlflow_uri}: {text}{hint}") from error
