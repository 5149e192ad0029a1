"""The report as one page that needs no network; equal documents give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from erv.evaluate.intervals import Interval
from erv.figures.drawing import stylesheet
from erv.register.people import LEAST_RATERS
from erv.report.names import titles
from erv.study.analysis.charts import Chart, Line
from erv.study.analysis.instruments import OTHERS, VERIFIER
from erv.study.plan import HIGHEST, LOWEST, RATINGS
from erv.study.wording import counted as number_of

_RATED = {
    "emotion": "agrees with the emotion shown",
    "own_answer": "agrees with its own answer",
    "true": "true of what is seen and heard",
    "fluent": "fluent",
}
_ASKED = {"emotion": "the emotion that raters see", "preferred": "which explanation is preferred"} | {
    f"ratings.{name}": f"rating: {text}" for name, text in _RATED.items()
}
_DASH = "–"


def page_of(found: Mapping[str, Any]) -> str:
    """The page.

    Args:
        found: the document of `erv.study.analysis.report.measure`.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("erv.study.analysis"), PackageLoader("erv.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["span"] = span
    environment.filters["counted"] = number_of
    names = titles(found["policies"])
    environment.filters["minus"] = lambda pair: " minus ".join(names[name] for name in _sides(pair, names))
    environment.filters["over"] = lambda pair: " over ".join(names[name] for name in _sides(pair, names))
    counted = found["passed"] if found["passed"]["answers"] else found["everyone"]
    return (
        environment.get_template("report.html.j2").render(
            found=found,
            counted=counted,
            everyone=found["everyone"],
            left_out=bool(found["checks"]["failed"]) and bool(found["passed"]["answers"]),
            all_failed=not found["passed"]["answers"],
            names=names,
            rated=_RATED,
            asked=_ASKED,
            verdicts=verdicts(counted, names),
            charts=_charts(counted, names),
            few=counted["checked"] < LEAST_RATERS,
            level=f"{100 * found['confidence']:g}%",
            palette=stylesheet(),
            verifier=VERIFIER,
            others=OTHERS,
            dash=_DASH,
        )
        + "\n"
    )


def verdicts(figures: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """What pairs say in words, the policy that is preferred more often first.

    Returns:
        For each pair `preferred_policy`, `other_policy`, their names `winner` and `loser`, `share` (of
        preferences for the winner; value, low, high), `sure` (whether the interval lies above a half), and
        the counts `preferred`, `opposed`, `ties`, `clips`, `raters`, `answers`. With too few answers for an
        interval, the ends of `share` are None, nothing is sure, and the order is that of the pair's name.
    """
    found = []
    for pair, item in figures["preference"]["pairs"].items():
        later, earlier = _sides(pair, names)
        share, counts = item["share"], (item["preferred"], item["opposed"])
        if share["value"] is not None and share["value"] < 0.5:
            later, earlier, counts = earlier, later, counts[::-1]
            share = _turned(share)
        found.append(
            {
                "preferred_policy": later,
                "other_policy": earlier,
                "winner": names[later],
                "loser": names[earlier],
                "share": share,
                "sure": share["low"] is not None and share["low"] > 0.5,
                "preferred": counts[0],
                "opposed": counts[1],
                **{name: item[name] for name in ("ties", "clips", "raters", "answers")},
            }
        )
    return found


def span(interval: Interval, digits: int = 0, scale: float = 100.0, sign: str = "") -> str:
    """A figure with its interval, `58 (51 to 64)`; a dash if there is none."""
    figures = [interval[end] for end in _ENDS]
    said = [f"{scale * figure:{sign}.{digits}f}" for figure in figures if figure is not None]
    return f"{said[0]} ({said[1]} to {said[2]})" if len(said) == len(_ENDS) else _DASH


def sentence(verdict: Mapping[str, Any]) -> str:
    """One of `verdicts` as a line of text."""
    winner, loser = verdict["winner"], verdict["loser"]
    raters = f"{verdict['raters']} {'rater' if verdict['raters'] == 1 else 'raters'}"
    if verdict["share"]["value"] is None:
        return (
            f"{winner} can't be told from {loser}: too few answers for an interval"
            f" ({verdict['preferred']} for {winner}, {verdict['opposed']} for {loser},"
            f" {verdict['ties']} ties, {raters})"
        )
    word = "preferred to" if verdict["sure"] else "can't be told from"
    value, low, high = (f"{100 * float(verdict['share'][end]):.0f}" for end in _ENDS)
    return (
        f"{winner} {word} {loser}: {value}% of {verdict['answers']} preferences ({low} to {high}), {raters}"
    )


_ENDS = ("value", "low", "high")


def _charts(figures: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Chart]:
    found: dict[str, Chart] = {}
    lines = [
        Line(
            f"{item['winner']} over {item['loser']}",
            _scaled(item["share"], 100),
            "good" if item["sure"] else "p0",
            span(item["share"]),
        )
        for item in verdicts(figures, names)
    ]
    quarters = [0, 25, 50, 75, 100]
    if lines:
        found["preference"] = Chart(
            "Preferences of people, by pair of policies",
            lines,
            ends=(0, 100),
            ticks=quarters,
            even=50,
            unit="percent of preferences",
        )
    trusted = [
        Line(name, _scaled(item["preference"]["same"], 100), _tint(name), span(item["preference"]["same"]))
        for name, item in figures["instruments"].items()
    ]
    if trusted and figures["preference"]["pairs"]:
        found["instruments"] = Chart(
            "Agreement of judges and verifier with the preferences of people",
            trusted,
            ends=(0, 100),
            ticks=quarters,
            even=50,
            unit="percent of preferences that are the same",
        )
    if rated := figures["ratings"]["policies"]:
        found["ratings"] = Chart(
            "Mean ratings of explanations",
            [
                Line(
                    names[policy],
                    rated[policy][name],
                    f"p{place % 5}",
                    span(rated[policy][name], 2, 1),
                    "" if place else _RATED[name].capitalize(),
                )
                for name in RATINGS
                for place, policy in enumerate(rated)
            ],
            ends=(LOWEST, HIGHEST),
            ticks=list(range(LOWEST, HIGHEST + 1)),
            even=None,
            unit=f"{LOWEST} not at all, {HIGHEST} fully",
        )
    return found


def _tint(name: str) -> str:
    return {VERIFIER: "p2", OTHERS: "p1"}.get(name, "p0")


def _sides(pair: str, names: Mapping[str, str]) -> tuple[str, str]:
    """The policies of `later-earlier`; their names may have hyphens."""
    return next(
        (later, earlier)
        for later in names
        for earlier in names
        if later != earlier and pair == f"{later}-{earlier}"
    )


def _turned(share: Interval) -> Interval:
    other = {"value": "value", "low": "high", "high": "low"}
    found = {end: share[other[end]] for end in _ENDS}
    return {end: None if value is None else round(1 - value, 6) for end, value in found.items()}


def _scaled(interval: Interval, scale: float) -> Interval:
    return {end: None if value is None else scale * value for end, value in interval.items()}


def _percent(value: float | None) -> str:
    return _DASH if value is None else f"{100 * value:.0f}"
