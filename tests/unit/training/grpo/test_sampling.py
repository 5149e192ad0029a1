import pytest
import torch

from erv.training.grpo.sampling import (
    GenerationSeeds,
    NotFiniteError,
    Sampler,
    ascending,
    inverse_cdf,
    uniform_numbers,
)

ALMOST_ONE = 1.0 - 2.0**-53


def test_a_token_is_drawn_as_often_as_it_is_probable():
    probabilities = torch.tensor([0.1, 0.0, 0.6, 0.3])
    numbers = uniform_numbers([1], 20_000, 1)[:, 0]
    drawn = inverse_cdf(probabilities.expand(20_000, 4), numbers)
    shares = torch.bincount(drawn, minlength=4) / 20_000
    torch.testing.assert_close(shares, probabilities, atol=0.012, rtol=0)
    assert shares[1] == 0


@pytest.mark.parametrize("number", [0.0, 0.5, ALMOST_ONE])
def test_what_has_no_probability_is_never_drawn(number):
    torch.manual_seed(0)
    probabilities = torch.rand(500, 30).softmax(-1) * torch.randint(0, 2, (500, 30))
    probabilities[:, 7] += 0.01  # at least one
    drawn = inverse_cdf(probabilities, torch.full((500,), number, dtype=torch.float64))
    assert bool((probabilities.gather(1, drawn.unsqueeze(1)) > 0).all())


def test_a_row_draws_the_same_with_and_without_the_others():
    numbers = uniform_numbers([3, 1], 4, 2)
    sampler, logits = Sampler(numbers, 0.8, [2]), torch.randn(4, 9)
    together = sampler(logits, torch.arange(4), 1)
    assert 2 not in together
    assert sampler(logits[[1, 3]], torch.tensor([1, 3]), 1).tolist() == together[[1, 3]].tolist()


def test_greedy_rows_take_the_most_probable_token_that_may_be_drawn():
    numbers, logits = uniform_numbers([3, 1], 4, 2), torch.randn(4, 9)
    logits[:, 2] = 9.0
    greedy = torch.tensor([True, False, True, False])
    plain, mixed = Sampler(numbers, 0.8, [2]), Sampler(numbers, 0.8, [2], greedy)
    best = logits.index_fill(1, torch.tensor([2]), -torch.inf).argmax(-1)
    every = mixed(logits, torch.arange(4), 1)
    assert every[greedy].tolist() == best[greedy].tolist()
    assert every[~greedy].tolist() == plain(logits, torch.arange(4), 1)[~greedy].tolist()
    assert mixed(logits[[2]], torch.tensor([2]), 1).tolist() == best[[2]].tolist()


def test_numbers_depend_on_every_seed_and_on_nothing_else():
    first = uniform_numbers([1, 2, 3], 2, 3)
    torch.manual_seed(5)
    assert torch.equal(uniform_numbers([1, 2, 3], 2, 3), first)
    for other in ([0, 2, 3], [1, 0, 3], [1, 2, 0], [2, 1, 3]):
        assert not torch.equal(uniform_numbers(other, 2, 3), first)


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(NotFiniteError):
        Sampler(uniform_numbers([0], 1, 1), 1.0)(torch.tensor([[0.0, torch.nan]]), torch.tensor([0]), 0)


def test_generations_of_a_step_have_different_seeds_and_the_first_those_of_before():
    seeds = GenerationSeeds(7, 2)
    found = []
    for step, training in [(0, True), (0, False), (0, False), (0, False), (1, True), (1, False), (1, True)]:
        seeds.begin(step, training=training)
        found.append(seeds.of(step, training=training))
        assert seeds.of(step, training=training) == found[-1]
    assert found == [
        [7, 0, 2, 1],
        [7, 0, 2, 0],
        [7, 0, 2, 0, 1],
        [7, 0, 2, 0, 2],
        [7, 1, 2, 1],
        [7, 1, 2, 0],
        [7, 1, 2, 1, 1],
    ]
    assert seeds.of(5, training=True) == [7, 5, 2, 1]
    numbers = [uniform_numbers([7, 0, 2, 0, *more], 2, 3) for more in ([], [1], [2])]
    assert not torch.equal(numbers[0], numbers[1])
    assert not torch.equal(numbers[1], numbers[2])


def test_sums_that_fall_or_rise_by_rounding_are_put_right():
    probabilities = torch.tensor([[0.0, 0.25, 0.0, 0.25, 0.0, 0.5, 0.0]], dtype=torch.float64)
    exact = probabilities.cumsum(-1)
    assert torch.equal(ascending(exact, probabilities), exact)
    rounded = exact.clone()
    rounded[0, 2] += 1e-16
    rounded[0, 4] -= 1e-16
    assert torch.equal(ascending(rounded, probabilities), exact)
