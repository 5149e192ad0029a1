"""Projects of Potato (davidjurgens/potato, version 2), one for pairs and one for ratings.

All questions are of its type `radio`, so that answers have one form. Potato keeps them as
`annotation_output/USER/user_state.json`: `instance_id_to_label_to_value` has for each item a list of
`[{"schema": question, "name": choice}, value]`. It shows all questions of an item at once: there, raters see
the explanations when they name the emotion.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

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
    key_of,
    latest,
    preferred,
    read_json,
)
from erv.study.plan import HIGHEST, LOWEST, TIE, Study

STATE = "user_state.json"
_OUTPUT = "annotation_output"
_STATED = "instance_id_to_label_to_value"


def write(study: Study, log: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Writes a project per kind of item."""
    given = latest(study, log)
    for kind in study.kinds:
        project = folder / f"{kind}s"
        project.mkdir()
        copy_media(study, project)
        config = yaml.safe_dump(_config(study, kind), sort_keys=False, allow_unicode=True)
        write_text(config, project / "config.yaml")
        lines = [json.dumps(data_of(item, study), ensure_ascii=False) for item in items_of(study, kind)]
        write_text("\n".join(lines) + "\n", project / "items.jsonl")
        mine = [(row, value) for row, value in given if row["kind"] == kind]
        for rater in sorted({row["rater"] for row, _ in mine}):
            answers = {
                row["item"]: _labels(study, row["item"], value)
                for row, value in mine
                if row["rater"] == rater
            }
            state = {"user_id": rater, "instance_id_ordering": list(answers), _STATED: answers}
            write_text(json.dumps(state, indent=1) + "\n", project / _OUTPUT / rater / STATE)
    names = " and ".join(f"{kind}s/config.yaml" for kind in study.kinds)
    return (
        f"start Potato with {names}; import its {_OUTPUT} with `erv study import {study.name} --from potato`"
    )


def read(study: Study, path: Path) -> Found:
    """Reads a folder of annotations, or a project, or several.

    Potato keeps each choice at once, so while somebody works, an item may have some of its answers only.
    """
    states = sorted(path.rglob(STATE)) if path.is_dir() else []
    if not states:
        raise DataError(f"{path}: has no {STATE}; name the folder {_OUTPUT} of a Potato project")
    found = Found([], [])
    for state in states:
        for one in _given(study, state):
            if isinstance(one, Given):
                found.given.append(one)
            else:
                found.incomplete.append(one)
    return found


def _given(study: Study, path: Path) -> Iterator[Given | str]:
    """The answers, and the places of items of which not all questions are answered."""
    content = read_json(path)
    user = content.get("user_id") if isinstance(content, dict) else None
    items = content.get(_STATED) if isinstance(content, dict) else None
    if not isinstance(user, str) or not user or not isinstance(items, dict):
        raise DataError(f"{path}: not Potato's state of a user; expected user_id and {_STATED}")
    for name, labels in items.items():
        where = f"{path}: item {name}"
        choices = _choices(labels, where)
        if not choices:
            continue  # looked at, not answered
        try:
            item = study.item(name)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        if not _asked(item.kind) <= set(choices):
            yield where
            continue
        value: dict[str, Any] = {"emotion": choices.get("emotion")}
        if item.kind == "pair":
            value["preferred"] = preferred(item, choices.get("preferred"), where)
        else:
            value["ratings"] = {rated: _number(choices.get(name)) for rated, name in RATED.items()}
        yield Given(f"potato:{user}", name, value, 0.0, None, key_of("potato", user, name), where)


def _asked(kind: Kind) -> set[str]:
    return {"emotion", "preferred"} if kind == "pair" else {"emotion", *RATED.values()}


def _choices(labels: Any, where: str) -> dict[str, str]:
    """Question -> choice."""
    found: dict[str, str] = {}
    try:
        for label, value in labels:
            if value in (None, "", False, "false"):
                continue
            if found.setdefault(str(label["schema"]), str(label["name"])) != str(label["name"]):
                raise DataError(f"{where}: has two choices for {label['schema']}; `potato repair` mends that")
    except (TypeError, ValueError, KeyError):
        raise DataError(f"{where}: expected a list of labels with schema, name and value") from None
    return found


def _number(choice: str | None) -> int | None:
    return int(choice) if choice is not None and choice.isdecimal() else None


def _labels(study: Study, name: str, value: Mapping[str, Any]) -> list[Any]:
    said = {"emotion": value["emotion"]}
    if "preferred" in value:
        said["preferred"] = chosen(study.item(name), value["preferred"])
    said |= {RATED[rated]: str(number) for rated, number in value.get("ratings", {}).items()}
    return [[{"schema": schema, "name": choice}, "true"] for schema, choice in said.items()]


def _config(study: Study, kind: Kind) -> dict[str, Any]:
    texts = study.texts[study.languages[0]]
    asked = {"emotion": list(study.emotions)}
    words = dict(texts.questions) | {
        name: texts.questions.get(f"ratings.{rated}", "") for rated, name in RATED.items()
    }
    if kind == "pair":
        asked["preferred"] = [FIRST, SECOND, TIE]
    else:
        asked |= {name: [str(number) for number in range(LOWEST, HIGHEST + 1)] for name in RATED.values()}
    shown: list[dict[str, Any]] = [{"key": "clip", "type": "video", "display_options": {"controls": True}}]
    for place in (FIRST, SECOND) if kind == "pair" else (FIRST,):
        shown.append({"key": place, "type": "text", "label": place})
    if kind == "rating":
        shown.append({"key": f"{FIRST}_answer", "type": "text", "label": f"{FIRST}: answer"})
    return {
        "annotation_task_name": f"{study.name}, {kind}s",
        "task_dir": ".",
        "data_files": ["items.jsonl"],
        "item_properties": {"id_key": "id", "text_key": FIRST},
        "output_annotation_dir": _OUTPUT,
        "output_annotation_format": "json",
        "instance_display": {"fields": shown},
        "annotation_schemes": [
            {
                "annotation_type": "radio",
                "name": name,
                "description": words[name],
                "labels": labels,
                "label_requirement": {"required": True},
            }
            for name, labels in asked.items()
        ],
    }
