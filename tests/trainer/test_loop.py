import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from nodes.emotion.model import ResNet9
from pipeline.errors import UserError
from trainer import loop
from trainer.checkpoint import load_checkpoint, write_whole
from trainer.dataset import PUBLIC, TRAINING, FaceSet
from trainer.loop import Arrays, Progress, Run
from trainer.prepare import pick_device, prepare
from trainer.recipe import Recipe

BASE = {
    "width": 4,
    "epochs": 3,
    "batch": 32,
    "lr": 0.01,
    "ema": 0.8,
    "mixup": 0.2,
    "precision": "fp32",
    "augment": {"rotate": 10, "erase": 0.3},
    "sizes": [[0.5, 32], [1.0, 48]],
}


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate(BASE | changes)


def arrays(faces: FaceSet) -> tuple[Arrays, Arrays]:
    training, public = faces.split(TRAINING), faces.split(PUBLIC)
    return tuple(Arrays(torch.from_numpy(f.images), torch.from_numpy(f.labels)) for f in (training, public))  # type: ignore[return-value]


def new_run(faces: FaceSet, wanted: Recipe, teachers: list[ResNet9] | None = None) -> Run:
    return Run(wanted, *arrays(faces), data_hash="x", teachers=teachers)


def same(one: Run, other: Run) -> bool:
    pairs = zip(one.average.state_dict().values(), other.average.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Stopped(Exception):
    pass


def stop_after(epochs: int):
    def tell(progress: Progress) -> None:
        if progress.epoch == epochs and progress.step > 1:
            raise Stopped

    return tell


@pytest.fixture(autouse=True)
def save_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_SAVES", -1.0)


def test_it_learns(faces: FaceSet) -> None:
    run = new_run(faces, recipe(width=8, epochs=6, mixup=0, sizes=[[1.0, 32]], augment={"flip": 0.5}))
    run.train(None)
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert run.history[-1]["public_accuracy"] > 0.6
    assert [row["epoch"] for row in run.history] == list(range(1, 7))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_resumed_run_ends_in_the_same_bits(faces: FaceSet, tmp_path: Path, optimizer: str) -> None:
    wanted = recipe(optimizer=optimizer)
    unbroken = new_run(faces, wanted)
    unbroken.train(None)

    path = tmp_path / "c.safetensors"
    with pytest.raises(Stopped):
        new_run(faces, wanted).train(path, stop_after(1))
    resumed = new_run(faces, wanted)
    resumed.resume(path)
    assert resumed.epoch == 1
    resumed.train(path)
    assert same(resumed, unbroken)
    timeless = [[(k, v) for k, v in row.items() if "second" not in k] for row in resumed.history]
    assert timeless == [[(k, v) for k, v in row.items() if "second" not in k] for row in unbroken.history]


def test_a_run_stopped_at_the_end_of_an_epoch_keeps_it(
    faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where epochs are so short that not each of them is saved, as on a GPU."""
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_SAVES", 1e9)

    def tell(progress: Progress) -> None:
        if progress.public is not None and progress.epoch == 1:
            raise Stopped

    path, wanted = tmp_path / "c.safetensors", recipe()
    with pytest.raises(Stopped):
        new_run(faces, wanted).train(path, tell)
    resumed, unbroken = new_run(faces, wanted), new_run(faces, wanted)
    resumed.resume(path)
    assert resumed.epoch == 2
    resumed.train(path)
    unbroken.train(None)
    assert same(resumed, unbroken)


def test_the_average_follows_the_network(faces: FaceSet) -> None:
    run = new_run(faces, recipe(epochs=1, ema=0))
    run.train(None)
    assert all(
        torch.equal(mean, value)
        for mean, value in zip(run.average.state_dict().values(), run.trainee.net.state_dict().values(), strict=True)
    )


def test_the_seed_decides(faces: FaceSet) -> None:
    runs = [new_run(faces, recipe(epochs=1, seed=seed)) for seed in (0, 0, 1)]
    for run in runs:
        run.train(None)
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.mark.parametrize(
    ("changes", "data", "message"),
    [({"lr": 0.02}, "x", r"another recipe \(lr differ\)"), ({}, "y", "other data")],
)
def test_a_checkpoint_of_something_else_is_refused(
    faces: FaceSet, tmp_path: Path, changes: dict, data: str, message: str
) -> None:
    path = tmp_path / "c.safetensors"
    new_run(faces, recipe()).save(path)
    with pytest.raises(UserError, match=message):
        Run(recipe(**changes), *arrays(faces), data_hash=data).resume(path)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None], ids=["empty", "foreign", "cut"])
def test_a_broken_checkpoint_is_one_line(faces: FaceSet, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "c.safetensors"
    new_run(faces, recipe()).save(path)
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(path)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(faces: FaceSet, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    run = new_run(faces, recipe())

    def poison(progress: Progress) -> None:
        if progress.epoch == 1:
            run.trainee.net.classifier.weight.data.fill_(torch.nan)

    with pytest.raises(UserError, match=r"loss is nan in epoch 2 .* lower lr"):
        run.train(path, poison)
    assert load_checkpoint(path).epoch == 1


def test_a_full_disk_keeps_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.safetensors"
    write_whole(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device; the earlier one is still there"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_teacher_and_student_see_the_same_view(faces: FaceSet) -> None:
    class Teacher(ResNet9):
        seen: list[torch.Tensor]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen.append(x)
            return super().forward(x)

    teacher = Teacher(width=4).eval()
    teacher.seen = []
    run = new_run(faces, recipe(epochs=1, distill={"teachers": ["t"]}), [teacher])
    views: list[torch.Tensor] = []
    run.trainee.register_forward_pre_hook(lambda _, inputs: views.append(inputs[0]))
    run.train(None)
    assert len(views) == len(teacher.seen) == run.steps_per_epoch
    assert all(a is b for a, b in zip(views, teacher.seen, strict=True))


def test_a_student_of_pure_distillation_comes_to_agree_with_its_teachers(faces: FaceSet) -> None:
    torch.manual_seed(1)
    teacher = ResNet9(width=4).eval()
    images = torch.from_numpy(faces.images)
    distill = {"teachers": ["t"], "share": 1.0, "temperature": 1.0}
    run = new_run(faces, recipe(epochs=8, mixup=0, sizes=[[1.0, 48]], augment={}, distill=distill), [teacher])

    def distance() -> float:
        with torch.no_grad():
            student, master = (net(images).log_softmax(dim=1) for net in (run.average, teacher))
        return float((master.exp() * (master - student)).sum(dim=1).mean())

    before = distance()
    run.train(None)
    assert distance() < before / 2


def test_votes_train_a_second_head_that_stays_out_of_the_network(faces: FaceSet) -> None:
    training, public = arrays(faces)
    votes = torch.zeros(len(training), 10)
    votes[:, 9] = 1
    run = Run(recipe(ferplus=1.0, epochs=2), Arrays(training.images, training.labels, votes), public, "x")
    net = run.train(None)
    with torch.no_grad():
        logits = run.trainee(training.images)[1]
    assert logits is not None
    assert (logits.argmax(dim=1) == 9).float().mean() > 0.9
    assert net.state_dict().keys() == ResNet9(4).state_dict().keys()


def test_prepare_leaves_out_what_the_recipe_says(faces: FaceSet) -> None:
    images = faces.images.copy()
    images[0] = 5
    images[1] = images[250]
    damaged = FaceSet(faces.source, images, faces.labels, faces.splits, faces.rows)
    sizes = {
        kept: len(prepare(damaged, recipe(leave_out=list(kept)), None, torch.device("cpu")).training)
        for kept in ((), ("blank",), ("blank", "leaked"))
    }
    assert list(sizes.values()) == [210, 209, 208]
    assert len(prepare(damaged, recipe(), None, torch.device("cpu")).public) == 70


def test_a_recipe_with_votes_needs_their_file(faces: FaceSet) -> None:
    with pytest.raises(UserError, match="--ferplus"):
        prepare(faces, recipe(ferplus=0.5), None, torch.device("cpu"))


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="unknown device 'tpu'"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device"):
            pick_device("cuda")


def test_bf16_trains_too(faces: FaceSet) -> None:
    run = new_run(faces, recipe(epochs=1, precision="bf16"))
    run.train(None)
    assert np.isfinite(run.history[0]["loss"])
    assert all(p.dtype == torch.float32 for p in run.average.parameters())
