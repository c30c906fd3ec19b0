"""A run's state after a whole epoch: one safetensors file with a JSON header. Nothing is ever unpickled.

A new checkpoint replaces the old one in one step, so that a kill or a full disk leaves the last good one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nodes.location import replace_file
from pipeline.errors import UserError

_FORMAT = "emograph-checkpoint-2"
_HEADER = {"epoch": int, "recipe": dict, "inputs": dict, "history": list, "commits": list}
"""What is in the header as JSON; a checkpoint of an earlier version has no commits."""


@dataclass(frozen=True)
class Checkpoint:
    """`tensors` are named model.*, ema.*, optimizer.<parameter>.<state>; `history` is one dict an epoch.

    `recipe` is a recipe's essence; `inputs` what `run_inputs` of prepare.py gives: sha256 of all that the run read;
    `commits` of the code that trained, one after the other.
    """

    epoch: int
    recipe: dict[str, Any]
    inputs: dict[str, str]
    history: list[dict[str, float]]
    tensors: dict[str, Tensor]
    commits: list[str] = field(default_factory=list)

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part, without the part's name."""
        return {
            key.removeprefix(name + "."): value for key, value in self.tensors.items() if key.startswith(name + ".")
        }

    def check_recipe(self, ours: dict[str, Any], path: Path) -> None:
        """UserError if this is the state of a run of another recipe."""
        # Checkpoints from before 27 November 2026 also say whether the code was compiled, which does not matter.
        theirs = {key: value for key, value in self.recipe.items() if key != "compile"}
        self._check(ours, theirs, "is of another recipe ({} differ)", path)

    def check_inputs(self, ours: dict[str, str], path: Path) -> None:
        """UserError if this is the state of a run of other data, votes, first weights or teachers."""
        self._check(ours, self.inputs, "was made with other {}", path)

    @staticmethod
    def _check(ours: dict[str, Any], theirs: dict[str, Any], what: str, path: Path) -> None:
        differing = sorted(key for key in ours | theirs if ours.get(key) != theirs.get(key))
        if differing:
            told = what.format(", ".join(differing))
            raise UserError(f"the checkpoint {path} {told}: give another --out, or delete what is in this one")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as flat tensors; hyperparameters are not in it, the schedule sets them."""
    state = optimizer.state_dict()["state"]
    return {
        f"{parameter}.{name}": value
        for parameter, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`.

    Each value gets the memory layout of its parameter (channels_last): fused optimizers walk both as they lie
    in memory, so values in the file's layout would meet the wrong weights.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".")
        parameter = parameters[int(number)]
        per_weight = value.shape == parameter.shape
        laid_out = torch.empty_like(parameter, dtype=value.dtype).copy_(value) if per_weight else value
        state.setdefault(int(number), {})[name] = laid_out
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that at every moment either the old or the new one is there whole.

    Raises UserError if the disk is full or the place cannot be written; the old file then still stands.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content, sync=True)
    except OSError as error:
        kept = "; the earlier one is still there" if path.is_file() else ""
        raise UserError(f"cannot write {path}: {error.strerror or error}{kept}") from error


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    header = {
        "format": _FORMAT,
        "epoch": json.dumps(checkpoint.epoch),
        "recipe": json.dumps(checkpoint.recipe),
        "inputs": json.dumps(checkpoint.inputs),
        "history": json.dumps(checkpoint.history),
        "commits": json.dumps(checkpoint.commits),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()}
    write_whole(path, save(tensors, header))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote; UserError if it is something else or cut off."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            if header.get("format") != _FORMAT:
                raise UserError(f"{path} is not a checkpoint of this version; delete it to start anew")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"the checkpoint {path} cannot be read ({error}); delete it to start anew") from error
    try:
        values = {name: json.loads(header[name]) for name in _HEADER if name in header or name != "commits"}
    except (KeyError, ValueError, RecursionError):
        values = {}
    if not values or any(type(value) is not _HEADER[name] for name, value in values.items()):
        raise UserError(f"the checkpoint {path} cannot be read (its header is damaged); delete it to start anew")
    return Checkpoint(tensors=tensors, **values)
