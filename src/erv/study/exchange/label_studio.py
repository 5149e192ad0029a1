"""Projects of Label Studio: a labelling interface and tasks, for pairs and for ratings.

The interface shows the explanations when the emotion is chosen. Tasks name clips as files of Label Studio's
local storage, whose root is the folder that is written. Answers so far are in a file of their own, in the
form of its export: Label Studio imports annotations of its own users alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from erv.errors import DataError
from erv.files import write_text
from erv.study.contents import Kind
from erv.study.exchange.given import (
    FIRST,
    RATED,
    SECOND,
    Found,
    Given,
    chosen,
    copy_media,
    data_of,
    items_of,
    latest,
    preferred,
    read_json,
)
from erv.study.plan import HIGHEST, TIE, Item, Study

_LOCAL = "/data/local-files/?d="
_CLIP = "clip"


def write(study: Study, log: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Writes interface, tasks and answers of each kind of item."""
    copy_media(study, folder)
    given = latest(study, log)
    for kind in study.kinds:
        write_text(_interface(study, kind), folder / f"{kind}s.xml")
        tasks = [{"data": _data(item, study)} for item in items_of(study, kind)]
        _write(tasks, folder / f"{kind}s.json")
        answered = []
        for task, item in zip(tasks, items_of(study, kind), strict=True):
            mine = [(row, value) for row, value in given if row["item"] == item.id]
            if mine:
                answered.append(
                    {**task, "annotations": [_annotation(item, row, value) for row, value in mine]}
                )
        _write(answered, folder / f"{kind}s_answers.json")
    names = " or ".join(f"{kind}s.xml with {kind}s.json" for kind in study.kinds)
    return (
        f"set up a project with {names}, and local storage in this folder; import its JSON export with"
        f" `erv study import {study.name} --from label-studio`"
    )


def read(study: Study, path: Path) -> Found:
    """Reads Label Studio's export as JSON (not JSON-MIN)."""
    tasks = read_json(path)
    if not isinstance(tasks, list):
        raise DataError(f"{path}: expected a list of tasks, as Label Studio exports JSON")
    given = [
        one for number, task in enumerate(tasks, 1) for one in _given(study, task, f"{path}: task {number}")
    ]
    return Found(given, [])  # it takes no annotation in which a required answer is missing


def _given(study: Study, task: Any, where: str) -> Iterator[Given]:
    data = task.get("data") if isinstance(task, dict) else None
    annotations = task.get("annotations") if isinstance(task, dict) else None
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise DataError(f"{where}: expected data and annotations; export as JSON, not as JSON-MIN")
    if data.get("study") != study.sha256:
        raise DataError(f"{where}: is of another study, or of another plan of {study.name}")
    try:
        item = study.item(str(data.get("id")))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    for one in annotations:
        if one.get("was_cancelled"):
            continue
        name = f"{where}: annotation {one.get('id')}"
        results = {result.get("from_name"): result.get("value") or {} for result in one.get("result") or []}
        value: dict[str, Any] = {"emotion": _choice(results.get("emotion"))}
        if item.kind == "pair":
            value["preferred"] = preferred(item, _choice(results.get("preferred")), name)
        else:
            value["ratings"] = {
                rated: (results.get(name) or {}).get("rating") for rated, name in RATED.items()
            }
        if one.get("id") is None or one.get("completed_by") is None:
            raise DataError(f"{name}: has no id or no completed_by, so it is nobody's")
        yield Given(
            f"label-studio:{_who(one['completed_by'])}",
            item.id,
            value,
            _seconds(one.get("lead_time"), name),
            _at_ms(one.get("created_at"), name),
            f"label-studio:{one['id']}",
            name,
        )


def _choice(value: Any) -> str | None:
    choices = (value or {}).get("choices") or []
    return choices[0] if len(choices) == 1 else None


def _who(completed_by: Any) -> str:
    if isinstance(completed_by, dict):
        return str(completed_by.get("id") or completed_by.get("email"))
    return str(completed_by)


def _seconds(lead_time: Any, where: str) -> float:
    try:
        return float(lead_time or 0.0)
    except (TypeError, ValueError):
        raise DataError(f"{where}: lead_time is {lead_time!r}, expected seconds") from None


def _at_ms(text: Any, where: str) -> int | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        raise DataError(f"{where}: created_at is {text!r}, expected a date and time") from None
    return round(1000 * (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def _data(item: Item, study: Study) -> dict[str, str]:
    data, texts = data_of(item, study), study.texts[study.languages[0]]
    # Its choices have the names of emotions in the study's first language, so answers have, too.
    said = {name: texts.answer(text) for name, text in data.items() if name.endswith("_answer")}
    return {**data, **said, "clip": f"{_LOCAL}{data['clip']}"}


def _annotation(item: Item, row: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    said = {"emotion": ("choices", {"choices": [value["emotion"]]})}
    if "preferred" in value:
        said["preferred"] = ("choices", {"choices": [chosen(item, value["preferred"])]})
    said |= {RATED[name]: ("rating", {"rating": number}) for name, number in value.get("ratings", {}).items()}
    return {
        "id": row["number"],
        "completed_by": row["rater"],
        "created_at": datetime.fromtimestamp(row["at_ms"] / 1000, UTC).isoformat(),
        "lead_time": row["shown_ms"] / 1000,
        "was_cancelled": False,
        "result": [
            {"from_name": name, "to_name": _CLIP, "type": kind, "value": content}
            for name, (kind, content) in said.items()
        ],
    }


def _interface(study: Study, kind: Kind) -> str:
    texts = study.texts[study.languages[0]]
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Video", name=_CLIP, value="$clip")
    _question(
        view,
        "emotion",
        texts.questions["emotion"],
        {label: texts.emotions[label] for label in study.emotions},
    )
    hidden = ElementTree.SubElement(view, "View", visibleWhen="choice-selected", whenTagName="emotion")
    for place in (FIRST, SECOND) if kind == "pair" else (FIRST,):
        ElementTree.SubElement(hidden, "Header", value=place)
        ElementTree.SubElement(hidden, "Text", name=place, value=f"${place}")
    if kind == "pair":
        choices = {choice: choice for choice in (FIRST, SECOND, TIE)}
        _question(hidden, "preferred", texts.questions["preferred"], choices)
    else:
        ElementTree.SubElement(hidden, "Text", name=f"{FIRST}_answer", value=f"${FIRST}_answer")
        for rated, name in RATED.items():
            ElementTree.SubElement(hidden, "Header", value=texts.questions[f"ratings.{rated}"])
            ElementTree.SubElement(
                hidden, "Rating", name=name, toName=_CLIP, maxRating=str(HIGHEST), required="true"
            )
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _question(view: ElementTree.Element, name: str, text: str, choices: Mapping[str, str]) -> None:
    """A choice of one; the alias is what stands in the answer."""
    ElementTree.SubElement(view, "Header", value=text)
    asked = ElementTree.SubElement(
        view, "Choices", name=name, toName=_CLIP, choice="single-radio", required="true", showInline="true"
    )
    for value, shown in choices.items():
        ElementTree.SubElement(asked, "Choice", value=shown, alias=value)


def _write(content: Any, path: Path) -> None:
    write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", path)
