import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.compilers import nop

from nodes.emotion.model import ResNet9
from pipeline.errors import UserError
from tests.trainer.runs import PLAIN, arrays, recipe
from trainer import loop
from trainer.augment import resize
from trainer.checkpoint import Checkpoint, load_checkpoint, write_whole
from trainer.dataset import FaceSet
from trainer.loop import Arrays, Progress, Run
from trainer.prepare import pick_device, prepare
from trainer.recipe import Recipe
from trainer.schedule import one_cycle


def new_run(faces: FaceSet, wanted: Recipe, teachers: list[ResNet9] | None = None) -> Run:
    return Run(wanted, *arrays(faces), inputs={"data": "x"}, teachers=teachers)


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


def test_the_average_is_the_running_mean_of_the_steps(faces: FaceSet) -> None:
    run = new_run(faces, recipe(epochs=1, ema=0.7))
    by_hand = run.trainee.net.classifier.weight.detach().clone()
    steps = 0

    def follow(optimizer: torch.optim.Optimizer, *_: object) -> None:
        nonlocal steps
        share = 1 - min(0.7, (1 + steps) / (10 + steps))
        by_hand.lerp_(run.trainee.net.classifier.weight.detach(), share)
        steps += 1

    run.optimizer.register_step_post_hook(follow)
    run.train(None)
    assert steps == run.steps_per_epoch > 5
    torch.testing.assert_close(run.average.classifier.weight, by_hand)
    assert not torch.allclose(run.average.classifier.weight, run.trainee.net.classifier.weight, rtol=1e-3)


def weights_after_an_epoch(faces: FaceSet, **changes: object) -> torch.Tensor:
    """Of one step, if nothing is changed; that is quick, and is the same twice."""
    run = new_run(faces, recipe(**PLAIN | changes))
    run.train(None)
    return torch.cat([parameter.detach().ravel() for parameter in run.trainee.net.parameters()])


@pytest.mark.parametrize(
    "setting",
    [
        {"mixup": 0.4},
        {"label_smoothing": 0.2},
        {"augment": {"flip": 1}},
        {"augment": {"flip": 0, "rotate": 20}},
        {"optimizer": "adam", "weight_decay": 0.5},
        {"optimizer": "adamw", "weight_decay": 0.5},
        {"optimizer": "sgd", "weight_decay": 0.5},
    ],
    ids=lambda setting: " ".join(setting),
)
def test_what_a_recipe_sets_changes_a_step(faces: FaceSet, setting: dict) -> None:
    off = {key: value for key, value in setting.items() if key == "optimizer"}
    before, again, after = (weights_after_an_epoch(faces, **changes) for changes in (off, off, setting))
    assert torch.equal(before, again)
    assert not torch.allclose(before, after, rtol=1e-3, atol=1e-5)


def test_every_step_has_its_place_on_the_schedule(faces: FaceSet) -> None:
    run = new_run(faces, recipe(epochs=2, lr=0.02, warmup=0.5))
    seen: list[tuple[float, float]] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["betas"][0]))

    run.optimizer.register_step_pre_hook(look)
    run.train(None)
    steps = 2 * run.steps_per_epoch
    assert seen == [one_cycle(step, steps, 0.02, 0.5) for step in range(steps)]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_of_distillation_by_hand(faces: FaceSet, temperature: float) -> None:
    """Hinton et al. 2015: times the temperature squared, so that its gradients keep their size."""
    distill = {"teachers": ["t", "t"], "share": 0.7, "temperature": temperature}
    torch.manual_seed(1)
    teachers = [ResNet9(width=4).eval() for _ in range(2)]
    run = new_run(faces, recipe(distill=distill), teachers)
    x = resize(run.training.images[:14], 48)
    targets = torch.nn.functional.one_hot(run.training.labels[:14], 7).float()
    with torch.no_grad():
        loss, logits = run._loss(x, targets, None)
        wanted = sum((teacher(x) / temperature).softmax(dim=1) for teacher in teachers) / 2
    kl = (wanted * (wanted.log() - (logits / temperature).log_softmax(dim=1))).sum(dim=1).mean()
    cross_entropy = -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(loss, 0.3 * cross_entropy + 0.7 * temperature**2 * kl)


def test_clipping_bounds_each_element_of_the_gradients(faces: FaceSet) -> None:
    run = new_run(faces, recipe(**PLAIN | {"clip_value": 0.01}))
    largest: list[float] = []
    run.optimizer.register_step_pre_hook(
        lambda *_: largest.append(
            max(float(p.grad.abs().max()) for p in run.trainee.parameters() if p.grad is not None)
        )
    )
    run.train(None)
    assert largest == [pytest.approx(0.01)]


@pytest.mark.parametrize("name", ["recompile_limit", "cache_size_limit"])
def test_dynamos_limit_is_set_under_either_name(name: str) -> None:
    config = SimpleNamespace(**{name: 8})
    loop._allow_many_shapes(config)
    assert vars(config) == {name: 64}


def no_assembler(*_: object) -> None:
    raise RuntimeError("no ptxas here")


def in_the_network(run: Run) -> None:
    run._compile(backend=no_assembler)


def in_the_teachers(run: Run) -> None:
    run._compile(backend="eager")
    run._ask_teachers = torch.compile(run.teachers, dynamic=False, backend=no_assembler)  # pyright: ignore[reportArgumentType]


def in_the_way_back(run: Run) -> None:
    run._compile(backend=aot_autograd(fw_compiler=nop, bw_compiler=no_assembler))


@pytest.mark.parametrize("break_it", [in_the_network, in_the_teachers, in_the_way_back])
def test_where_compiling_fails_training_goes_on_as_if_it_had_not_been_tried(
    faces: FaceSet, break_it: Callable[[Run], None]
) -> None:
    wanted, teacher = recipe(epochs=1, distill={"teachers": ["its own"]}), ResNet9(8)
    plain, run = (new_run(faces, wanted, [teacher]) for _ in range(2))
    plain.train(None)
    break_it(run)
    told: list[loop.Progress] = []
    run.train(None, told.append)
    remarks = [progress.remark for progress in told if progress.remark]
    assert len(remarks) == 1
    assert remarks[0].startswith("not compiled, for that failed: ")
    assert "no ptxas here" in remarks[0]
    assert same(plain, run)


def test_the_seed_decides(faces: FaceSet) -> None:
    runs = [new_run(faces, recipe(epochs=1, seed=seed)) for seed in (0, 0, 1)]
    for run in runs:
        run.train(None)
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.mark.parametrize(
    ("changes", "inputs", "message"),
    [
        ({"lr": 0.02}, {"data": "x"}, r"another recipe \(lr differ\)"),
        ({}, {"data": "y"}, "with other data: give another --out"),
        ({}, {"data": "x", "votes": "y"}, "with other votes"),
        ({}, {"data": "x", "teachers": "y"}, "with other teachers"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    faces: FaceSet, tmp_path: Path, changes: dict, inputs: dict, message: str
) -> None:
    path = tmp_path / "c.safetensors"
    new_run(faces, recipe()).save(path)
    with pytest.raises(UserError, match=message):
        Run(recipe(**changes), *arrays(faces), inputs=inputs).resume(path)


def test_a_checkpoint_that_says_whether_its_code_was_compiled_is_gone_on_with(faces: FaceSet, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    run = new_run(faces, recipe())
    old = Checkpoint(2, {**recipe().essence(), "compile": True}, run.inputs, [], {})
    old.check_recipe(recipe().essence(), path)
    with pytest.raises(UserError, match=r"another recipe \(lr differ\)"):
        old.check_recipe(recipe(lr=0.02).essence(), path)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None], ids=["empty", "foreign", "cut"])
def test_a_broken_checkpoint_is_one_line(faces: FaceSet, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "c.safetensors"
    new_run(faces, recipe()).save(path)
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("was", "now"),
    [(b'"epoch"', b'"epock"'), (b'\\"data\\"', b'\\"data  '), (b'"[]"', b'"{}"'), (b'"epoch":"0"', b'"epoch":"x"')],
    ids=["a key", "a quote", "another type", "a number"],
)
def test_a_checkpoint_whose_header_is_damaged_is_one_line(
    faces: FaceSet, tmp_path: Path, was: bytes, now: bytes
) -> None:
    path = tmp_path / "c.safetensors"
    new_run(faces, recipe()).save(path)
    content = path.read_bytes()
    assert was in content
    path.write_bytes(content.replace(was, now))
    with pytest.raises(UserError, match="its header is damaged"):
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


def test_too_little_memory_is_one_line_and_keeps_the_checkpoint(faces: FaceSet, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"

    def want_too_much(progress: Progress) -> None:
        if progress.epoch == 1:
            torch.empty(1 << 60, dtype=torch.uint8)

    with pytest.raises(UserError, match=r"too little memory on cpu for batch=\d+: take a smaller one"):
        new_run(faces, recipe()).train(path, want_too_much)
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
    run = Run(recipe(ferplus=1.0, epochs=2), Arrays(training.images, training.labels, votes), public, {})
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


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu").type == "cpu"
    for wrong in ("tpu", "cuda:", "cuda:one", "cuda:-1", "cpu:1"):
        with pytest.raises(UserError, match=f"unknown device '{wrong}'"):
            pick_device(wrong)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="no device cuda:2: this machine has 2"):
        pick_device("cuda:2")


def test_bf16_trains_too(faces: FaceSet) -> None:
    run = new_run(faces, recipe(epochs=1, precision="bf16"))
    run.train(None)
    assert np.isfinite(run.history[0]["loss"])
    assert all(p.dtype == torch.float32 for p in run.average.parameters())
