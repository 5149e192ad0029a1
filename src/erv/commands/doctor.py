"""`erv doctor`: what is there, what is missing, what to do."""

from __future__ import annotations

import click

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@click.command(name="doctor")
def command() -> None:
    """Check versions, disk, servers, remote and pins; exit code 1 when something required is missing."""
    from erv.doctor import examine

    checks = examine()
    for check in checks:
        remedy = f"\n{'':18}-> {check.remedy}" if check.remedy else ""
        click.echo(f"{_MARKS[check.state]}  {check.name:15} {check.detail}{remedy}")
    failed = sum(check.state == "fail" for check in checks)
    if failed:
        click.echo(f"{failed} of {len(checks)} checks failed", err=True)
        raise SystemExit(1)
