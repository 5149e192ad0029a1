"""R1-Omni's JSON: a list of `{"video": path, "conversations": [{"from", "value"}, ..]}`.

In cold-start data the last turn is `<think>..</think>` and `<answer>..</answer>`. In reinforcement learning
data it is the bare label, which explains nothing.
"""

from __future__ import annotations

import re

from erv.errors import DataError
from erv.ingest.readers.explanations import Explained
from erv.ingest.readers.reading import Check
from erv.ingest.readers.tree import Tree
from erv.prompts import parse_completion, tagged

_BLOCK = re.compile(r"<think>.*?</think>|<answer>.*?</answer>", re.DOTALL)


def fits(document: object) -> bool:
    """Whether a JSON document is such a list."""
    return (
        isinstance(document, list)
        and bool(document)
        and isinstance(document[0], dict)
        and {"video", "conversations"} <= document[0].keys()
    )


def rows(tree: Tree, path: str, document: object) -> tuple[list[Explained], list[Check]]:
    """The explanations of the list.

    Raises:
        DataError: an item lacks its video or its turns.
    """
    found = []
    for index, item in enumerate(document if isinstance(document, list) else []):
        where = f"{tree.full(path)}[{index}]"
        try:
            video, text = item["video"], item["conversations"][-1]["value"]
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"{where}: not {{video, conversations: [{{from, value}}, ..]}} ({error!r})"
            ) from error
        if not isinstance(video, str) or not isinstance(text, str):
            raise DataError(f"{where}: video and the last value must be text")
        parsed = parse_completion(text)
        if parsed.answer is None and "<" not in text:
            found.append(Explained(video, text.strip(), "", where, silent="no explanation: a bare label"))
        else:
            fault = _fault(text, item["conversations"][:-1])
            found.append(Explained(video, parsed.answer or "", parsed.explanation or "", where, fault=fault))
    return found, []


def _fault(text: str, before: list[object]) -> str | None:
    """Why it is not clear which answer, or which explanation, counts; None if it is."""
    for tag in ("think", "answer"):
        count = len(re.findall(rf"<\s*{tag}\s*>", text, re.IGNORECASE))
        if count > 1:
            return f"{count} {tag} tags in one text, expected one"
    earlier = (
        turn["value"]
        for turn in before
        if isinstance(turn, dict) and turn.get("from") != "human" and "value" in turn
    )
    if any(isinstance(value, str) and tagged(value, "answer") for value in earlier):
        return "an answer in several turns, expected one"
    if _BLOCK.sub("", text).strip():
        return "text outside its think and answer tags"
    return None
