"""Where a picture has changed: what is searched again, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from nodes.motion import CELL, LEAST_REACH, ChangeMap

HEIGHT, WIDTH = 240, 320
ALL = [(0, 0, WIDTH, HEIGHT)]


def scene(noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """A picture with structure, and a camera's noise of so many grey levels."""
    rng = np.random.default_rng(7)
    coarse = np.kron(rng.integers(40, 200, (HEIGHT // 20, WIDTH // 20)), np.ones((20, 20)))
    return np.clip(coarse + np.random.default_rng(seed).normal(0, noise, coarse.shape), 0, 255).astype(np.uint8)


def with_box(picture: np.ndarray, x: int, y: int, side: int) -> np.ndarray:
    picture = picture.copy()
    picture[y : y + side, x : x + side] = 255 - picture[y : y + side, x : x + side]
    return picture


def inside(areas: list[tuple[int, int, int, int]], x: int, y: int) -> bool:
    return any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in areas)


def test_the_first_picture_is_new_everywhere_and_the_same_again_nowhere():
    changes = ChangeMap()
    assert changes.take(scene()) == ALL
    assert changes.take(scene()) == []


def test_a_cameras_noise_is_no_change():
    changes = ChangeMap()
    changes.take(scene(5, seed=1))
    assert all(changes.take(scene(5, seed=seed)) == [] for seed in range(2, 12))


@pytest.mark.parametrize(("x", "y"), [(100, 80), (0, 0), (WIDTH - 24, HEIGHT - 24)])
def test_what_comes_in_is_searched_with_its_surroundings_and_only_once(x: int, y: int):
    changes = ChangeMap()
    changes.take(scene())
    after = with_box(scene(), x, y, 24)
    [(left, top, right, bottom)] = changes.take(after)
    reach = CELL * LEAST_REACH
    assert left <= max(0, x - reach + CELL)
    assert top <= max(0, y - reach + CELL)
    assert right >= min(WIDTH, x + 24 + reach - CELL)
    assert bottom >= min(HEIGHT, y + 24 + reach - CELL)
    assert (right - left) * (bottom - top) < WIDTH * HEIGHT / 4
    assert changes.take(after) == []


def test_an_area_holds_the_smallest_face_that_can_be_found():
    changes = ChangeMap()
    changes.take(scene())
    [(left, top, right, bottom)] = changes.take(with_box(scene(), 150, 110, 16), smallest=144)
    assert min(right - left, bottom - top) >= 144


@pytest.mark.parametrize("box", [(-60, -60, 40, 40), (10, -60, 40, 40), (400, 300, 40, 40)])
def test_a_known_face_outside_of_the_picture_hides_nothing(box: tuple[int, int, int, int]):
    changes = ChangeMap()
    changes.take(scene())
    assert inside(changes.take(with_box(scene(), 100, 80, 24), known=[box]), 110, 90)


def test_two_changes_far_apart_are_two_areas_that_do_not_overlap():
    changes = ChangeMap()
    changes.take(scene())
    areas = changes.take(with_box(with_box(scene(), 20, 20, 30), 250, 190, 30))
    assert len(areas) == 2
    assert inside(areas, 35, 35)
    assert inside(areas, 265, 205)
    assert not inside(areas, 160, 120)


def test_a_known_face_may_move_within_its_box():
    changes = ChangeMap()
    changes.take(scene())
    assert changes.take(with_box(scene(), 100, 80, 24), known=[(92, 72, 48, 48)]) == []
    # When it is known no longer, it is news.
    assert inside(changes.take(with_box(scene(), 100, 80, 24)), 110, 90)


def test_what_changes_little_by_little_is_seen_in_the_end():
    changes = ChangeMap()
    picture = scene().astype(int)
    changes.take(picture.astype(np.uint8))
    lighter = [np.clip(picture + 2 * step, 0, 255).astype(np.uint8) for step in range(1, 8)]
    found = [bool(changes.take(frame)) for frame in lighter]
    assert not found[0]
    assert any(found)


def test_much_change_or_another_size_is_all_of_it():
    changes = ChangeMap()
    changes.take(scene())
    assert changes.take(255 - scene()) == ALL
    assert changes.take(scene()[:120, :160]) == [(0, 0, 160, 120)]
    assert changes.take(scene()[:120, :160], all_of_it=True) == [(0, 0, 160, 120)]


def test_a_picture_that_is_no_multiple_of_a_cell():
    changes = ChangeMap()
    odd = scene()[:101, :203]
    assert changes.take(odd) == [(0, 0, 203, 101)]
    [(_, _, right, bottom)] = changes.take(with_box(odd, 180, 80, 21))
    assert (right, bottom) == (203, 101)


def test_a_slow_change_is_one_though_there_are_quick_ones_elsewhere():
    changes, picture, found = ChangeMap(), scene(), []
    changes.take(picture)
    for step in range(1, 4):
        now = picture.astype(int)
        now[200:232, 280:312] += 3 * step  # below the threshold from one to the next
        now[16:48, 16:48] = 255 * (step % 2)
        areas = changes.take(np.clip(now, 0, 255).astype(np.uint8))
        assert inside(areas, 30, 30)
        found.append(inside(areas, 295, 215))
    assert found == [False, False, True]
