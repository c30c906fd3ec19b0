"""The mosaic: layout, fitting, and what becomes of a camera that is not there."""

from __future__ import annotations

import numpy as np
import pytest

from nodes.mosaic import DIMMED, Mosaic, cell_size, fit, grid


def plain(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize(
    ("count", "rows", "columns"),
    [
        (0, 1, 1),
        (1, 1, 1),
        (2, 1, 2),
        (3, 2, 2),
        (4, 2, 2),
        (5, 2, 3),
        (6, 2, 3),
        (7, 3, 3),
        (9, 3, 3),
        (10, 3, 4),
        (13, 4, 4),
    ],
)
def test_the_grid_is_near_a_square_without_empty_rows(count: int, rows: int, columns: int) -> None:
    assert grid(count) == (rows, columns)


def test_every_grid_has_room_and_no_row_to_spare() -> None:
    for count in range(1, 200):
        rows, columns = grid(count)
        assert rows * columns >= count > (rows - 1) * columns
        assert 0 <= columns - rows <= 1


@pytest.mark.parametrize(
    ("shapes", "count", "cell"),
    [
        ([(480, 640, 3)], 1, (480, 640)),
        ([(480, 640, 3)], 2, (480, 640)),
        ([(120, 160, 3), (480, 640, 3)], 2, (480, 640)),  # the largest counts
        ([(481, 641, 3)], 1, (480, 640)),  # even, for video codecs
        ([(1080, 1920, 3)], 4, (540, 960)),  # all of it within 1920 x 1080
        ([(1080, 1920, 3)], 2, (540, 960)),
        ([(2160, 3840, 3)], 1, (1080, 1920)),
        ([(1, 1, 3)], 1, (2, 2)),
    ],
)
def test_the_cell_is_as_large_as_the_largest_frame_if_the_picture_allows(shapes, count, cell) -> None:
    assert cell_size(shapes, count) == cell


@pytest.mark.parametrize(
    ("frame", "cell", "inside"),
    [
        ((50, 100), (100, 100), np.s_[25:75, :]),
        ((100, 50), (100, 100), np.s_[:, 25:75]),
        ((300, 300), (100, 200), np.s_[:, 50:150]),
        ((100, 100), (100, 100), np.s_[:, :]),
        ((10, 20), (100, 200), np.s_[:, :]),
    ],
)
def test_a_frame_is_fitted_with_its_own_proportions(frame, cell, inside) -> None:
    picture = plain(*cell, 77)
    fit(plain(*frame, 200), picture)
    expected = np.zeros_like(picture)
    expected[inside] = 200
    assert np.array_equal(picture, expected)


def test_each_camera_has_its_own_cell() -> None:
    mosaic = Mosaic(["a", "b", "c"], (100, 200))
    before = mosaic.canvas.copy()
    mosaic.show("b", plain(100, 200, 150))
    assert mosaic.canvas.shape == (200, 400, 3)
    assert (mosaic.canvas[:100, 200:] == 150).all()
    before[:100, 200:] = 150
    assert np.array_equal(mosaic.canvas, before)
    mosaic.show("c", plain(100, 200, 70))
    assert (mosaic.canvas[100:, 100:300] == 70).all(), "a short last row is centred"
    assert (mosaic.canvas[100:, :100] == 0).all()
    assert (mosaic.canvas[100:, 300:] == 0).all()


def test_a_camera_has_its_name_there_before_its_first_frame() -> None:
    mosaic = Mosaic(["a", "b"], (100, 200))
    assert mosaic.canvas[:, :200].max() == 255
    assert not np.array_equal(mosaic.canvas[:, :200], mosaic.canvas[:, 200:]), "the names differ"


def test_a_camera_that_is_gone_shows_its_last_frame_dimmed_with_its_name() -> None:
    mosaic = Mosaic(["a", "b"], (100, 200))
    for stream in "ab":
        mosaic.show(stream, plain(100, 200, 200))
    mosaic.mute("a", "down")
    gone, there = mosaic.canvas[:, :200], mosaic.canvas[:, 200:]
    assert (there == 200).all()
    assert np.median(gone) == 200 * DIMMED
    assert gone[20:80].max() == 255, "the name is written across the middle"
    assert (gone[:20] == 200 * DIMMED).all()

    down = gone.copy()
    mosaic.mute("a", "down")
    assert np.array_equal(gone, down), "told twice, it gets no darker"
    mosaic.mute("a", "ended")
    assert np.median(gone) == 200 * DIMMED
    assert not np.array_equal(gone, down), "the new reason is written in place of the old"

    mosaic.show("a", plain(100, 200, 100))
    assert (gone == 100).all()
    mosaic.mute("a", "down")
    assert np.median(gone) == 100 * DIMMED, "the newest frame is what is dimmed"


def test_another_size_shows_the_same() -> None:
    mosaic = Mosaic(["a", "b", "c"], (100, 200))
    mosaic.show("a", plain(100, 200, 50))
    mosaic.show("b", plain(100, 200, 200))
    mosaic.mute("b", "ended")
    mosaic.resize((200, 400))
    fresh = Mosaic(["a", "b", "c"], (200, 400))
    fresh.show("a", plain(200, 400, 50))
    fresh.show("b", plain(200, 400, 200))
    fresh.mute("b", "ended")
    assert np.array_equal(mosaic.canvas[:200], fresh.canvas[:200])
    mosaic.show("c", plain(200, 400, 120))
    assert (mosaic.canvas[200:, 200:600] == 120).all()


def test_names_too_long_for_their_cell_stay_inside() -> None:
    mosaic = Mosaic(["a-very-long-camera-name-that-cannot-fit", "b"], (40, 60))
    mosaic.show("b", plain(40, 60, 10))
    mosaic.mute("a-very-long-camera-name-that-cannot-fit", "a long reason as well, connection refused")
    assert (mosaic.canvas[:, 60:] == 10).all()
