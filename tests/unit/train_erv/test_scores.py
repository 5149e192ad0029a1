"""Calibration, thresholds and scores of a multi-label classifier, by hand and on drawn data."""

import json

import numpy as np
import pytest

from erv.train_erv.scores import calibration_error, classification_report, confusion
from erv.verifier.calibration import Calibration, Curve, choose_thresholds, fit_calibration


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


@pytest.fixture(scope="module")
def sample():
    """Logits of three labels, and targets drawn with exactly these probabilities."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, size=(4000, 3))
    return logits, (rng.random(logits.shape) < sigmoid(logits)).astype(np.float32)


def test_temperature_recovers_a_known_one(sample):
    logits, targets = sample
    fitted = fit_calibration("temperature", logits * 3, targets)
    assert fitted.temperature == pytest.approx(3.0, rel=0.1)
    overconfident = calibration_error(sigmoid(3 * logits), targets)
    assert calibration_error(fitted.probabilities(3 * logits), targets) < 0.02 < overconfident


def test_isotonic_corrects_what_no_temperature_can(sample):
    logits, targets = sample
    bent = np.sign(logits) * logits**2 + 2  # right order, wrong and shifted
    hot = fit_calibration("temperature", bent, targets).probabilities(bent)
    curved = fit_calibration("isotonic", bent, targets).probabilities(bent)
    assert calibration_error(curved, targets) < 0.02 < calibration_error(hot, targets)
    order = np.argsort(bent[:, 0])
    assert (np.diff(curved[order, 0]) >= 0).all()


@pytest.mark.parametrize("method", ["none", "temperature", "isotonic"])
def test_a_calibration_survives_json(sample, method):
    logits, targets = sample
    fitted = fit_calibration(method, logits[:200], targets[:200])
    again = Calibration.from_dict(json.loads(json.dumps(fitted.as_dict())))
    assert again == fitted
    assert again.probabilities(logits).dtype == np.float32


def test_labels_that_nobody_has_or_all_have():
    logits = np.array([[0.0, 1.0], [1.0, 2.0]])
    targets = np.array([[0.0, 1.0], [0.0, 1.0]])
    fitted = fit_calibration("isotonic", logits, targets)
    assert fitted.curves == (None, None)
    np.testing.assert_allclose(fitted.probabilities(logits), sigmoid(logits), rtol=1e-6)
    assert fit_calibration("temperature", logits, np.zeros((2, 2))).temperature == 1.0
    worse_than_chance = fit_calibration("temperature", np.array([[5.0], [-5.0]]), np.array([[0.0], [1.0]]))
    assert worse_than_chance.temperature == 20.0


def test_a_curve_is_constant_outside_its_knots():
    calibration = Calibration("isotonic", curves=(Curve((-1.0, 1.0), (0.2, 0.6)),))
    found = calibration.probabilities(np.array([[-9.0], [0.0], [9.0]]))
    np.testing.assert_allclose(found, [[0.2], [0.4], [0.6]], rtol=1e-6)


@pytest.mark.parametrize(
    "content", [{}, {"method": "magic"}, {"method": "temperature"}, {"method": "isotonic"}]
)
def test_what_is_no_calibration(content):
    with pytest.raises((KeyError, ValueError)):
        Calibration.from_dict(content)


def test_thresholds_lie_in_gaps_and_default_to_a_half():
    probabilities = np.array([[0.1, 0.2], [0.2, 0.3], [0.8, 0.1], [0.9, 0.4]] * 20)
    targets = np.array([[0, 0], [1, 0], [1, 0], [1, 0]] * 20)
    low, absent = choose_thresholds(probabilities, targets)
    assert low == pytest.approx(0.15)
    assert absent == 0.5


def test_a_single_sentence_does_not_move_a_threshold():
    """Nineteen of twenty are sure; the twentieth alone would put the threshold to 0.1."""
    probabilities = np.array([[0.97]] * 19 + [[0.15]] + [[0.05]] * 80 + [[0.8]])
    targets = np.array([[1]] * 20 + [[0]] * 81)
    assert choose_thresholds(probabilities, targets) == [0.5]
    many = np.array([[0.97]] * 10 + [[0.15]] * 10 + [[0.05]] * 81)
    assert choose_thresholds(many, targets) == [pytest.approx(0.1)]  # half of them do


@pytest.mark.parametrize("seed", range(5))
def test_a_label_that_was_not_learned_keeps_a_half(seed):
    """Its best F1 is where every sentence has it, and a reward would hear it in all of them."""
    rng = np.random.default_rng(seed)
    probabilities = rng.uniform(0.01, 0.2, size=(300, 4))
    targets = (rng.random((300, 4)) < 0.06).astype(float)
    assert choose_thresholds(probabilities, targets) == [0.5] * 4


def test_report_by_hand():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.9, 0.9, 0.0], [0.1, 0.9, 0.0]], dtype=np.float32)
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=np.float32)
    report = classification_report(probabilities, targets, np.array([0.5, 0.5, 0.5]), ["a", "b", "c"])
    a, b, c = (report["per_label"][name] for name in "abc")
    assert (a["precision"], a["recall"], a["f1"], a["support"]) == (0.5, 0.5, 0.5, 2)
    assert b["f1"] == b["average_precision"] == 1.0
    assert c["curve"] is None
    assert report["without_support"] == ["c"]
    assert report["macro_f1"] == 0.75
    assert report["micro_f1"] == 0.75
    assert report["exact_match"] == pytest.approx(1 / 3, abs=1e-6)
    # Nine decisions: 0.9 four times (three true), 0.1 twice (one true), 0.0 three times (none true).
    assert report["calibration_error"] == pytest.approx((4 * 0.15 + 2 * 0.4) / 9, abs=1e-6)
    assert sum(row["decisions"] for row in report["reliability"]) == 9
    assert b["curve"]["recall"][-1] == 1.0
    assert len(b["curve"]["recall"]) == len(b["curve"]["precision"])
    json.dumps(report, allow_nan=False)


def test_confusion_counts_every_true_label():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert confusion(probabilities, np.array([[True, True], [False, True]])) == [[1, 0], [1, 1]]
