import pytest
import torch

from trainer.augment import augment, resize
from trainer.recipe import Augment

NOTHING = Augment(flip=0)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (64, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def run(images: torch.Tensor, recipe: Augment, size: int = 48, seed: int = 0) -> torch.Tensor:
    return augment(images, recipe, size, torch.Generator().manual_seed(seed))


def test_with_everything_off_the_picture_stays(images: torch.Tensor) -> None:
    torch.testing.assert_close(run(images, NOTHING), images.unsqueeze(1).float(), rtol=0, atol=0.05)


def test_flip(images: torch.Tensor) -> None:
    flipped = run(images, Augment(flip=1))
    torch.testing.assert_close(flipped, images.unsqueeze(1).float().flip(-1), rtol=0, atol=0.05)


def test_a_flip_probability_flips_some(images: torch.Tensor) -> None:
    same = (run(images, Augment(flip=0.5)) - images.unsqueeze(1)).abs().amax(dim=(1, 2, 3)) < 0.05
    assert 10 < int(same.sum()) < 54


def test_crop_padding_shifts_by_whole_pixels_into_zeros(images: torch.Tensor) -> None:
    shifted = run(images, Augment(flip=0, crop_padding=4, fill="zeros")).squeeze(1)
    padded = torch.nn.functional.pad(images.float(), (4, 4, 4, 4))
    offsets = set()
    for before, after in zip(padded, shifted, strict=True):
        fits = [
            (row, column)
            for row in range(9)
            for column in range(9)
            if (before[row : row + 48, column : column + 48] - after).abs().max() < 0.1
        ]
        assert len(fits) == 1
        offsets.add(fits[0])
    assert {row for row, _ in offsets} == {column for _, column in offsets} == set(range(9))


@pytest.mark.parametrize(
    "recipe",
    [Augment(flip=0, rotate=15), Augment(flip=0, scale=(0.8, 1.2)), Augment(flip=0, translate=0.12)],
    ids=["rotate", "scale", "translate"],
)
def test_geometry_moves_each_picture_differently_and_not_too_far(recipe: Augment) -> None:
    spot = torch.zeros(64, 48, 48, dtype=torch.uint8)
    spot[:, 6:14, 32:40] = 255
    moved = run(spot, recipe).squeeze(1)
    centre = (moved.sum(dim=1) * torch.arange(48.0)).sum(dim=1) / moved.sum(dim=(1, 2))
    assert centre.std() > 0.5
    assert (centre - 35.5).abs().max() < 8


def test_rotation_keeps_the_shape_of_things() -> None:
    """A disc in the middle stays a disc: no shear, no stretch, also when mirrored."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    disc = (((y - 23.5) ** 2 + (x - 23.5) ** 2) < 150).to(torch.uint8).mul(255).expand(64, 48, 48)
    turned = run(disc, Augment(flip=0.5, rotate=45)).squeeze(1)
    assert (turned - disc.float()).abs().mean() < 5


def test_light_changes_stay_in_range(images: torch.Tensor) -> None:
    lit = run(images, Augment(flip=0, contrast=0.5, brightness=0.3))
    assert lit.min() >= 0
    assert lit.max() <= 255
    assert lit.mean(dim=(1, 2, 3)).std() > 5


def test_erasing_fills_one_rectangle(images: torch.Tensor) -> None:
    erased = run(images, Augment(flip=0, erase=1, erase_area=(0.1, 0.1))).squeeze(1)
    for before, after in zip(images.float(), erased, strict=True):
        changed = (before - after).abs() > 0.1
        rows, columns = torch.where(changed)
        box = after[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.unique().numel() == 1
        assert 0.05 < box.numel() / 48**2 < 0.15


def test_size(images: torch.Tensor) -> None:
    torch.testing.assert_close(run(images, NOTHING, size=32), resize(images, 32), rtol=0, atol=0.5)


def test_the_generator_decides_everything(images: torch.Tensor) -> None:
    recipe = Augment(rotate=15, scale=(0.8, 1.2), erase=0.5, contrast=0.2)
    assert torch.equal(run(images, recipe), run(images, recipe))
    assert not torch.equal(run(images, recipe), run(images, recipe, seed=1))


def test_scale_is_a_factor_of_what_is_seen() -> None:
    spot = torch.zeros(64, 48, 48, dtype=torch.uint8)
    spot[:, 20:28, 20:28] = 255
    for factor in (0.5, 1.5):
        seen = run(spot, Augment(flip=0, scale=(factor, factor)))
        assert seen.mean() / spot.float().mean() == pytest.approx(factor**2, rel=0.05)


@pytest.mark.parametrize("brightness", [0.1, 0.3])
def test_brightness_is_added_as_a_share_of_255(brightness: float) -> None:
    grey = torch.full((64, 48, 48), 128, dtype=torch.uint8)
    added = (run(grey, Augment(flip=0, brightness=brightness)) - 128).mean(dim=(1, 2, 3)) / 255
    assert (added.amin(), added.amax()) == (pytest.approx(-brightness, rel=0.1), pytest.approx(brightness, rel=0.1))


def test_contrast_is_a_factor_around_the_mean(images: torch.Tensor) -> None:
    faint = (100 + images // 8).to(torch.uint8)
    before, after = faint.float(), run(faint, Augment(flip=0, contrast=0.5)).squeeze(1)
    torch.testing.assert_close(after.mean(dim=(1, 2)), before.mean(dim=(1, 2)), rtol=0, atol=0.05)
    factor = after.std(dim=(1, 2)) / before.std(dim=(1, 2))
    assert (factor.amin(), factor.amax()) == (pytest.approx(0.5, abs=0.05), pytest.approx(1.5, abs=0.05))


def test_an_erase_probability_erases_some(images: torch.Tensor) -> None:
    same = (run(images, Augment(flip=0, erase=0.5)) - images.unsqueeze(1)).abs().amax(dim=(1, 2, 3)) < 0.05
    assert 10 < int(same.sum()) < 54
