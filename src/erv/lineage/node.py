"""The answer to a lineage query: a tree of what something was made from, with its links checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from erv.lineage.links import Link


@dataclass
class Node:
    """A node of the answer: a title, facts, checked links, and what it is made from."""

    title: str
    facts: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)

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


def brief(node: Node) -> list[str]:
    """The titles of the tree, each node once, and how many links hold; for the end of a flow run."""
    return [*_titles(node, ""), summary(node)]


def _titles(node: Node, indent: str) -> Iterator[str]:
    yield f"{indent}{node.title}"
    for child in node.children:
        if "see above" not in child.facts:
            yield from _titles(child, indent + "  ")


def summary(node: Node) -> str:
    """`57 links checked, 0 broken, 2 not verifiable from here`, or that there was none to check."""
    links = [link for part in node.walk() for link in part.links]
    if not links:
        return "no links checked: nothing here says what it was made from"
    unknown = sum(link.ok is None for link in links)
    return f"{len(links)} links checked, {len(broken(node))} broken, {unknown} not verifiable from here"


def broken(node: Node) -> list[Link]:
    """The links that do not hold."""
    return [check for part in node.walk() for check in part.links if check.ok is False]
