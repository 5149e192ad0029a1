"""What versions did with clips, as nodes of an answer."""

from __future__ import annotations

from collections.abc import Sequence, Set

from erv.lineage.contents import Clip
from erv.lineage.links import Link
from erv.lineage.membership import VersionRoles, clip_name, clips_counted, roles_counts, roles_document
from erv.lineage.node import Node

_VERBS = {"learned": "learned from", "tuned": "was tuned on", "tested": "was tested on"}


def used_nodes(versions: Sequence[VersionRoles], clips_of: Set[Clip] | None = None) -> list[Node]:
    """A node per version that used clips or might have.

    Args:
        versions: what each did.
        clips_of: the few clips that were asked for, to be named; None counts those of a data set.
    """
    return [_node(roles, clips_of) for roles in versions]


def _node(roles: VersionRoles, clips: Set[Clip] | None) -> Node:
    node = Node(roles.version.title, kind="version")
    several = clips is not None and len(clips) > 1
    if clips is None:
        for item in roles_counts(roles):
            node.facts.append(f"{_VERBS[item['role']]} {clips_counted(item['clips'])} ({item['stage']})")
        left = len(roles.left_out)
        node.facts += [f"left {clips_counted(left)} out of training or tuning"] if left else []
    else:
        for used in roles.used:
            names = ", ".join(clip_name(clip) for clip in used.clips) if several else "it"
            node.facts.append(f"{_VERBS[used.role]} {names} ({used.stage})")
        for left_out in roles.left_out:
            name = clip_name(left_out.clip) if several else "it"
            node.facts.append(f"not {left_out.role} ({left_out.stage}): {name}, {left_out.because}")
    if not node.facts and not roles.unread and not roles.version.unrecorded:
        # Of what isn't recorded, nobody can say that it didn't.
        node.facts.append("no recorded use of it" if roles.unknown else "did not use it")
    node.facts += [f"not recorded: {sentence}" for sentence in roles.unknown]
    node.links = [Link("roles", None, sentence) for sentence in roles.unread]
    document = roles_document(roles)
    if clips is None:  # a data set may have tens of thousands
        document["used"] = roles_counts(roles)
        document["left_out"] = len(roles.left_out)
    node.values = document
    return node
