"""What goes into a step of training: how pictures, targets and votes are mixed, and what is made of them."""

from __future__ import annotations

import pytest
import torch

from tests.trainer.runs import PLAIN, arrays, recipe
from trainer.augment import resize
from trainer.dataset import FaceSet
from trainer.loop import Arrays, Run


def plain_greys(faces: FaceSet, **changes: object) -> Run:
    """A run over pictures of one grey each, 30 times their class, whose votes are their class."""
    training, public = arrays(faces)
    greys = (30 * training.labels).to(torch.uint8)[:, None, None].expand(-1, 48, 48)
    votes = torch.nn.functional.one_hot(training.labels, 10).float()
    wanted = recipe(**PLAIN | {"mixup": 0.4, "batch": 42, "epochs": 4, "ferplus": 1.0} | changes)
    return Run(wanted, Arrays(greys, training.labels, votes), public, {})


def test_mixup_mixes_pictures_targets_and_votes_alike_and_the_own_picture_most(faces: FaceSet) -> None:
    shares = []
    for x, targets, votes, labels in plain_greys(faces)._batches():
        assert votes is not None
        torch.testing.assert_close(x.mean(dim=(1, 2, 3)), targets @ (30.0 * torch.arange(7)), rtol=0, atol=0.05)
        torch.testing.assert_close(votes[:, :7], targets)
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(len(labels)))
        assert float(targets.gather(1, labels[:, None]).min()) >= 0.5
        shares.append(float(targets.amax(dim=1).min()))
    assert min(shares) < 0.95  # something was mixed
    assert len(set(shares)) > 3  # and by another share in each batch


def test_no_epoch_is_like_the_one_before(faces: FaceSet) -> None:
    run = plain_greys(faces)

    def epoch(number: int) -> tuple[list[int], list[float]]:
        run.epoch = number
        batches = list(run._batches())
        order = [int(label) for *_, labels in batches for label in labels]
        return order, [round(float(targets.amax(dim=1).min()), 4) for _, targets, _, _ in batches]

    (order, shares), again, (other_order, other_shares) = (epoch(number) for number in (0, 0, 1))
    assert again == (order, shares)
    assert other_order != order
    assert other_shares != shares


@pytest.mark.parametrize(("weight", "smoothing"), [(0.5, 0.0), (2.0, 0.3)])
def test_the_loss_of_votes_and_smoothing_by_hand(faces: FaceSet, weight: float, smoothing: float) -> None:
    run = plain_greys(faces, ferplus=weight, label_smoothing=smoothing)
    x = resize(run.training.images[:14], 48)
    targets = torch.nn.functional.one_hot(run.training.labels[:14], 7).float()
    votes = torch.rand(14, 10)
    with torch.no_grad():
        loss, logits = run._loss(x, targets, votes)
        vote_logits = run.trainee(x)[1]
    assert vote_logits is not None
    wanted = (1 - smoothing) * targets + smoothing / 7
    cross_entropy = -(wanted * logits.log_softmax(dim=1)).sum(dim=1).mean()
    auxiliary = -(votes * vote_logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(loss, cross_entropy + weight * auxiliary)


@pytest.mark.parametrize(("epochs", "sizes"), [(4, [32, 32, 48, 48]), (3, [32, 32, 48]), (1, [32])])
def test_sizes_by_epoch(epochs: int, sizes: list[int]) -> None:
    wanted = recipe(epochs=epochs, sizes=[[0.5, 32], [1.0, 48]])
    assert [wanted.size_at(epoch) for epoch in range(epochs)] == sizes
