"""The card of an exported version: Markdown with the header that model hubs read."""

from __future__ import annotations

import json
from collections.abc import Sequence

from erv.register.card import with_verdicts
from erv.register.fetched import FetchedVersion
from erv.register.register import EXTERNAL
from erv.register.verdict import Verdict


def model_card(version: FetchedVersion, family: str, verdicts: Sequence[Verdict] | None) -> str:
    """The text of `README.md`: the card of the version, how to use it, and where it came from.

    Args:
        version: what is exported.
        family: of its policy.
        verdicts: on its gates, as the registry has them; None if they were never decided.
    """
    card = with_verdicts((version.bundle / "card.md").read_text(encoding="utf-8"), verdicts).strip()
    commit = version.lineage.get("commit") or "not recorded"
    dirty = " with changes that were not committed" if version.lineage.get("dirty") else ""
    imported = "imported in a repository at " if (version.bundle / EXTERNAL).is_file() else ""
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: video-text-to-text",
            f"tags: [emotion-recognition, explanation, video, audio, erv, {family}]",
            "---",
            "",
            card,
            "",
            "## Use",
            "",
            "```python",
            "from erv.policies import load_policy  # also registers its classes with transformers",
            "",
            'policy = load_policy("FOLDER")',
            "```",
            "",
            "`verifier/` holds the verifier, `serving.json` how a clip is decoded before the policy sees it,"
            " which clips are refused, and which data sets the policy was tested with."
            " `erv import FOLDER` registers the folder as an external version.",
            "",
            "## Origin",
            "",
            f"- {version.title}, bundle `{version.bundle_hash}`{_judges(version)}",
            f"- {imported}commit `{commit}`{dirty}",
            f"- {_record(version)} (sha256 `{version.record}`)",
            "",
        ]
    )


def _judges(version: FetchedVersion) -> str:
    """The judges that were asked; nothing of an external version, which was not evaluated here."""
    path = version.bundle / "metrics.json"
    if not path.is_file():
        return ""
    metrics = json.loads(path.read_text(encoding="utf-8"))
    return f"; judges: {', '.join(sorted(metrics.get('judges', {}))) or 'none'}"


def _record(version: FetchedVersion) -> str:
    """What its record says."""
    if version.lineage.get("claims"):
        return (
            "`lineage.json` has the hashes of its files; what it says of what made them are claims of others"
        )
    if not version.lineage.get("stages"):
        return "`lineage.json` has the hashes of its files; what made it is not recorded"
    return "`lineage.json` names the stages, data and parameters that made it, by their hashes"
