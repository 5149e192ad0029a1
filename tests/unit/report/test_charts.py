import re

from erv.report.charts import bar_chart, has_gaps

SHARE = {"value": 0.5, "low": 0.4, "high": 0.7}
NONE = dict.fromkeys(("value", "low", "high"))
NAMES = {"a": "A", "b": "B"}


def test_what_is_not_defined_has_a_dash_and_no_bar():
    """A bar of 0 would be the best inconsistency there is."""
    values = {"a": {"WAR": SHARE, "inconsistency": NONE}, "b": {"WAR": SHARE}}  # for b it doesn't apply
    svg = bar_chart(values, ["WAR", "inconsistency"], NAMES)
    assert sorted(re.findall(r"<title>([^<]+)</title>", svg)) == [
        "A, WAR: 50.0 (40.0 to 70.0)",
        "A, inconsistency: not defined",
        "B, WAR: 50.0 (40.0 to 70.0)",
        "B, inconsistency: doesn't apply",
    ]
    assert len(re.findall(r">-</text>", svg)) == 2
    assert "A: WAR 50.0 (40.0 to 70.0), inconsistency not defined. B: " in svg
    last = re.search(r'<text style="[^"]*" x="([\d.]+)"[^>]*>inconsistency</text>', svg)
    assert last, "the group keeps its name and its room without a bar"
    assert float(last[1]) < 520
    assert has_gaps(values, ["WAR", "inconsistency"])
    assert not has_gaps(values, ["WAR"])


def test_a_policy_may_have_no_bar_at_all():
    assert bar_chart({"a": {"WAR": NONE}}, ["WAR"], NAMES).count(">-</text>") == 1
