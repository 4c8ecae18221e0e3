"""Bounds agree with independent oracles: numeric likelihood, scipy's exact test, simulation, plain bootstrap."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from harness.statistics import betting_interval, proportion_interval, ratio_interval, tango_interval

COUNTS = st.integers(1, 60).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda b: st.tuples(st.just(b), st.integers(0, n - b), st.just(n)))
)


def score_statistic(b: int, c: int, n: int, delta: float) -> float:
    """The score statistic of p12 - p21 = delta, its nuisance parameter found by numeric maximum likelihood."""

    def loss(p21: float) -> float:
        cells = ((b, p21 + delta), (c, p21), (n - b - c, 1 - 2 * p21 - delta))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    low, high = max(0.0, -delta), (1 - delta) / 2
    found = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    p21 = min([float(found.x), low, high], key=loss)
    variance = n * ((p21 + delta) + p21 - delta**2)  # of a difference of two cells of a multinomial
    return (b - c - n * delta) / math.sqrt(max(variance, 1e-300))


@pytest.mark.parametrize(
    ("b", "c", "n"), [(0, 0, 10), (1, 0, 10), (0, 1, 48), (7, 1, 21), (6, 16, 161), (3, 3, 9), (5, 0, 5), (20, 5, 40)]
)
def test_tango_is_the_numeric_score_test_inverted_on_a_grid(b: int, c: int, n: int) -> None:
    z = stats.norm.ppf(0.95)
    kept = [delta for delta in np.linspace(-1, 1, 801)[1:-1] if abs(score_statistic(b, c, n, delta)) <= z]
    interval = tango_interval(b, c, n)
    assert interval.lower == pytest.approx(min(kept), abs=0.0026)
    assert interval.upper == pytest.approx(max(kept) if max(kept) < 0.997 else 1.0, abs=0.0026)


@given(COUNTS, st.sampled_from([0.9, 0.95, 0.99]))
@settings(max_examples=150)
def test_both_tango_bounds_are_roots_of_the_numeric_score_test(counts: tuple[int, int, int], confidence: float) -> None:
    b, c, n = counts
    z = stats.norm.ppf(confidence)
    interval = tango_interval(b, c, n, confidence)
    assert -1 <= interval.lower <= interval.estimate <= interval.upper <= 1
    if b - c < n:
        assert score_statistic(b, c, n, interval.upper) == pytest.approx(-z, abs=2e-3)
    if b - c > -n:
        assert score_statistic(b, c, n, interval.lower) == pytest.approx(z, abs=2e-3)


def test_tango_gives_the_published_interval() -> None:
    # Cavo et al. 2012, table (59, 6; 16, 80), in Fagerland, Lydersen and Laake, "Statistical Analysis of Contingency
    # Tables" (2017), chapter 8: the two-sided 95 % interval is -0.124 to -0.0054.
    interval = tango_interval(6, 16, 161, confidence=0.975)
    assert [round(v, 4) for v in interval] == [-0.0621, -0.1240, -0.0054]


@given(COUNTS)
def test_tango_is_symmetric(counts: tuple[int, int, int]) -> None:
    b, c, n = counts
    one, other = tango_interval(b, c, n), tango_interval(c, b, n)
    assert (one.estimate, one.lower, one.upper) == pytest.approx(
        (-other.estimate, -other.upper, -other.lower), abs=1e-8
    )


@pytest.mark.parametrize("n", [1, 10, 500, 100_000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_without_discordant_pairs_tango_still_has_its_known_width(n: int, confidence: float) -> None:
    z = stats.norm.ppf(confidence)
    interval = tango_interval(0, 0, n, confidence)
    limit = z**2 / (n + z**2)
    assert (interval.estimate, interval.lower, interval.upper) == pytest.approx((0, -limit, limit), rel=1e-6)


@given(COUNTS)
def test_more_confidence_is_a_wider_tango_interval(counts: tuple[int, int, int]) -> None:
    narrow, wide = tango_interval(*counts, confidence=0.9), tango_interval(*counts, confidence=0.99)
    assert wide.lower <= narrow.lower and narrow.upper <= wide.upper
    assert wide.upper - wide.lower > narrow.upper - narrow.lower


@given(COUNTS.filter(lambda counts: counts[0] + counts[1] < counts[2]))
def test_one_more_loss_raises_both_tango_bounds(counts: tuple[int, int, int]) -> None:
    b, c, n = counts
    before, after = tango_interval(b, c, n), tango_interval(b + 1, c, n)
    assert after.lower > before.lower - 1e-9 and after.upper > before.upper - 1e-9


@pytest.mark.parametrize(("b", "c", "n"), [(0, 0, 0), (-1, 0, 5), (0, -1, 5), (3, 3, 5)])
def test_counts_that_do_not_fit_are_refused(b: int, c: int, n: int) -> None:
    with pytest.raises(ValueError, match="counts do not fit"):
        tango_interval(b, c, n)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
def test_proportion_interval_is_scipys_exact_one(hits_of: tuple[int, int], confidence: float) -> None:
    hits, n = hits_of
    interval = proportion_interval(hits, n, confidence)
    exact = stats.binomtest(hits, n).proportion_ci(2 * confidence - 1, method="exact")  # two one-sided bounds
    low = 0.0 if hits == 0 else exact.low
    high = 1.0 if hits == n else exact.high
    assert interval == pytest.approx((hits / n, low, high), abs=1e-6)


def test_a_proportion_that_was_never_hit_has_the_bound_of_the_rule_of_three() -> None:
    assert proportion_interval(0, 100).upper == pytest.approx(1 - 0.05 ** (1 / 100))


@pytest.mark.parametrize("kind", ["graded", "rare", "symmetric"])
def test_betting_bounds_miss_the_true_mean_as_seldom_as_promised(kind: str) -> None:
    rng, runs, n, confidence = np.random.default_rng(7), 250, 60, 0.9
    draw = {
        "graded": (lambda: rng.choice([0.0, 0.2, -0.2, 0.6], size=n, p=[0.6, 0.2, 0.1, 0.1]), 0.08),
        "rare": (lambda: rng.choice([0.0, 1.0], size=n, p=[0.98, 0.02]), 0.02),
        "symmetric": (lambda: rng.uniform(-1, 1, size=n), 0.0),
    }
    sample, mean = draw[kind]
    found = [betting_interval(sample(), confidence) for _ in range(runs)]
    allowed = (1 - confidence) + 3 * math.sqrt(confidence * (1 - confidence) / runs)
    assert np.mean([interval.upper < mean for interval in found]) <= allowed
    assert np.mean([interval.lower > mean for interval in found]) <= allowed
    assert np.mean([interval.upper - interval.lower for interval in found]) < 1.0  # and it does say something


def test_the_first_bet_knows_nothing_of_the_first_difference() -> None:
    # By hand: one difference of 0.6 is x = 0.8. Before it the variance is taken to be 1/4, so that the bet is
    # sqrt(2 ln(1/alpha) / (1/4)), and the bound is where 1 + bet * (x - m) = 1 / alpha.
    alpha = 0.3
    bet = math.sqrt(2 * math.log(1 / alpha) / 0.25)
    assert betting_interval([0.6], 1 - alpha).lower == pytest.approx(2 * (0.8 - (1 / alpha - 1) / bet) - 1, abs=1e-6)


@pytest.mark.parametrize("n", [1, 10, 100, 2000])
def test_betting_does_not_collapse_when_all_differences_are_zero(n: int) -> None:
    interval = betting_interval(np.zeros(n))
    assert interval.estimate == 0
    assert -1 <= interval.lower < -0.5 / n and 0.5 / n < interval.upper <= 1


def test_betting_bounds_close_in_on_the_mean() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for n in (50, 500, 5000):
        interval = betting_interval(rng.choice([0.0, 0.5, -0.5], size=n, p=[0.8, 0.15, 0.05]))
        assert interval.lower < 0.05 < interval.upper
        widths.append(interval.upper - interval.lower)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60))
def test_betting_bounds_stay_in_range_and_swap_with_the_sign(values: list[float]) -> None:
    one, other = betting_interval(values), betting_interval([-v for v in values])
    assert -1 <= one.lower <= one.upper <= 1
    assert one.estimate == pytest.approx(np.mean(values), abs=1e-12)
    assert (one.lower, one.upper) == pytest.approx((-other.upper, -other.lower), abs=1e-6)


@given(st.integers(0, 2**32), st.integers(1, 80))
def test_betting_bounds_of_shuffled_differences_contain_the_estimate(seed: int, n: int) -> None:
    values = np.random.default_rng(seed).choice([-0.5, 0.0, 0.0, 0.0, 0.25, 1.0], size=n)
    interval = betting_interval(values, 0.99)
    assert interval.lower <= interval.estimate <= interval.upper


@pytest.mark.parametrize("values", [[], [0.0, 1.5], [-1.01], [math.nan], [math.inf]])
def test_betting_refuses_what_is_no_difference(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        betting_interval(values)


def test_ratio_bounds_are_near_those_of_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(3)
    weights = rng.integers(20, 200, size=400).astype(float)
    sums = weights * rng.gamma(2.0, 0.01, size=400)
    interval = ratio_interval(sums, weights)
    picks = rng.integers(0, 400, size=(4000, 400))
    ratios = sums[picks].sum(axis=1) / weights[picks].sum(axis=1)
    assert interval.estimate == pytest.approx(sums.sum() / weights.sum())
    below, above = np.quantile(ratios, [0.05, 0.95]) - interval.estimate
    assert interval.lower - interval.estimate == pytest.approx(below, rel=0.1)
    assert interval.upper - interval.estimate == pytest.approx(above, rel=0.1)


def test_ratio_bounds_treat_the_document_as_the_unit() -> None:
    # The same positions in a tenth of the documents must not look ten times as certain.
    rng = np.random.default_rng(4)
    per_document = rng.gamma(1.0, 0.02, size=30)
    few = ratio_interval(per_document * 1000, np.full(30, 1000.0), resamples=2000)
    many = ratio_interval(np.repeat(per_document, 10) * 100, np.full(300, 100.0), resamples=2000)
    assert few.estimate == pytest.approx(many.estimate)
    assert few.upper - few.lower > 2 * (many.upper - many.lower)


def test_ratio_bounds_are_the_same_every_time() -> None:
    rng = np.random.default_rng(5)
    sums, weights = rng.gamma(1.0, 1.0, size=25), np.full(25, 50.0)
    assert ratio_interval(sums, weights, resamples=500) == ratio_interval(sums, weights, resamples=500)


def test_one_document_has_infinite_bounds() -> None:
    assert ratio_interval([3.0], [10.0]) == (pytest.approx(0.3), -math.inf, math.inf)


@pytest.mark.parametrize(
    ("sums", "weights"), [([], []), ([1.0], [0.0]), ([1.0], [-2.0]), ([math.nan], [1.0]), ([1.0, 2.0], [1.0])]
)
def test_documents_without_positions_or_finite_sums_are_refused(sums: list[float], weights: list[float]) -> None:
    with pytest.raises(ValueError, match="for each document"):
        ratio_interval(sums, weights)
