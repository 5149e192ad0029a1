"""The answer to a lineage query: a tree of what something was made from, with its links checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from erv.lineage.links import Link

SCHEMA = "erv.lineage/1"
_NAMED = 3  # broken links that a summary names
ABOVE = "see above"  # the fact of a stage that the tree shows elsewhere


@dataclass
class Node:
    """A node of the answer: a title, facts, checked links, and what it is made from.

    Attributes:
        title: one line, the same wherever the node occurs.
        kind: version, stage, run, flow, commit, output, clip or data set; empty if it is none of them.
        facts: sentences for people.
        links: what was looked up in the stores.
        children: what it is made from.
        values: for machines: run ids, commits, parameters, roles; see docs/lineage.md.
    """

    title: str
    facts: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    kind: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def lines(self, indent: str = "") -> Iterator[str]:
        """The tree as text."""
        yield f"{indent}{self.title}"
        for fact in self.facts:
            yield f"{indent}  {fact}"
        for link in self.links:
            yield f"{indent}  {link.text()}"
        for child in self.children:
            yield from child.lines(indent + "    ")

    def document(self) -> dict[str, Any]:
        """The tree as JSON, see `schemas/lineage.json`."""
        return {
            "kind": self.kind,
            "title": self.title,
            "facts": list(self.facts),
            "links": [{"what": link.what, "ok": link.ok, "detail": link.detail} for link in self.links],
            "values": self.values,
            "children": [child.document() for child in self.children],
        }


def answer(target: str, node: Node) -> dict[str, Any]:
    """The answer to a query as JSON, see `schemas/lineage.json`."""
    links = [link for part in node.walk() for link in part.links]
    counts = {"checked": len(links), "broken": len(broken(node)), "unverifiable": len(unverifiable(node))}
    return {"schema": SCHEMA, "target": target, "links": counts, "tree": node.document()}


def brief(node: Node) -> list[str]:
    """The titles of the tree, each node once, and how many links hold; for the end of a flow run."""
    return [*_titles(node, ""), summary(node)]


def _titles(node: Node, indent: str) -> Iterator[str]:
    yield f"{indent}{node.title}"
    for child in node.children:
        if ABOVE not in child.facts:
            yield from _titles(child, indent + "  ")


def summary(node: Node) -> str:
    """`57 links checked, 1 broken (...), 2 not verifiable from here`, or that there are none.

    The first broken ones are named.
    """
    links = [link for part in node.walk() for link in part.links]
    if not links:
        return "no links to check"
    unknown = len(unverifiable(node))
    count = "1 link" if len(links) == 1 else f"{len(links)} links"
    return f"{count} checked, {_broken(node)}, {unknown} not verifiable from here"


def _broken(node: Node) -> str:
    """`0 broken`, or `5 broken (1, 2, 3 and 2 more)`."""
    names = [link.what for link in broken(node)]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} broken" + (f" ({', '.join(names[:_NAMED])}{more})" if names else "")


def broken(node: Node) -> list[Link]:
    """The links that do not hold."""
    return [check for part in node.walk() for check in part.links if check.ok is False]


def unverifiable(node: Node) -> list[Link]:
    """The links that can't be checked from here."""
    return [check for part in node.walk() for check in part.links if check.ok is None]
