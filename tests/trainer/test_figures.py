import numpy as np
import pytest

from trainer.metrics import (
    expected_calibration_error,
    figures,
    fit_temperature,
    nll,
    reliability,
    softmax,
    wilson,
)


def one_hot(guesses: list[int], confidence: float = 1.0) -> np.ndarray:
    table = np.full((len(guesses), 7), (1 - confidence) / 6)
    table[np.arange(len(guesses)), guesses] = confidence
    return table


@pytest.mark.parametrize(
    ("successes", "trials", "interval"),
    [(81, 263, (0.2553, 0.3662)), (0, 20, (0.0, 0.1611)), (20, 20, (0.8389, 1.0)), (0, 0, (0.0, 1.0))],
)
def test_wilson_intervals_as_published(successes: int, trials: int, interval: tuple[float, float]) -> None:
    """The first two are examples of R. Newcombe, "Two-sided confidence intervals", 1998."""
    assert wilson(successes, trials) == pytest.approx(interval, abs=1e-4)


def test_figures_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 3, 3])
    result = figures(one_hot([0, 0, 3, 1, 3, 0]), labels)
    assert result.accuracy == pytest.approx(4 / 6)
    assert result.confusion[0][:4] == [2, 0, 0, 1]
    assert result.confusion[3][:4] == [1, 0, 0, 1]
    assert result.recall["angry"] == pytest.approx(2 / 3)
    assert result.recall["happy"] == 0.5
    assert result.recall["surprise"] is None  # there was none to be found
    assert result.macro_f1 == pytest.approx(np.mean([2 / 3, 1, 0.5]))


def test_nll_and_calibration_by_hand() -> None:
    guesses, labels = one_hot([0, 1, 2, 3], 0.8), np.array([0, 1, 2, 4])
    assert nll(guesses, labels) == pytest.approx(-(3 * np.log(0.8) + np.log(0.2 / 6)) / 4)
    assert expected_calibration_error(guesses, labels) == pytest.approx(0.05)


def test_the_temperature_that_spoiled_the_logits_is_found_again() -> None:
    random = np.random.default_rng(0)
    honest = random.normal(0, 1.5, (4000, 7))
    labels = np.array([random.choice(7, p=row) for row in softmax(honest)])
    for spoiled in (0.5, 1.0, 3.0):
        assert fit_temperature(honest * spoiled, labels) == pytest.approx(spoiled, rel=0.1)


def test_a_few_faces_that_are_all_read_rightly_do_not_say_that_a_network_is_always_sure() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(25) % 7
    logits = random.normal(0, 0.3, (25, 7))
    logits[np.arange(25), labels] += 2.5
    assert 0.5 < fit_temperature(logits, labels) < 0.9
    assert 0.9 < fit_temperature(logits[:1], labels[:1]) < 1


def test_confidences_fall_into_fifteen_bins() -> None:
    def error(first: float, second: float) -> float:
        table = np.array([[first, 1 - first, 0, 0, 0, 0, 0], [second, 1 - second, 0, 0, 0, 0, 0]])
        return expected_calibration_error(table, np.array([0, 1]))

    assert error(0.61, 0.66) == pytest.approx(abs(1.27 - 1) / 2)  # in one bin they hide each other's error
    assert error(0.65, 0.68) == pytest.approx((0.35 + 0.68) / 2)
    confidence, accuracy, share = reliability(np.eye(7)[[0, 0]], np.array([0, 1]))
    assert (len(share), confidence[-1], accuracy[-1], share[-1]) == (15, 1, 0.5, 1)


def test_a_recalls_interval_is_of_the_faces_that_there_are() -> None:
    found = figures(np.eye(7)[[0, 1, 1, 1]], np.array([0, 0, 0, 1]))
    assert found.recall_interval["angry"] == wilson(1, 3)
    assert found.recall_interval["disgust"] == wilson(1, 1)
    assert found.recall_interval["fear"] == (0, 1)
