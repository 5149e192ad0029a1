"""`erv study report`: what people say, and which judge agrees with them."""

from __future__ import annotations

import click


@click.command(name="report")
@click.argument("name")
@click.option(
    "--without-judges", is_flag=True, help="Leave out how far judges and verifier agree with people."
)
@click.option(
    "--failed-attention",
    type=click.IntRange(0),
    help="Attention checks that a rater may fail; study.rules if left out.",
)
@click.option(
    "--gold-share",
    type=click.FloatRange(0, 1),
    help="Share of the gold items that a rater must answer as expected; study.rules if left out.",
)
@click.option("--without", multiple=True, metavar="RATER", help="Leave this rater out; may be repeated.")
def command(
    name: str,
    without_judges: bool,
    failed_attention: int | None,
    gold_share: float | None,
    without: tuple[str, ...],
) -> None:
    """Report the study NAME from its table of answers: studies/NAME/report, a page and a JSON document.

    Preferences and ratings with intervals, how far raters agree with each other, failed checks and what
    leaving such raters out changes, and how far people agree with each judge and with the verifier. Gates on
    the metric `preference` read it, if raters were left out by study.rules of params.yaml, and not by options
    here. Intervals are those of the section `register`.
    """
    from pathlib import Path

    from erv.commands.shown import progress_shown
    from erv.environment import load_environment
    from erv.settings import load_settings
    from erv.stage import configure_logging
    from erv.study.analysis.checks import Rules
    from erv.study.analysis.instruments import read_evaluations, scores_of_judges, scores_of_verifier
    from erv.study.analysis.page import sentence, verdicts
    from erv.study.analysis.report import DOCUMENT, PASSED, Level, measure, write_report
    from erv.study.pinning import pin
    from erv.study.plan import folder_of, read_key, read_study

    configure_logging(load_environment())
    settings = load_settings()
    study = read_study(folder_of(name))
    level = Level(settings.register_.confidence, settings.register_.bootstrap_samples, settings.seed)
    known = settings.study.rules
    rules = Rules(
        known.failed_attention if failed_attention is None else failed_attention,
        known.gold_share if gold_share is None else gold_share,
        without,
        known.without,
    )
    with progress_shown():
        instruments = {}
        if not without_judges:
            click.echo("loading the verifier", err=True)
            from erv.verifier import EmotionVerifier

            rows = read_evaluations(read_key(study), Path("eval"))
            instruments = {
                **scores_of_judges(rows),
                "verifier": scores_of_verifier(rows, EmotionVerifier.from_pretrained("models/verifier")),
            }
        found = measure(study, instruments, level, rules)
    page = write_report(found, study)
    pin([page.parent])
    for item in verdicts(found[PASSED], {policy: policy for policy in found["policies"]}):
        click.echo(sentence(item))
    if failed := found["checks"]["failed"]:
        click.echo(f"left out: {', '.join(failed)}")
    click.echo(f"{page.resolve()} (figures: {DOCUMENT})")
    click.echo(f"DVC has the folder; commit {page.parent}.dvc and {study.folder}/.gitignore")
