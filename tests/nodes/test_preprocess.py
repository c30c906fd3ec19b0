import subprocess
import sys

import numpy as np
import pytest

from nodes.preprocess import DEFAULT, LABELS, Preprocess, preprocess


def gradient(height: int = 100, width: int = 160) -> np.ndarray:
    """Each pixel holds its own column number."""
    return np.tile(np.arange(width, dtype=np.uint8), (height, 1))


def test_labels_are_fer2013s_order() -> None:
    assert LABELS == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def test_a_box_of_the_networks_size_is_taken_pixel_for_pixel() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (100, 160), np.uint8)
    cut = preprocess(frame, (30, 20, 48, 48), Preprocess(margin=0))
    assert np.array_equal(cut, frame[20:68, 30:78])


@pytest.mark.parametrize(
    ("margin", "left", "right"),
    [(0.0, 40, 88), (0.25, 28, 100), (-0.25, 52, 76)],
    ids=["none", "wider", "tighter"],
)
def test_the_margin_widens_the_box_on_each_side(margin: float, left: int, right: int) -> None:
    cut = preprocess(gradient(), (40, 20, 48, 48), Preprocess(margin=margin))
    assert cut.shape == (48, 48)
    assert abs(int(cut[24, 0]) - left) <= 1
    assert abs(int(cut[24, -1]) - (right - 1)) <= 1


def test_an_oblong_box_is_cut_as_a_square_around_its_centre() -> None:
    cut = preprocess(gradient(), (70, 10, 20, 80), Preprocess(margin=0))
    assert abs(int(cut[24, 0]) - 40) <= 1
    assert abs(int(cut[24, -1]) - 119) <= 1


@pytest.mark.parametrize("box", [(-24.0, 26.0, 48.0, 48.0), (-500.0, 26.0, 48.0, 48.0), (0.0, -400.0, 48.0, 48.0)])
def test_outside_the_frame_the_edge_is_repeated(box: tuple[float, float, float, float]) -> None:
    cut = preprocess(gradient(), box, Preprocess(margin=0))
    expected = np.clip(np.arange(48) + round(box[0]), 0, 159)
    assert np.array_equal(cut, np.tile(expected.astype(np.uint8), (48, 1)))


def test_beyond_the_far_corner() -> None:
    cut = preprocess(gradient(), (150, 90, 48, 48), Preprocess(margin=0))
    assert np.array_equal(cut[0], np.clip(np.arange(48) + 150, 0, 159))


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    stripes = np.zeros((192, 192), np.uint8)
    stripes[:, ::2] = 200
    cut = preprocess(stripes, (0, 0, 192, 192), Preprocess(margin=0))
    assert (cut == 100).all()


def test_the_cut_outlives_its_frame() -> None:
    """Frames are slots of shared memory that are filled again."""
    frame = gradient(48, 48)
    cut = preprocess(frame, (0, 0, 48, 48), Preprocess(margin=0))
    assert cut.flags["C_CONTIGUOUS"]
    frame[:] = 0
    assert cut.any()


@pytest.mark.parametrize(
    ("frame", "box", "message"),
    [
        (np.zeros((10, 10, 3), np.uint8), (0, 0, 5, 5), "grey frame"),
        (np.zeros((10, 10), np.float32), (0, 0, 5, 5), "float32"),
        (np.zeros((10, 10), np.uint8), (0, 0, 0, 5), "face box"),
        (np.zeros((10, 10), np.uint8), (float("nan"), 0, 5, 5), "nan"),
    ],
)
def test_bad_input_is_named(frame: np.ndarray, box: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preprocess(frame, box)


def test_a_tiny_box_still_gives_a_full_cut() -> None:
    assert preprocess(gradient(), (10.2, 10.7, 0.3, 0.3), DEFAULT).shape == (48, 48)


def test_the_detectors_process_needs_no_torch() -> None:
    code = "import sys, nodes.preprocess; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
