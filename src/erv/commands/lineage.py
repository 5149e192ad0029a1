"""`erv lineage`: where something came from, what was made from it, and whether every link still holds."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from erv.commands.shown import progress_shown
from erv.errors import ExitCode, exit_codes_of

if TYPE_CHECKING:
    from erv.lineage.trace import Provenance


# One link more is checked by `--verify`, by the gate and at the end of a run.
UNREAD = "the files that are served were not compared with their record; --verify does"


def _exit_codes() -> str:
    lines = ["Exit codes:"]
    for line in exit_codes_of("erv lineage"):
        option = line.command.removeprefix("erv lineage").strip()
        text = f"{line.code.value}  {option}{': ' * bool(option)}{line.means}"
        lines += textwrap.wrap(text, 76, subsequent_indent="   ", break_on_hyphens=False)
    return "\b\n" + "\n".join(lines)


@click.command(name="lineage", epilog=_exit_codes())
@click.argument("target", required=False)
@click.option(
    "--withdrawn",
    type=click.Path(path_type=Path),
    help="Instead of TARGET, a file with a clip id per line: which versions used those clips, and how.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Read and hash everything: large objects, the files of pinned sources, and each file of a served"
    " version, its code included.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; docs/lineage.md has its schema.")
@click.option(
    "--html", type=click.Path(path_type=Path), help="Also write the graph as a page that needs no network."
)
def command(
    target: str | None, withdrawn: Path | None, verify: bool, as_json: bool, html: Path | None
) -> None:
    """Show where TARGET came from and what was made from it, and check the links.

    TARGET is a model version (models:/NAME/1, NAME@ALIAS, NAME/1, 1, champion), the id of an MLflow run or
    its first 8 digits, the id of a train run in Prefect, a git commit, the md5 of an output, a data set
    (mafw), or a clip (mafw/00021).
    """
    if (target is None) == (withdrawn is None):
        raise click.UsageError("give TARGET or --withdrawn FILE, not both")
    if withdrawn is not None and (verify or html is not None):
        raise click.UsageError("--withdrawn can't be combined with --verify or --html")
    from erv import pipeline
    from erv.environment import isolate, load_environment
    from erv.lineage.trace import Provenance
    from erv.register.explained import explained
    from erv.settings import load_settings
    from erv.stack.reach import require

    environment = load_environment()
    isolate(environment)
    repaired = pipeline.repair_lock()
    if repaired is not None:
        click.echo(repaired, err=True)
    if withdrawn is not None:
        # Without the registry, every id would be unknown.
        require("MLflow", environment.mlflow_uri, environment.workspace)
    settings = load_settings() if Path("params.yaml").is_file() else None
    with explained(environment) if environment.mlflow_uri else nullcontext():
        provenance = Provenance(environment, settings, verify)
        if withdrawn is not None:
            sys.exit(_withdrawn(withdrawn, provenance, as_json))
        assert target is not None
        sys.exit(_trace(target, provenance, verify, as_json, html))


def _trace(target: str, provenance: Provenance, verify: bool, as_json: bool, html: Path | None) -> int:
    from erv.lineage.node import answer, broken, summary, unverifiable

    with progress_shown() if verify else nullcontext():
        node = provenance.trace(target)
    rest = [UNREAD] if node.kind == "version" and node.links and not verify else []
    _show([*node.lines(), summary(node), *rest], answer(target, node), as_json)
    if html is not None:
        from erv.files import write_text
        from erv.lineage.page import page

        write_text(page(target, node), html)
        click.echo(f"wrote {html}", err=True)
    if broken(node):
        return ExitCode.LINEAGE
    return ExitCode.UNCHECKED if verify and unverifiable(node) else ExitCode.DONE


def _withdrawn(path: Path, provenance: Provenance, as_json: bool) -> int:
    from erv.lineage.withdrawn import find_withdrawn, read_ids

    found = find_withdrawn(read_ids(path), provenance.membership)
    _show(found.lines(), found.document(), as_json)
    return found.exit_code


def _show(lines: Iterable[str], document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document, indent=1, ensure_ascii=False))
        return
    for line in lines:
        click.echo(line)
