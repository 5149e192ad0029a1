"""The sums behind `make profile-grpo`."""

from __future__ import annotations

import pytest
import torch

from benchmarks.operators import Counter, LabelledStopwatch, kind_of, product_speed, time_by_kind


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::addmm", "products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("aten::_log_softmax", "softmax"),
        ("aten::index_select", "copies"),
        ("aten::transpose", "views"),
        ("aten::mul", "elementwise"),
        ("part: decode", None),
        ("autograd::engine::evaluate_function: MulBackward0", None),
    ],
)
def test_operators_have_a_kind(operator: str, kind: str | None) -> None:
    assert kind_of(operator) == kind


def test_time_counts_for_the_innermost_part_and_its_kind() -> None:
    matrix = torch.randn(400, 400, requires_grad=True)
    watch = LabelledStopwatch(parts=("forward", "inner", "backward"))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        with watch("forward"):
            loss = matrix.exp().sum()
            with watch("inner"):
                loss = loss + (matrix @ matrix).sum()
        with watch("backward"):
            loss.backward()
    found = time_by_kind(recorded.events(), watch)
    assert found["forward"]["products"] == 0 < found["forward"]["elementwise"]
    assert found["inner"]["products"] > 0
    assert found["backward"]["products"] > 0
    for part, kinds in found.items():
        assert sum(kinds.values()) <= watch.wall[part]


def test_operations_count_for_their_part() -> None:
    one, other = torch.randn(2, 3, requires_grad=True), torch.randn(3, 5)
    query = torch.randn(1, 2, 7, 8)
    counter = Counter(("forward", "attention", "backward"))
    with counter.mode:
        with counter("forward"):
            loss = (one @ other).sum()
        with counter("attention"):
            torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, query, query)
        with counter("backward"):
            loss.backward()
    assert counter.operations == {
        "forward": 2 * 2 * 3 * 5,
        "attention": 2 * 2 * (2 * 7 * 7 * 8),  # two products, each 2 operations, of two heads
        "backward": 2 * 2 * 3 * 5,
    }
    assert counter.by_kind() == {"products": 120, "attention": 3136}


def test_the_speed_of_products_is_measured() -> None:
    assert product_speed(64, 2) > 1e6
