"""`erv study simulate`: raters who answer by a known model."""

from __future__ import annotations

import click


@click.command(name="simulate")
@click.argument("name")
@click.option(
    "--strength",
    "strengths",
    multiple=True,
    metavar="POLICY=NUMBER",
    help="In natural logarithms of odds; 0 if left out. A policy 1 above another wins 73 of 100.",
)
@click.option("--ties", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Share of ties.")
@click.option(
    "--alpha", type=click.FloatRange(0, 1), default=0.6, show_default=True, help="Of emotions seen."
)
@click.option(
    "--careless", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Answer at random."
)
@click.option("--raters", type=click.IntRange(1), help="How many; all places if left out.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of everything random.")
def command(
    name: str,
    strengths: tuple[str, ...],
    ties: float,
    alpha: float,
    careless: float,
    raters: int | None,
    seed: int,
) -> None:
    """Let simulated raters answer the study NAME, and report what is found beside what was planted.

    To see before people are asked whether the study is large enough. It writes to
    .erv/studies/simulated/NAME, with a database of its own; the answers of people are not touched.
    """
    from erv.environment import load_environment
    from erv.errors import SettingsError
    from erv.settings import load_settings
    from erv.study.analysis.report import Level
    from erv.study.plan import folder_of, read_key, read_study
    from erv.study.rehearsal import rehearse
    from erv.study.simulation import Model

    known = {}
    for text in strengths:
        policy, _, number = text.partition("=")
        try:
            known[policy] = float(number)
        except ValueError:
            raise SettingsError(f"--strength {text}: expected POLICY=NUMBER, such as erv=0.5") from None
    settings, study = load_settings(), read_study(folder_of(name))
    policies = list(read_key(study).policies)
    if unknown := [policy for policy in known if policy not in policies]:
        raise SettingsError(
            f"--strength {unknown[0]}={known[unknown[0]]:g}: expected a policy of the study:"
            f" {', '.join(policies)}"
        )
    if unnamed := [policy for policy in policies if policy not in known]:
        click.echo(f"strength 0 for {', '.join(unnamed)}, which no --strength names")
    strengths_of = {policy: known.get(policy, 0.0) for policy in policies}
    model = Model(strengths_of, ties=ties, alpha=alpha, careless=careless)
    folder = load_environment().workspace / ".erv" / "studies" / "simulated" / study.name
    level = Level(settings.register_.confidence, settings.register_.bootstrap_samples, settings.seed)
    for line in rehearse(study, folder, model, raters=raters, seed=seed, level=level):
        click.echo(line)
