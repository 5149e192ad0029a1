"""Charts as SVG inside an HTML page: one style, and equal data gives equal bytes on every machine.

matplotlib draws them without a display and without the global state of pyplot. Everything that could differ
between two runs is fixed: the user's matplotlibrc is ignored, ids are hashed with the chart's title, no date
and no version is written, and text stays text, laid out with the DejaVu font that comes with matplotlib.
Colours become variables of the page's style sheet, so that charts follow light and dark mode.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

# Name of the CSS variable -> colour on a light and on a dark page.
PALETTE = {
    "ink": ("#1b1d22", "#e9e9e6"),
    "soft": ("#5c6370", "#a0a6b1"),
    "line": ("#e4e4e0", "#31353c"),
    "p0": ("#8a94a6", "#8f9aad"),
    "p1": ("#d99a3d", "#e0a951"),
    "p2": ("#2f7f86", "#4fb0b6"),
    "p3": ("#9b5fa5", "#bd86c6"),
    "p4": ("#5a8f3c", "#85b866"),
    "good": ("#1d7f4e", "#5cc48d"),
    "bad": ("#b8433a", "#ef857b"),
}
COLOURS = {name: light for name, (light, _) in PALETTE.items()}

_FONT = "DejaVu Sans"
_NOTE = "note:"
_SVG = "{http://www.w3.org/2000/svg}"
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": [_FONT],
    "font.size": 12,
    "figure.dpi": 72,  # one point is one pixel
    "figure.frameon": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    **dict.fromkeys((f"axes.spines.{side}" for side in ("left", "right", "top", "bottom")), False),
    "axes.labelcolor": COLOURS["ink"],
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titlecolor": COLOURS["soft"],
    "text.color": COLOURS["ink"],
    "grid.color": COLOURS["line"],
    "grid.linewidth": 1,
    "xtick.major.size": 0,
    "xtick.major.pad": 6,
    "xtick.labelcolor": COLOURS["soft"],
    "ytick.major.size": 0,
    "ytick.major.pad": 6,
    "ytick.labelcolor": COLOURS["soft"],
    "legend.frameon": False,
    "legend.handlelength": 1,
    "legend.labelcolor": COLOURS["soft"],
}


def stylesheet() -> Markup:
    """The palette as CSS, for every page with charts."""
    light, dark = (
        "".join(f"--{name}:{pair[side]}; " for name, pair in PALETTE.items()).strip() for side in (0, 1)
    )
    return Markup(  # noqa: S704 (constants)
        f":root {{ color-scheme:light dark; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
    )


def draw(paint: Callable[[Any], None], *, size: tuple[float, float], title: str, description: str) -> Markup:
    """Draws a chart.

    Args:
        paint: draws on an empty `matplotlib.figure.Figure`.
        size: width and height in pixels; the page may scale the chart.
        title: names the chart for readers who can't see it; must be unique on the page.
        description: what the chart shows, in words and numbers, for the same readers.
    """
    import matplotlib
    from matplotlib.figure import Figure

    written = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The reader's browser has the glyphs; we only do the layout.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": title})
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        paint(figure)
        for artist in figure.findobj():
            artist.set_clip_on(False)
        figure.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(written.getvalue(), title, description)


def note(artist: Any, text: str) -> None:
    """Attaches a text that appears when the pointer rests on this part of the chart."""
    artist.set_gid(_NOTE + text)


def _inline(svg: str, title: str, description: str) -> Markup:
    """Turns matplotlib's output into an element of a page, without its own style sheet, ids and fonts."""
    root = ElementTree.fromstring(svg)  # noqa: S314 (our own drawing)
    style = next(item for item in root if item.find(f"{_SVG}style") is not None)
    root.remove(style)
    for element in list(root.iter()):
        attributes = {_local(name): _themed(name, value) for name, value in element.attrib.items()}
        element.tag = _local(element.tag)
        if element.tag == "g":
            text = attributes.pop("id", "")
            if text.startswith(_NOTE):
                element.insert(0, _element("title", text.removeprefix(_NOTE)))
        if element.tag != "text":
            element.text = None  # indentation
        element.tail = None
        element.attrib = attributes
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": title,
        "style": "stroke-linejoin: round",
    }
    root.insert(0, _element("desc", description))
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 (escaped by ElementTree)


def _themed(name: str, value: str) -> str:
    """Replaces the colours and the font of a style by those of the page."""
    if name != "style":
        return value
    for variable, colour in COLOURS.items():
        value = value.replace(colour, f"var(--{variable})")
    return value.replace(f"; font-family: '{_FONT}', sans-serif", "")


def _element(tag: str, text: str) -> ElementTree.Element:
    element = ElementTree.Element(tag)
    element.text = text
    return element


def _local(name: str) -> str:
    return name.rpartition("}")[2]
