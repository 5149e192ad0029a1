"""`erv doctor`: what is there, what is missing and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import click

from erv.errors import ExitCode

if TYPE_CHECKING:
    from erv.doctor.finding import Finding

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@click.command(name="doctor")
@click.option("--profile", default=None, metavar="NAME", help="Also show what is missing for this profile.")
@click.option("--gpu", is_flag=True, help="Run and measure one GRPO step at the real shapes.")
def command(profile: str | None, gpu: bool) -> None:
    """Check versions, disk, servers, remote and pins; exit code 1 if something required is missing or wrong.

    With --profile (demo, tiny, paper-0.5b, paper-7b), also check GPU, memory, packages, checkpoints, data and
    disk for that profile. --gpu takes minutes; with --profile it needs no checkpoint.
    """
    from erv.doctor.doctor import findings

    if profile is not None:
        from erv.settings.profile import load_profile

        load_profile(profile)  # a wrong name is reported before anything slow starts
    failed = count = 0
    for finding in chain(findings(), _more(profile, gpu)):
        count += 1
        failed += finding.state == "fail"
        remedy = f"\n{'':18}-> {finding.remedy}" if finding.remedy else ""
        click.echo(f"{_MARKS[finding.state]}  {finding.name:15} {finding.detail}{remedy}")
    if failed:
        click.echo(f"{failed} of {count} checks failed", err=True)
        raise SystemExit(ExitCode.ERROR)


def _more(profile: str | None, gpu: bool) -> Iterator[Finding]:
    """What is only examined on request, and takes long; a line says so first."""
    if profile is not None:
        from erv.doctor.lacks import examine_profile

        click.echo(f"comparing this machine with what {profile} needs", err=True)
        yield from examine_profile(profile)
    if gpu:
        from erv.doctor.dry_run import examine_gpu

        click.echo("running one GRPO step at the real shapes, which takes minutes", err=True)
        yield from examine_gpu(profile)
