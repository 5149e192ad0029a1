"""`erv figures`: every result that ran, beside the setting under which it did."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(name="figures")
@click.option("--dataset", "datasets", multiple=True, help="Only this data set; may be given several times.")
@click.option("--fold", "folds", multiple=True, help="Only this fold; may be given several times.")
@click.option("--policy", "policies", multiple=True, help="Only this policy; may be given several times.")
@click.option("--published/--no-published", default=True, help="Also figures that others have published.")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("report"),
    show_default=True,
    help="The folder for the page, the CSV and the JSON.",
)
@click.option("--between", nargs=2, metavar="KEY KEY", help="Only say in what two of the results differ.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table; docs/metrics.md.")
def command(
    datasets: tuple[str, ...],
    folds: tuple[str, ...],
    policies: tuple[str, ...],
    published: bool,
    folder: Path,
    between: tuple[str, str] | None,
    as_json: bool,
) -> None:
    """Gather the figures of all results, each with its setting: WAR, UAR, EEA, EPC and FCR.

    Results are those of the workspace, of all commits and experiments of this clone, and of the MLflow
    server. Writes by_setting.html, a page that needs no network, and by_setting.csv and .json.
    """
    from erv.environment import isolate, load_environment
    from erv.results import differences, page
    from erv.results.gather import gather

    environment = load_environment()
    isolate(environment)
    everything = gather(environment, foreign=published)
    for (
        remark
    ) in everything.remarks:  # also before what was asked for turns out not to be there: it may say why
        click.echo(f"note: {remark}", err=True)
    found = everything.only(datasets, folds, policies)
    if between:
        click.echo("\n".join(differences.between(found.results, *between)))
        return
    written = page.write(found, folder)
    if as_json:
        click.echo(json.dumps(page.document(found), indent=1, ensure_ascii=False))
    else:
        for line in page.lines(found):
            click.echo(line)
    click.echo(f"wrote {', '.join(map(str, written))}", err=True)
