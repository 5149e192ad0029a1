"""The answer to a lineage query as one HTML page that needs no network: what something was made from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from erv.figures.drawing import stylesheet
from erv.lineage.links import Link
from erv.lineage.node import ABOVE, Node, broken, summary


@dataclass
class Box:
    """A node of the graph.

    Attributes:
        number: its id on the page.
        node: what it shows; of several with one title, the first one.
        above: numbers of the boxes that it is made from.
        rank: how many steps the longest way from the target takes.
    """

    number: int
    node: Node
    above: list[int] = field(default_factory=list)
    rank: int = 0

    @property
    def state(self) -> str:
        """`bad` if a link is broken, `unsure` if one can't be checked, `good` if all hold, else empty."""
        found = {link.ok for link in self.node.links}
        return "bad" if False in found else "unsure" if None in found else "good" if found else ""

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that decided a stage's result."""
        found: dict[str, Any] = self.node.values.get("parameters") or {}
        return found


def boxes_of(tree: Node) -> list[Box]:
    """The nodes of a tree, each once, the target first; a tree shows what is shared once, too."""
    found: dict[str, Box] = {}

    def add(node: Node, rank: int) -> Box:
        box = found.setdefault(node.title, Box(len(found), node))
        if ABOVE in box.node.facts:  # the mention came first
            box.node = node
        box.rank = max(box.rank, rank)
        for child in node.children:
            below = add(child, rank + 1)
            if below.number not in box.above:
                box.above.append(below.number)
        return box

    add(tree, 0)
    boxes = list(found.values())
    _settle(boxes)
    return boxes


def _settle(boxes: list[Box]) -> None:
    """Puts every box below all that are made from it."""
    by_number = {box.number: box for box in boxes}
    for _ in boxes:  # no way is longer than the number of boxes
        moved = False
        for box in boxes:
            for number in box.above:
                if by_number[number].rank <= box.rank:
                    by_number[number].rank = box.rank + 1
                    moved = True
        if not moved:
            return


def page(target: str, tree: Node) -> str:
    """The page for an answer.

    Args:
        target: what was asked for.
        tree: the answer.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("erv.lineage"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    boxes = boxes_of(tree)
    ranks: list[list[Box]] = [[] for _ in range(max(box.rank for box in boxes) + 1)]
    for box in boxes:
        ranks[box.rank].append(box)
    script = files("erv.lineage").joinpath("templates/edges.js").read_text(encoding="utf-8")
    edges = json.dumps([[box.number, above] for box in boxes for above in box.above])
    return environment.get_template("lineage.html.j2").render(
        target=target,
        summary=summary(tree),
        broken=broken(tree),
        ranks=ranks,
        titles={box.number: box.node.title for box in boxes},
        mark=_mark,
        palette=stylesheet(),
        script=Markup(script),  # noqa: S704 (our own)
        edges=Markup(edges),  # noqa: S704 (numbers)
    )


def _mark(link: Link) -> str:
    return {True: "good", False: "bad", None: "unsure"}[link.ok]
