"""Temperature and threshold against grids, brute force, and the guarantee that they give."""

import logging
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax

from layerflow.errors import ConfigError
from layerflow.evaluation.abstention import accepts, choose_threshold
from layerflow.evaluation.confidence import abstention_on, calibrated_on, serving_of
from layerflow.evaluation.temperature import fit_temperature
from layerflow.models.predict import cross_entropy, softmax
from layerflow.serving import Serving
from layerflow.settings.export import AbstainConfig, ExportConfig


def drawn(temperature: float, examples: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a network whose probabilities are right at this temperature, and labels drawn from them."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(0, 3, (examples, 5)).astype(np.float32)
    shares = scipy_softmax(logits.astype(np.float64) / temperature, axis=-1)
    labels = (shares.cumsum(axis=-1) > chance.random((examples, 1))).argmax(axis=-1)
    return logits, labels


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_temperature_is_the_lowest_point_of_a_fine_grid_and_near_the_true_one(true: float) -> None:
    logits, labels = drawn(true)
    grid = true * np.exp(np.linspace(-0.5, 0.5, 501))
    rows = np.arange(len(labels))
    losses = [-log_softmax(logits.astype(np.float64) / each, axis=-1)[rows, labels].mean() for each in grid]
    lowest = grid[int(np.argmin(losses))]
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(lowest, rel=2e-3)  # the grid's step
    assert found == pytest.approx(true, rel=0.1)
    assert found == float(f"{found:.4g}")
    assert cross_entropy(logits, labels, found) == pytest.approx(min(losses), abs=1e-6)


@pytest.mark.parametrize("mistakes", [0, 1, 9])
def test_no_temperature_is_fitted_to_fewer_than_ten_mistakes(mistakes: int, caplog: pytest.LogCaptureFixture) -> None:
    logits, _ = drawn(1.0, 100)
    labels = logits.argmax(axis=-1)
    labels[:mistakes] = (labels[:mistakes] + 1) % 5
    with caplog.at_level(logging.WARNING):
        assert fit_temperature(logits, labels) == 1.0
    assert f"answered wrong, and there are {mistakes}; it stays 1" in caplog.text
    labels[:10] = (logits[:10].argmax(axis=-1) + 1) % 5
    assert fit_temperature(logits, labels) != 1.0


def test_a_network_that_knows_nothing_is_made_as_unsure_as_it_may_be() -> None:
    logits, _ = drawn(1.0)
    apart = np.median(logits.max(axis=-1) - logits.min(axis=-1))
    assert fit_temperature(logits, logits.argmin(axis=-1)) == pytest.approx(10 * apart, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_the_temperature_follows_the_scale_of_the_logits(scale: float) -> None:
    logits, labels = drawn(1.5)
    scaled = (logits * np.float32(scale)).astype(np.float32)
    assert fit_temperature(scaled, labels) == pytest.approx(scale * fit_temperature(logits, labels), rel=1e-3)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_logits_that_are_equal_or_no_numbers_have_no_temperature(value: float) -> None:
    with np.errstate(invalid="ignore"):
        assert fit_temperature(np.full((30, 3), value, np.float32), np.arange(30) % 3) == 1.0


@given(
    logits=arrays(np.float32, (6, 4), elements=st.floats(-80, 80, width=32)),
    temperature=st.floats(0.05, 100),
)
def test_no_temperature_changes_which_class_is_the_most_probable(logits: np.ndarray, temperature: float) -> None:
    probabilities = softmax(logits, temperature)
    chosen = logits.argmax(axis=-1)
    # Two logits may become the same float32; that of the decision is among the largest then, too.
    np.testing.assert_array_equal(probabilities[np.arange(6), chosen], probabilities.max(axis=-1))


def test_a_temperature_of_one_leaves_every_bit(recorded: np.ndarray) -> None:
    exponents = np.exp(recorded - recorded.max(axis=-1, keepdims=True))
    as_before = (exponents / exponents.sum(axis=-1, keepdims=True)).astype(np.float32)
    np.testing.assert_array_equal(softmax(recorded, 1.0), as_before)


@pytest.fixture
def recorded() -> np.ndarray:
    return drawn(1.0)[0]


def brute_force(confidence: np.ndarray, wrong: np.ndarray, error: float) -> float:
    """The lowest multiple of a thousandth with n/(n+1)·risk + 1/(n+1) ≤ error, in exact arithmetic."""
    n = len(wrong)
    steps = np.arange(1002) / 1000
    accepted_and_wrong = (confidence >= steps.astype(np.float32)[:, None]) & wrong
    for step, count in zip(steps, accepted_and_wrong.sum(axis=-1), strict=True):
        risk = Fraction(int(count), n)
        if Fraction(n, n + 1) * risk + Fraction(1, n + 1) <= Fraction(str(error)):
            return float(step)
    raise AssertionError("no threshold")


@settings(max_examples=40)
@given(data=st.data(), error=st.sampled_from([0.02, 0.05, 0.1, 0.29, 0.5]))
def test_the_threshold_is_the_lowest_one_that_conformal_risk_control_allows(data: st.DataObject, error: float) -> None:
    n = data.draw(st.integers(50, 120))
    confidence = data.draw(arrays(np.float32, n, elements=st.integers(0, 999).map(lambda each: (each + 0.5) / 1000)))
    wrong = data.draw(arrays(bool, n))
    found = choose_threshold(confidence, wrong, AbstainConfig(error=error).most_wrong(n))
    # Between two confidences of half thousandths, a grid of thousandths and one of millionths accept the same.
    expected = brute_force(confidence, wrong, error)
    np.testing.assert_array_equal(accepts(confidence, found), accepts(confidence, expected))
    assert found <= expected
    if found:  # a millionth lower, and one more would be accepted and wrong
        lower = accepts(confidence, found - 1e-6)
        assert (lower & wrong).sum() > AbstainConfig(error=error).most_wrong(n)


@given(st.floats(0, 1, width=32))
def test_a_mistake_of_any_confidence_is_not_accepted_as_the_graph_compares(confidence: float) -> None:
    given_ = np.array([confidence], np.float32)
    found = choose_threshold(given_, np.array([True]), 0)
    assert not accepts(given_, found).any()
    assert accepts(given_, found - 1e-6).all()
    assert found <= 1.000001


def test_everything_is_accepted_if_few_are_wrong_and_nothing_if_mistakes_are_certain() -> None:
    confidence, wrong = np.ones(100, np.float32), np.arange(100) < 3
    assert choose_threshold(confidence, wrong, 3) == 0.0
    nothing = choose_threshold(confidence, wrong, 2)
    assert not accepts(confidence, nothing).any()


@pytest.mark.parametrize(("error", "enough"), [(0.01, 99), (0.05, 19), (0.07, 14), (0.29, 3), (0.001, 999)])
def test_one_image_too_few_is_a_sentence_with_the_number_that_is_needed(error: float, enough: int) -> None:
    config = AbstainConfig(error=error)
    config.require_enough(enough)
    assert 1 / (enough + 1) <= error < 1 / enough
    said = rf"error {error} needs at least {enough:,} validation images\. There are {enough - 1}; raise data"
    with pytest.raises(ConfigError, match=said):
        config.require_enough(enough - 1)
    AbstainConfig().require_enough(0)


def test_the_guarantee_holds_on_the_average_over_many_draws_and_the_bound_is_nearly_reached() -> None:
    """An oracle that knows the distribution: fitted on 200 images, scored on 800 others, 300 times."""
    config = ExportConfig(calibrate="temperature", abstain=AbstainConfig(error=0.05))
    logits, labels = drawn(2.0, 1000)
    chance, shares = np.random.default_rng(0), []
    for _ in range(300):
        order = chance.permutation(len(labels))
        some, others = order[:200], order[200:]
        serving = serving_of(config, logits[some], labels[some])
        shares.append(abstention_on(logits[others], labels[others], serving, 0.05, 200).wrong)
    # Between error - 2/(n+1) (theorem 2 of the paper) and error; four standard errors of the mean beside it.
    noise = 4 * np.std(shares) / math.sqrt(len(shares))
    assert 0.05 - 2 / 201 - noise < np.mean(shares) < 0.05 + noise


def test_the_figures_are_those_counted_by_hand() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]], np.float32))
    labels = np.array([0, 1, 0, 1])
    found = abstention_on(logits, labels, Serving(threshold=0.7), asked=0.1, images=7)
    assert (found.coverage, found.wrong, found.error) == (0.5, 0.25, 0.5)  # 0.9 is right, 0.8 is wrong
    worth = calibrated_on(logits, labels, 2.0, images=7)
    assert worth.loss_before == pytest.approx(-np.log([0.9, 0.4, 0.2, 0.55]).mean(), rel=1e-6)
    roots = np.sqrt([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]])
    halved = roots / roots.sum(axis=1, keepdims=True)
    assert worth.loss_after == pytest.approx(-np.log(halved[np.arange(4), labels]).mean(), rel=1e-6)
    assert worth.images == found.images == 7


def test_a_threshold_that_accepts_nothing_is_a_warning_and_no_division_by_zero(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logits, labels = drawn(1.0)
    with caplog.at_level(logging.WARNING):
        found = abstention_on(logits, labels, Serving(threshold=1.000001), asked=0.01, images=99)
    assert (found.coverage, found.error, found.wrong) == (0, 0, 0)
    assert "no test image is accepted" in caplog.text
