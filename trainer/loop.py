"""One training run: recipe and faces in, EMA weights of the last epoch out.

What an epoch does is a function of the recipe, its seed, the epoch's number and the state before it: order,
augmentation and mixup come from generators seeded with (seed, epoch). So a run resumed from a checkpoint ends,
on the CPU, in exactly the weights of an unbroken one. The best epoch is never picked: the last one counts.
"""

from __future__ import annotations

import math
import os
import shutil
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodes.emotion.model import ResNet9
from nodes.preprocess import LABELS
from pipeline.errors import UserError
from trainer.augment import augment, resize
from trainer.checkpoint import (
    Checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from trainer.ferplus import VOTES
from trainer.recipe import Recipe
from trainer.schedule import one_cycle

EVALUATION_BATCH = 512
SECONDS_BETWEEN_SAVES = 15.0
"""A short epoch, as on a GPU, takes less than writing its checkpoint; a longer one is always saved."""


@dataclass(frozen=True)
class Arrays:
    """Faces on the device: images uint8 (N, 48, 48), labels int64 (N,), votes float32 (N, 10) or None."""

    images: Tensor
    labels: Tensor
    votes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Progress:
    """Where a run stands; passed to the callback after every twentieth step. `public` is set after each epoch.

    remark: a line for a person, told once; empty for none.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float
    seconds_left: float
    public: float | None = None
    remark: str = ""


class Trainee(nn.Module):
    """The network plus, where a recipe asks for it, a second head that predicts the FER+ votes."""

    def __init__(self, net: ResNet9, votes: bool) -> None:
        super().__init__()
        self.net = net
        self.votes = nn.Linear(net.classifier.in_features, len(VOTES)) if votes else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        embedded = self.net.embed(x)
        return self.net.classifier(embedded), self.votes(embedded) if self.votes is not None else None


class Teachers(nn.Module):
    """What a student shall say: the mean of several networks' probabilities, softened by a temperature."""

    def __init__(self, networks: list[ResNet9], temperature: float) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        softened = [(network(x).float() / self.temperature).softmax(dim=1) for network in self.networks]
        return torch.stack(softened).mean(dim=0)


class _Averages:
    """The running means of a network's tensors, in another network of the same shape; both share their memory here."""

    def __init__(self, average: nn.Module, network: nn.Module) -> None:
        # Collected once: state_dict takes a third of a millisecond, more than the averaging.
        pairs = list(zip(average.state_dict().values(), network.state_dict().values(), strict=True))
        self._means = [mean for mean, _ in pairs if mean.is_floating_point()]
        self._values = [value for _, value in pairs if value.is_floating_point()]
        self._counts = [mean for mean, _ in pairs if not mean.is_floating_point()]
        self._their_counts = [value for _, value in pairs if not value.is_floating_point()]

    def update(self, share: float) -> None:
        """Move the means towards the network's values by a share of the way."""
        torch._foreach_lerp_(self._means, self._values, share)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_copy_(self._counts, self._their_counts)  # pyright: ignore[reportPrivateImportUsage]


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether torch could not get memory: of the CPU's allocator it has no exception of its own."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in text)


def computes_in_bf16(device: torch.device, wish: str) -> bool:
    """Whether a recipe's `precision` means bf16 here: on CPUs it pays only with avx512_bf16."""
    if wish != "auto":
        return wish == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported())


class Run:
    """The state of one run. `train()` takes it to the end, and leaves it in `average`."""

    def __init__(
        self,
        recipe: Recipe,
        training: Arrays,
        public: Arrays,
        inputs: dict[str, str],
        teachers: list[ResNet9] | None = None,
        init: ResNet9 | None = None,
    ) -> None:
        self.recipe, self.training, self.public, self.inputs = recipe, training, public, inputs
        self.teachers = Teachers(teachers or [], recipe.distill.temperature if recipe.distill else 1.0)
        self.device = training.images.device
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.commits: list[str] = []
        """Of the code that has trained it so far."""
        self.steps_per_epoch = math.ceil(len(training) / recipe.batch)

        torch.backends.cudnn.benchmark = True
        torch.manual_seed(recipe.seed)
        self.trainee = Trainee(ResNet9(recipe.width), votes=recipe.ferplus > 0).to(self.device)
        if init is not None:
            self.trainee.net.load_state_dict(init.state_dict())
        self.average = ResNet9(recipe.width).to(self.device).eval()
        self.average.load_state_dict(self.trainee.net.state_dict())
        self._averages = _Averages(self.average, self.trainee.net)
        self.optimizer = _optimizer(recipe, self.trainee)
        bf16 = computes_in_bf16(self.device, recipe.precision)
        self._autocast: Callable[[], AbstractContextManager] = lambda: torch.autocast(
            self.device.type, torch.bfloat16, enabled=bf16
        )
        self._forward: Callable[[Tensor], tuple[Tensor, Tensor | None]] = self.trainee
        self._ask_teachers: Callable[[Tensor], Tensor] = self.teachers
        self._compiled_sizes: set[int] = set()
        """Sides of the pictures that compiled code has been through with."""
        self._remark = ""
        """What is still to be told with the next `Progress`."""
        if recipe.compile and self.device.type == "cuda":
            if _can_compile():
                self._compile()
            else:
                self._remark = "not compiled: torch.compile needs a C compiler and Python's headers"

    def _compile(self, backend: str | Callable[..., Any] = "inductor") -> None:
        _allow_many_shapes(torch._dynamo.config)  # pyright: ignore[reportPrivateUsage]
        self._forward = torch.compile(self.trainee, dynamic=False, backend=backend)
        self._ask_teachers = torch.compile(self.teachers, dynamic=False, backend=backend)

    def train(self, checkpoint: Path | None, tell: Callable[[Progress], None] = lambda _: None) -> ResNet9:
        """Go on to the last epoch, saving between epochs; returns the averaged network, in eval mode.

        Raises UserError if the loss stops being a number, or a checkpoint cannot be written.
        """
        saved = -math.inf
        while self.epoch < self.recipe.epochs:
            before = self.epoch
            try:
                self._train_epoch(tell)
            except BaseException as error:
                if self.epoch > before and checkpoint is not None:  # whoever was told of the epoch's end has had enough
                    self.save(checkpoint)
                if _is_out_of_memory(error):
                    raise UserError(
                        f"too little memory on {self.device} for batch={self.recipe.batch}: take a smaller one"
                    ) from error
                raise
            due = self.epoch == self.recipe.epochs or time.monotonic() - saved > SECONDS_BETWEEN_SAVES
            if checkpoint is not None and due:
                self.save(checkpoint)
                saved = time.monotonic()
        return self.average

    def save(self, path: Path) -> None:
        tensors = {
            **{f"model.{name}": value for name, value in self.trainee.state_dict().items()},
            **{f"ema.{name}": value for name, value in self.average.state_dict().items()},
            **{f"optimizer.{name}": value for name, value in optimizer_tensors(self.optimizer).items()},
        }
        essence = self.recipe.essence()
        save_checkpoint(path, Checkpoint(self.epoch, essence, self.inputs, self.history, tensors, self.commits))

    def resume(self, path: Path) -> None:
        """Take over a checkpoint; UserError if it is of another recipe, data, votes, first weights or teachers."""
        checkpoint = load_checkpoint(path)
        checkpoint.check_recipe(self.recipe.essence(), path)
        checkpoint.check_inputs(self.inputs, path)
        self.trainee.load_state_dict(checkpoint.part("model"))
        self.average.load_state_dict(checkpoint.part("ema"))
        restore_optimizer(self.optimizer, checkpoint.part("optimizer"))
        self.epoch, self.history, self.commits = checkpoint.epoch, checkpoint.history, checkpoint.commits

    def _train_epoch(self, tell: Callable[[Progress], None]) -> None:
        recipe, steps = self.recipe, self.steps_per_epoch
        self.trainee.train()
        loss_sum = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device)
        seen, learning_rate, started = 0, 0.0, time.perf_counter()
        for step, (x, targets, votes, labels) in enumerate(self._batches()):
            learning_rate = self._set_schedule(self.epoch * steps + step)
            loss, logits = self._gradients(x, targets, votes)
            if recipe.clip_value:
                nn.utils.clip_grad_value_(self.trainee.parameters(), recipe.clip_value)
            self.optimizer.step()
            self._update_average(self.epoch * steps + step)
            loss_sum += loss.detach() * len(labels)
            correct += (logits.argmax(dim=1) == labels).sum()
            seen += len(labels)
            # Reading a figure back makes the GPU wait, so only now and then.
            if step % 20 == 0 or step == steps - 1:
                mean_loss = loss_sum.item() / seen
                self._check_finite(mean_loss, learning_rate)
                speed = seen / (time.perf_counter() - started)
                left = ((recipe.epochs - self.epoch) * len(self.training) - seen) / speed
                accuracy, remark = correct.item() / seen, self._take_remark()
                tell(
                    Progress(
                        self.epoch, recipe.epochs, step + 1, steps, mean_loss, accuracy, speed, left, remark=remark
                    )
                )
        trained = time.perf_counter() - started
        size = recipe.size_at(self.epoch)
        accuracy, nll = self._evaluate(size)
        row = {
            "epoch": self.epoch + 1,
            "size": size,
            "lr": learning_rate,
            "loss": loss_sum.item() / seen,
            "accuracy": correct.item() / seen,
            "public_accuracy": accuracy,
            "public_nll": nll,
            "images_per_second": seen / trained,
            "seconds": time.perf_counter() - started,
        }
        self.history.append(row)
        self.epoch += 1
        left = (recipe.epochs - self.epoch) * row["seconds"]
        tell(
            Progress(
                self.epoch - 1,
                recipe.epochs,
                steps,
                steps,
                row["loss"],
                row["accuracy"],
                row["images_per_second"],
                left,
                public=accuracy,
            )
        )

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None, Tensor]]:
        """Augmented x (B, 1, S, S), targets (B, 7), votes (B, 10) or None, and the main labels (B,)."""
        recipe, data = self.recipe, self.training
        generator = torch.Generator(self.device).manual_seed(recipe.seed * 100_003 + self.epoch)
        beta = np.random.default_rng([recipe.seed, self.epoch])
        order = torch.randperm(len(data), device=self.device, generator=generator)
        for chosen in order.split(recipe.batch):
            x = augment(data.images[chosen], recipe.augment, recipe.size_at(self.epoch), generator)
            labels = data.labels[chosen]
            targets = F.one_hot(labels, len(LABELS)).float()
            votes = data.votes[chosen] if data.votes is not None else None
            if recipe.mixup:
                share = max(mix := float(beta.beta(recipe.mixup, recipe.mixup)), 1 - mix)
                other = torch.randperm(len(labels), device=self.device, generator=generator)
                x, targets = x.lerp(x[other], 1 - share), targets.lerp(targets[other], 1 - share)
                votes = votes.lerp(votes[other], 1 - share) if votes is not None else None
            yield x, targets, votes, labels

    def _gradients(self, x: Tensor, targets: Tensor, votes: Tensor | None) -> tuple[Tensor, Tensor]:
        """Loss (the gradients of which then stand in the parameters) and logits of a batch."""
        size = x.shape[-1]
        if self._forward is self.trainee or size in self._compiled_sizes or len(x) != self.recipe.batch:
            return self._backward(*self._loss(x, targets, votes))
        # Code is generated at the first whole batch of each size, forwards and backwards, and that may fail where the
        # network itself runs. Batch norm's statistics must not count the batch twice then.
        before = [buffer.clone() for buffer in self.trainee.buffers()]
        try:
            found = self._backward(*self._loss(x, targets, votes))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self._remark = f"not compiled, for that failed: {reason[:200]}"
            self._forward, self._ask_teachers = self.trainee, self.teachers
            for buffer, value in zip(self.trainee.buffers(), before, strict=True):
                buffer.copy_(value)
            return self._backward(*self._loss(x, targets, votes))
        self._compiled_sizes.add(size)
        return found

    def _backward(self, loss: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return loss, logits

    def _take_remark(self) -> str:
        remark, self._remark = self._remark, ""
        return remark

    def _loss(self, x: Tensor, targets: Tensor, votes: Tensor | None) -> tuple[Tensor, Tensor]:
        recipe = self.recipe
        # The last batch of an epoch is smaller: it is not worth a compilation of its own.
        forward = self._forward if len(x) == recipe.batch else self.trainee
        with self._autocast():
            logits, vote_logits = forward(x)
        logits = logits.float()
        loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
        if recipe.distill:
            loss = torch.lerp(loss, self._distillation(x, logits), recipe.distill.share)
        if vote_logits is not None and votes is not None:
            # Rows without votes are all 0 and so add nothing.
            loss = loss - recipe.ferplus * (votes * vote_logits.float().log_softmax(dim=1)).sum(dim=1).mean()
        return loss, logits

    def _distillation(self, x: Tensor, logits: Tensor) -> Tensor:
        """KL from the teachers' mean to the student, both softened; the same view for all."""
        temperature = self.teachers.temperature
        with torch.no_grad(), self._autocast():
            wanted = (self._ask_teachers if len(x) == self.recipe.batch else self.teachers)(x)
        student = (logits / temperature).log_softmax(dim=1)
        return F.kl_div(student, wanted, reduction="batchmean") * temperature**2

    def _set_schedule(self, step: int) -> float:
        steps = self.recipe.epochs * self.steps_per_epoch
        learning_rate, momentum = one_cycle(step, steps, self.recipe.lr, self.recipe.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum
        return learning_rate

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        """Exponential moving average, with a shorter memory at the start so that it forgets the beginning."""
        self._averages.update(1 - min(self.recipe.ema, (1 + step) / (10 + step)))

    def _check_finite(self, loss: float, learning_rate: float) -> None:
        if not math.isfinite(loss):
            kept = "; the last checkpoint is kept" if self.epoch else ""
            raise UserError(
                f"the loss is {loss} in epoch {self.epoch + 1} at learning rate {learning_rate:.2g}: "
                f"lower lr, or try precision=fp32{kept}"
            )

    @torch.no_grad()
    def _evaluate(self, size: int) -> tuple[float, float]:
        """(accuracy, NLL) of the averaged network on PublicTest at a picture size."""
        correct, nll = torch.zeros(2, device=self.device)
        for images, labels in zip(
            self.public.images.split(EVALUATION_BATCH), self.public.labels.split(EVALUATION_BATCH), strict=True
        ):
            with self._autocast():
                logits = self.average(resize(images, size)).float()
            correct += (logits.argmax(dim=1) == labels).sum()
            nll += F.cross_entropy(logits, labels, reduction="sum")
        return correct.item() / len(self.public), nll.item() / len(self.public)


def _can_compile() -> bool:
    """Whether Triton can build what it launches kernels with: that takes a C compiler and Python's headers."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    return compiler is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


def _allow_many_shapes(dynamo: Any) -> None:
    """Runs of one shape in one process share their code. Each width, batch and picture size is an entry more.

    Beyond dynamo's limit, of 8, it would fall back in silence.
    """
    # The second name is that of older torch, 2.4 among them.
    name = "recompile_limit" if hasattr(dynamo, "recompile_limit") else "cache_size_limit"
    setattr(dynamo, name, 64)


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay, fused=True
        )
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(parameters, recipe.lr, weight_decay=recipe.weight_decay, fused=True)
