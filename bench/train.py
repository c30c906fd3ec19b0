"""The trainer's loop against the usual one: DataLoader with workers and torchvision transforms, eager fp32.

    emograph bench train --data fer2013.csv
    emograph bench train --device cuda

The same network, batch size, optimizer and augmentation (random crop 48 with 4 px padding, flip), the article's
recipe. On a CPU only a few hundred pictures are seen: an epoch of the full network takes it many minutes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bench.children import CONTEXT, deaf_to_ctrl_c
from bench.record import ROOT, Result, Settings, middle
from nodes.emotion.model import ResNet9
from pipeline.errors import UserError
from trainer.allocator import keep_freed_memory
from trainer.loop import Arrays, Run, computes_in_bf16
from trainer.prepare import pick_device
from trainer.recipe import Recipe, load_recipe

PEER = "DataLoader and torchvision"
FP32, BF16 = "emograph fp32", "emograph bf16"
PICTURES = {"cpu": 256, "cuda": 8192}
EPOCH = 28_709
"""Pictures in FER2013's Training split."""
WIDTHS = (32, 64)
Epoch = tuple[float, str]
"""Images/s, and what the trainer remarked; empty for nothing. Code that could not be compiled is slower."""


def contestants(settings: Settings) -> list[str]:
    return [PEER, FP32, BF16]


def run(settings: Settings) -> Result:
    """The peer, which always runs, and those asked for."""
    result = Result("train")
    device = pick_device(settings.device)
    images, labels = _pictures(settings, PICTURES[device.type])
    names = [name for name in contestants(settings) if name == PEER or settings.wants(name)]
    if not computes_in_bf16(device, "auto"):
        names = [name for name in names if name != BF16]
        result.skipped.append(f"bf16: {device} does not compute in it")
    for width in WIDTHS:
        recipe = load_recipe(ROOT / "configs" / "training" / "article.yaml", [f"width={width}", "epochs=1000"])
        speeds: dict[str, list[float]] = {name: [] for name in names}
        going = {name: _Apart(*_way(name, recipe), images, labels, device) for name in names}
        try:
            for turn in range(settings.runs + 1):  # in turns, so that a slow moment of the machine hits all alike
                for name, process in going.items():
                    speed, remark = process.epoch()
                    speeds[name] += [speed] if turn else []
                    if remark:
                        result.notes.append(f"Width {width}, {name}: {remark}.")
        finally:
            for process in going.values():
                process.end()
        usual = middle(speeds[PEER])
        for name, found in speeds.items():
            speed = middle(found)
            row = {"contestant": name, "workers": _workers() if name == PEER else None}
            row |= {"images/s": speed, "epoch, minutes": EPOCH / speed / 60}
            result.add(f"Width {width}, batch {recipe.batch}, {device}", **row, times_peer=speed / usual)
    result.notes += [
        f"{len(images)} pictures, {settings.runs} times after one that does not count; an epoch is {EPOCH:,} pictures, "
        "extrapolated, without its evaluation.",
        f"A process each, {torch.get_num_threads()} threads; the usual way has more of them to prepare its pictures.",
        "Recipes say `precision: auto`: bf16 where the device computes in it, as here."
        if computes_in_bf16(device, "auto")
        else "Recipes say `precision: auto`: fp32 here.",
    ]
    return result


def _way(name: str, recipe: Recipe) -> tuple[Callable[..., Iterator[Epoch]], Recipe]:
    """What a contestant runs. Beside the recipe it takes pictures, labels and the device."""
    if name == PEER:
        return _usual, recipe
    return _ours, recipe.model_copy(update={"precision": {FP32: "fp32", BF16: "bf16"}[name]})


class _Apart:
    """A contestant in a process of its own, since what it sets there (malloc, threads) is the whole process's."""

    def __init__(self, way: Callable[..., Iterator[Epoch]], *given: Any) -> None:
        self._pipe, theirs = CONTEXT.Pipe()
        # No daemon: these may have no processes of their own, and the usual loop needs them.
        self._process = CONTEXT.Process(target=_serve, args=(theirs, way, given))
        with deaf_to_ctrl_c():
            self._process.start()
        theirs.close()

    def epoch(self) -> Epoch:
        """One epoch more. UserError if the process died."""
        try:
            self._pipe.send(True)
            return self._pipe.recv()
        except (EOFError, OSError):
            raise UserError("a process that trains for the comparison died") from None

    def end(self) -> None:
        """Not in the middle of an epoch, whose workers would stay."""
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, way: Callable[..., Iterator[Epoch]], given: tuple[Any, ...]) -> None:
    epochs = way(*given)
    try:
        while pipe.recv():
            pipe.send(next(epochs))
    except EOFError:
        return  # nobody asks any more


def _ours(recipe: Recipe, images: np.ndarray, labels: np.ndarray, device: torch.device) -> Iterator[Epoch]:
    """One epoch after the other."""
    remarks: list[str] = []
    if device.type == "cpu":
        keep_freed_memory()
    data = Arrays(torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device))
    few = Arrays(data.images[:8], data.labels[:8])
    training = Run(recipe, data, few, {})
    while True:
        remarks.clear()
        training._train_epoch(lambda p: remarks.append(p.remark))  # `train` would go on to the last one
        yield training.history[-1]["images_per_second"], " ".join(filter(None, remarks))


class _Pictures(Dataset):
    """Pictures one by one, as tutorials have it."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(48, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(0.5, 0.5),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def _usual(recipe: Recipe, images: np.ndarray, labels: np.ndarray, device: torch.device) -> Iterator[Epoch]:
    """Images/s of one epoch after the other."""
    net = ResNet9(recipe.width).to(device, memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        _Pictures(images, labels),
        recipe.batch,
        shuffle=True,
        num_workers=_workers(),
        pin_memory=on_gpu,
        persistent_workers=True,
    )
    optimizer = torch.optim.Adam(net.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * math.ceil(len(images) / recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps)
    net.train()
    while True:
        started = time.perf_counter()
        for x, y in loader:
            logits = net.classifier(net.features(x.to(device)).amax(dim=(2, 3)))
            loss = F.cross_entropy(logits, y.to(device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_value_(net.parameters(), recipe.clip_value)
            optimizer.step()
            schedule.step()
        if on_gpu:
            torch.cuda.synchronize(device)
        yield len(images) / (time.perf_counter() - started), ""


def _workers() -> int:
    """Processes that prepare pictures: a core is left to the loop."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _pictures(settings: Settings, count: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (count, 48, 48) and labels int64 (count,): of the data set, or noise, which takes the same time."""
    if settings.data is not None:
        from trainer.dataset import load
        from trainer.folders import TRAINING

        faces = load(settings.data, [TRAINING]).split(TRAINING)
        return faces.images[:count], faces.labels[:count]
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 48, 48), np.uint8), rng.integers(0, 7, count)
