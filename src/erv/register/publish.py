"""Publishing a bundle: makes sure that it is registered and gated on a server, however often it is asked.

A version is recognised by the hash of its bundle and gated once; whatever a person decides later (`promote`,
`rollback`) stands. Processes that change the registry take turns (`registry_turn`). Where they can't see each
other's lease, two may still register one bundle: the lowest version stays, the others go.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.environment import Environment
from erv.errors import RegistryError
from erv.files import content_digest
from erv.pipeline import read_lock_entries
from erv.register.aliases import champion_in, champion_of, make_champion
from erv.register.explained import explained
from erv.register.gates import CANT_TELL, CHAMPION, LINEAGE, Verdict, decide_against_champion, read_verdict
from erv.register.register import Bundle, read_bundle
from erv.register.registration import close_killed, one_version
from erv.register.reign import Reign, now
from erv.register.turn import registry_turn
from erv.register.versions import CHALLENGER, EXTERNAL_TAG, GATES_TAG, PATH_TAG
from erv.settings import Settings
from erv.tracking.lock_entries import client_of
from erv.tracking.patience import repeated

if TYPE_CHECKING:
    from mlflow import MlflowClient


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
        """Whether it passed every gate."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def lineage_holds(self) -> bool:
        """Whether its lineage was verified when its gates were decided."""
        return any(verdict.metric == LINEAGE and verdict.passed for verdict in self.verdicts)

    def lines(self) -> list[str]:
        """What happened, in sentences for people."""
        what = "registered" if self.new else "was already registered"
        aliases = f"; alias {', '.join(self.aliases)}" if self.aliases else ""
        lines = [f"{self.name} version {self.version} {what}{aliases}"]
        if self.copies:
            lines.append(f"deleted version {', '.join(self.copies)}: a second registration of this bundle")
        failed = [verdict for verdict in self.verdicts if not verdict.passed]
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
    *,
    by: str,
    lineage: Callable[[str], Verdict] | None = None,
) -> PublishResult:
    """Makes sure that a bundle is registered and gated.

    Args:
        folder: the bundle, written by `register`.
        environment: where MLflow is.
        settings: for the model's name and the comparison with the champion.
        parent_run_id: the flow's run, under which the publication is shown.
        by: who publishes; noted if the version becomes champion.
        lineage: verifies the lineage of a version, given its number (`erv.lineage.gate`); without it, a
            version becomes no champion if `register.require_lineage` is set.

    Raises:
        RegistryError: there is no bundle, it was changed, `dvc.lock` does not describe it, MLflow can't be
            reached or refuses, or another process changes the registry for too long.
        StorageError: the object store, which keeps the lease, can't be reached.
    """
    bundle = read_bundle(Path(folder))
    check_lock(bundle.folder)
    name = settings.register_.model_name
    with explained(environment), registry_turn(environment, name) as check:
        client = client_of(environment)
        close_killed(client, environment, name)
        version, new, copies = one_version(client, bundle, name, environment, parent_run_id, check)
        number = str(version.version)
        # The candidate of the present state, also one that was registered before.
        repeated(lambda: client.set_registered_model_alias(name, CHALLENGER, number))
        if GATES_TAG not in version.tags:
            verdicts = repeated(lambda: _gate(client, bundle, name, number, settings))
            verdicts += _of_lineage(number, settings, lineage)
            check()
            # The tag comes last, so that the next publication gates one that was interrupted.
            if all(verdict.passed for verdict in verdicts):
                make_champion(client, name, Reign(number, now(), by, "gates"))
            text = json.dumps([verdict.as_dict() for verdict in verdicts])
            repeated(lambda: client.set_model_version_tag(name, number, GATES_TAG, text))
        else:
            verdicts = tuple(map(read_verdict, json.loads(version.tags[GATES_TAG])))
        model = repeated(lambda: client.get_registered_model(name))
    mine = tuple(sorted(alias for alias, owner in model.aliases.items() if str(owner) == number))
    return PublishResult(name, number, mine, verdicts, new, champion_in(model), copies)


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


def _gate(
    client: MlflowClient, bundle: Bundle, name: str, number: str, settings: Settings
) -> tuple[Verdict, ...]:
    """All verdicts; without a champion, only the gates that need none."""
    from erv.evaluate.evaluate import read_predictions

    champion = champion_of(client, name)
    if champion is None or champion == number:
        return tuple(verdict for verdict in bundle.verdicts if not verdict.is_open)
    predictions, metrics = _evaluation_of(client, name, champion)
    return decide_against_champion(
        bundle.verdicts,
        read_predictions(bundle.folder / "predictions.parquet"),
        predictions,
        samples=settings.register_.bootstrap_samples,
        confidence=settings.register_.confidence,
        seed=settings.seed,
        candidate_metrics=bundle.json("metrics.json"),
        champion_metrics=metrics,
    )


def _of_lineage(
    number: str, settings: Settings, lineage: Callable[[str], Verdict] | None
) -> tuple[Verdict, ...]:
    if not settings.register_.require_lineage:
        return ()
    if lineage is None:
        return (Verdict(LINEAGE, outcome=CANT_TELL, reason="nobody verified it"),)
    return (lineage(number),)


def _evaluation_of(
    client: MlflowClient, name: str, number: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Predictions of a version, and the content of its `metrics.json`."""
    import tempfile

    import mlflow

    from erv.evaluate.evaluate import read_predictions

    tags = client.get_model_version(name, number).tags
    path = tags.get(PATH_TAG)
    if path is None or EXTERNAL_TAG in tags:
        what = "was not published by erv" if path is None else "is external, so it has no evaluation"
        raise RegistryError(
            f"{name} version {number} is the champion but {what}; remove its alias or promote another version"
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
