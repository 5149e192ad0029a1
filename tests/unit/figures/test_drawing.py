"""The style of all charts: equal bytes whatever the machine, and nothing that disturbs the page around."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from erv.figures.drawing import COLOURS, PALETTE, draw, note, stylesheet

CHART = """
from erv.report.charts import bar_chart
item = {"value": 0.5, "low": 0.4, "high": 0.7}
print(bar_chart({"a": {"WAR": item, "UAR": item}}, ["WAR", "UAR"], {"a": "Policy \u611f"}))
"""


def bars(figure):
    axes = figure.subplots()
    for bar, name in zip(axes.bar(["$a$ <b>", "\u611f"], [1, 2], color=COLOURS["p2"]), "ab", strict=True):
        note(bar, f"{name} & more")
    axes.plot([0, 1], [1, 2], marker="o", color=COLOURS["bad"])


@pytest.fixture(scope="module")
def chart():
    return draw(bars, size=(300, 200), title="Bars <1>", description="a & b")


@pytest.mark.slow
def test_the_users_settings_and_machine_change_no_byte(tmp_path):
    """A style file, another home, backend, date, zone and language."""
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsvg.fonttype: path\naxes.grid: True\n")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MPL")}
    other = {
        "HOME": str(tmp_path),
        "MPLCONFIGDIR": str(tmp_path / "config"),
        "MPLBACKEND": "pdf",
        "SOURCE_DATE_EPOCH": "1",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "PYTHONHASHSEED": "7",
    }
    # The folder of the style file is where the second one runs.
    first, second = (
        subprocess.run(
            [sys.executable, "-c", CHART], env=environment, cwd=folder, capture_output=True, check=True
        ).stdout
        for environment, folder in ((plain, "."), ({**plain, **other, "PYTHONUTF8": "1"}, tmp_path))
    )
    assert first.startswith(b"<svg")
    assert first == second


def test_the_layout_takes_the_font_that_matplotlib_ships():
    from matplotlib import font_manager, get_data_path

    shipped = Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    assert Path(font_manager.findfont("DejaVu Sans")).samefile(shipped)


def test_a_chart_tells_readers_who_do_not_see_it_what_it_shows(chart):
    root = ElementTree.fromstring(chart)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "Bars <1>"
    assert root[0].tag == "desc"
    assert root[0].text == "a & b"
    assert [title.text for title in root.iter("title")] == ["a & more", "b & more"]


def test_text_stays_text(chart):
    texts = [element.text for element in ElementTree.fromstring(chart).iter("text")]
    assert "$a$ <b>" in texts
    assert "\u611f" in texts


def test_nothing_in_it_is_global(chart):
    for foreign in ("<style", "<script", "<metadata", "http", "DejaVu", "clip-path"):
        assert foreign not in chart
    ids = re.findall(r' id="([^"]+)"', chart)
    assert ids
    assert set(re.findall(r'href="#([^"]+)"', chart)) == set(ids)
    again = draw(bars, size=(300, 200), title="Others", description="")
    assert not set(ids) & set(re.findall(r' id="([^"]+)"', again))


def test_colours_are_the_pages(chart):
    assert "fill: var(--p2)" in chart
    assert "stroke: var(--bad)" in chart
    assert not any(colour in chart for colour in COLOURS.values())
    css = stylesheet()
    for name, (light, dark) in PALETTE.items():
        assert css.index(f"--{name}:{light};") < css.index("prefers-color-scheme: dark")
        assert css.index(f"--{name}:{dark};") > css.index("prefers-color-scheme: dark")


def test_the_settings_of_others_are_left_as_they_were(chart):
    import matplotlib

    with matplotlib.rc_context({"font.size": 31}):
        assert draw(bars, size=(300, 200), title="Bars <1>", description="a & b") == chart
        assert matplotlib.rcParams["font.size"] == 31
