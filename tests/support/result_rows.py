"""Results of a few settings, some of them hostile or incomplete, for the page of figures per setting."""

from __future__ import annotations

from collections.abc import Sequence

from erv.results.gather import Gathered
from erv.results.published import published
from erv.results.result import METRICS, Figure, Result
from erv.results.settings_of import origin_of, setting_of
from tests.support.result_locks import listing, locked

HOSTILE = "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
RAN = {
    "precision": "float32 on cpu",
    "hardware": "Some Processor, 2 cores",
    "libraries": "Python 3.11.2, torch 2.13.0",
    "sound.features": "log-mel, 32 bands at 16000 Hz, window 400, step 320, 1 s",
    "model.parameters": "1,204,224",
    "judge": "lexical, version 0123456789ab",
    "intervals": "95%, 2000 draws",
}


def figures(value: float) -> dict[str, Figure]:
    """Every metric with an interval."""
    return {metric: Figure(value, value - 0.05, value + 0.04) for metric in METRICS}


def rows() -> list[Result]:
    """Two policies on two folds, one of them by a judge with a hostile name, and one that lost much."""
    found = []
    for fold in (1, 2):
        for number, policy in enumerate(("sft", "erv")):
            origin = origin_of(locked(ingest__fold=fold), f"evaluate@{policy}", listing)
            record = {
                "date": f"2026-11-0{fold} 10:00 UTC",
                "commit": f"{fold}" * 40,
                "uncommitted changes": "no",
                "lock entry": f"{policy}{fold}" * 8,
                "found in": "the workspace",
            }
            setting = setting_of(origin, policy, "mafw") | RAN
            value, entry = 0.5 + 0.1 * number + 0.01 * fold, record["lock entry"]
            found.append(Result(policy, "mafw", setting, record, figures(value), 60, identity=entry))
    last = found[-1]
    judged = {**last.setting, "judge": HOSTILE}
    hostile = {**last.record, "date": HOSTILE}
    found.append(Result("erv", "mafw", judged, hostile, figures(0.4), 60, identity=HOSTILE))
    lost = {"ingest.fold": "1", "precision": "unknown (asked for: bfloat16 on cuda)"}
    remark = "grpo@erv: has run again since, so with what it made this result's part is unknown"
    bare = {"WAR": Figure(0.51), "EPC": Figure(None)}
    unknown = {"date": "unknown"}
    found.append(
        Result("erv", "dfew", lost, unknown, bare, remarks=(remark,), complete=False, identity="lost")
    )
    return found


def gathered(results: Sequence[Result] | None = None, *remarks: str, foreign: bool = True) -> Gathered:
    """These rows, and those that others have published."""
    mine = rows() if results is None else results
    return Gathered((*mine, *(published() if foreign else ())), remarks)
