"""What lock entries say of where things come from."""

from erv.lineage.entries import external_sources

LOCK = {
    "sft": {"outs": [{"path": "models/policy/sft", "md5": "s.dir"}]},
    "arms@arm0": {
        "deps": [{"path": "models/policy/sft", "md5": "s.dir"}, {"path": "stages/arms.py", "md5": "c"}],
        "outs": [{"path": "models/policy/sft_direct", "md5": "d.dir"}],
    },
    "arms@arm1": {
        "deps": [{"path": "/models/theirs", "md5": "t.dir"}, {"path": "src/erv/arms", "md5": "c.dir"}],
        "outs": [{"path": "models/policy/theirs", "md5": "e.dir"}],
    },
}


def test_a_policy_from_elsewhere_is_an_external_source() -> None:
    assert external_sources(LOCK, "arms@arm1") == ["external source /models/theirs  md5 t.dir"]
    assert external_sources(LOCK, "arms@arm0") == []
    assert external_sources(LOCK, "sft") == []
