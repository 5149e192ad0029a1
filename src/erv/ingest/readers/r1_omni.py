"""R1-Omni's JSON: a list of `{"video": path, "conversations": [{"from", "value"}, ..]}`.

In cold-start data the last turn is `<think>..</think>` and `<answer>..</answer>`. In reinforcement learning
data it is the bare label, which explains nothing.
"""

from __future__ import annotations

from erv.errors import DataError
from erv.ingest.readers.explanations import Explained, stem
from erv.ingest.readers.reading import Check
from erv.ingest.readers.tree import Tree
from erv.prompts import parse_completion


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
            found.append(
                Explained(stem(video), text.strip(), "", where, silent="no explanation: a bare label")
            )
        else:
            found.append(Explained(stem(video), parsed.answer or "", parsed.explanation or "", where))
    return found, []
