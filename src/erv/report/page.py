"""Renders the report and its pages of clips; equal inputs give equal bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.evaluate.by_judge import shared_panel
from erv.evaluate.categories import notes
from erv.evaluate.compare import table_notes
from erv.evaluate.evaluate import OVERALL
from erv.evaluate.metrics import MEANINGS
from erv.figures.drawing import stylesheet
from erv.files import whole_folder, write_text
from erv.grounding.grounding import table_rows
from erv.report import charts, clips, pages, parts, verdicts
from erv.report.evidence import Evidence
from erv.report.names import DATASETS, titles
from erv.report.readings import SentenceReader, read_sentences
from erv.settings import ReportSettings
from erv.shards import Clip
from erv.verifier.protocol import Verifier

logger = logging.getLogger("stages.report")

Predictions = Mapping[str, Sequence[Mapping[str, Any]]]


def write_report(
    predictions: Predictions,
    comparison: Mapping[str, Any],
    evidence: Evidence,
    settings: ReportSettings,
    *,
    seed: int,
    candidate: str,
    verifier: Verifier,
    judges: Mapping[str, SentenceReader],
    clip_of: Callable[[str, str], Clip],
    html: Path,
    folder: Path,
) -> None:
    """Writes the report with the first page of clips, and a folder with the other pages and a table.

    Args:
        predictions: rows by policy, in the order of the comparison.
        comparison: the result of `erv.report.report.build_comparison`.
        evidence: see `Evidence`.
        settings: the section `report`.
        seed: seed of the clips' order.
        candidate: the policy that the headline compares with each other one. If it is none of them, the last
            one stands for it, and the page says so.
        verifier: reads the emotions of each sentence.
        judges: judge -> reads single sentences, for those judges that can afford it.
        clip_of: returns the clip for a data set and a clip id.
        html: where the report goes.
        folder: where the other pages go; what is in it is replaced.

    Raises:
        EvaluationError: the comparison has no figures by judge, or a row no verdicts.
    """
    verdicts.judges_of(comparison)
    names = titles(predictions)
    silent = verdicts.unexplained(comparison)
    panel = shared_panel(predictions)
    by_key = _by_key(predictions)
    order = [(row["dataset"], row["clip_id"]) for row in clips.mixed(next(iter(predictions.values())), seed)]
    readings = read_sentences((row for rows in predictions.values() for row in rows), verifier, judges)
    listed = pages.ClipList(
        [clips.entry(by_key[key], silent) for key in order],
        names,
        panel,
        readings.readers,
        cues=any(evidence.cues.values()),
        unexplained=silent,
    )

    def records() -> Iterator[dict[str, Any]]:
        for key in order:
            yield clips.record(
                by_key[key],
                clip_of(*key),
                readings,
                evidence.cues.get(key[0], {}).get(key[1]),
                show_media=key[0] in settings.show_media,
            )

    environment = templates()
    with whole_folder(folder) as temporary:
        # All pages list all clips, so none can be written before all records are made and counted; they wait
        # on the disk, not in memory.
        waiting: list[Path] = []
        counts: list[int] = []
        for page in pages.cut(records(), listed.room):
            waiting.append(temporary / f".page-{len(waiting) + 1}.json")
            write_text("\n".join(page), waiting[-1])
            counts.append(len(page))
        for number, path in enumerate(waiting, 1):
            browser = listed.browser(number, path.read_text(encoding="utf-8").split("\n"), counts)
            path.unlink()
            if number == 1:
                text = _report(
                    environment, predictions, comparison, evidence, candidate, seed, names, browser
                )
                write_text(text, html)
            else:
                template = environment.get_template("clips.html.j2")
                text = template.render(browser=browser, names=names, **_shared(comparison))
                write_text(text, temporary / pages.file_name(number))
        votes = {key: [row["verdicts"] for row in said.values()] for key, said in by_key.items()}
        listed.write_table(temporary / pages.TABLE, counts, votes)
    logger.info("%d clips on %d %s", len(order), len(counts), "page" if len(counts) == 1 else "pages")


def _by_key(predictions: Predictions) -> dict[tuple[str, str], dict[str, Mapping[str, Any]]]:
    """The rows of each clip, by policy."""
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for policy, rows in predictions.items():
        for row in rows:
            found.setdefault((row["dataset"], row["clip_id"]), {})[policy] = row
    return found


def templates() -> Any:
    """The Jinja environment of the page's templates."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("erv.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = charts.percent
    environment.filters["points"] = lambda value: charts.percent(value, sign="+")
    return environment


def _shared(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """What all pages need."""
    return {"datasets": DATASETS | _marked(comparison), "palette": stylesheet()}


def _marked(comparison: Mapping[str, Any]) -> dict[str, str]:
    """The titles of data sets that no policy was trained on."""
    marked = [name for name, item in comparison.get("categories", {}).items() if item["zero_shot"]]
    return {name: f"{DATASETS.get(name, name)} (unseen, zero-shot)" for name in marked}


def _report(
    environment: Any,
    predictions: Predictions,
    comparison: Mapping[str, Any],
    evidence: Evidence,
    candidate: str,
    seed: int,
    names: Mapping[str, str],
    browser: pages.Browser,
) -> str:
    metrics = verdicts.shown_metrics(comparison)
    by_policy = {p: comparison["policies"][p][OVERALL] for p in names}
    further = parts.further(comparison)
    # UAR is a mean over emotions, so among the clips of one it says nothing beside WAR, the recall there.
    each = [*(metric for metric in metrics if metric != "UAR"), "precision", *further]
    subject = candidate if candidate in names else comparison["order"][-1]
    return str(
        environment.get_template("report.html.j2").render(
            names=names,
            metrics=metrics,
            further=further,
            sets=parts.sets(comparison, subject),
            each=each,
            by_emotion=parts.by_emotion(comparison, each),
            meanings=MEANINGS,
            comparison=comparison,
            candidate=candidate,
            seed=seed,
            subject=subject,
            unexplained=verdicts.unexplained(comparison),
            headline=verdicts.headline(comparison, subject),
            corrected=verdicts.corrected(comparison),
            judges=parts.judges(comparison, subject),
            notes={
                scope: [*notes(comparison.get("categories", {}), scope), *table_notes(comparison, scope)]
                for scope in comparison["clips"]
            },
            evidence=evidence,
            grounding=[row for row in table_rows(evidence.grounding or {}) if row["policy"] in names],
            bars=charts.bar_chart(by_policy, metrics, names),
            gaps=charts.has_gaps(by_policy, metrics),
            differences=parts.differences(comparison, names, metrics),
            precision_recall=charts.precision_recall_chart(evidence.verifier["per_label"]),
            reliability=charts.reliability_chart(evidence.verifier["reliability"]),
            confusions={policy: parts.confusion(rows) for policy, rows in predictions.items()},
            data={
                name: parts.describe(item, DATASETS.get(name, name)) for name, item in evidence.data.items()
            },
            browser=browser,
            **_shared(comparison),
        )
    )
