"""Weights of the emotion network: one safetensors file whose header says what it is and how it was made.

The trainer writes them, the `emotion` node reads them, and reading checks everything before a tensor is used.
Nothing is ever unpickled. torch is imported only where tensors are touched, so that a process may list or
describe weights without it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError, safe_open

from nodes.emotion.architecture import ARCHITECTURE, parameter_shapes
from nodes.location import replace_file
from nodes.preprocess import DEFAULT, LABELS, Preprocess
from pipeline.errors import UserError, did_you_mean, explain

if TYPE_CHECKING:
    from torch import Tensor

    from nodes.emotion.model import ResNet9

FORMAT_VERSION = 1
SUFFIX = ".safetensors"
_METADATA_KEY = "emograph"
_PACKAGE_DATA = Path(__file__).parent / "data"


class WeightsError(UserError, ValueError):
    """A weights file that cannot be used; one line that names the file and what is wrong with it."""


class Parent(BaseModel):
    """A network that another one learnt from: a teacher, or the one that it began as."""

    model_config = ConfigDict(extra="forbid")

    file: str
    sha256: str
    width: int
    votes: bool = Field(description="whether it, or a parent of its own, was trained with FER+ votes")


class Header(BaseModel):
    """What a weights file says about itself."""

    model_config = ConfigDict(extra="forbid")

    format_version: int = FORMAT_VERSION
    architecture: str = ARCHITECTURE
    width: int = Field(ge=4, le=256)
    labels: tuple[str, ...] = LABELS
    preprocess: Preprocess = DEFAULT
    temperature: float = Field(
        default=1.0, ge=0.01, le=100, allow_inf_nan=False, description="divides the logits before the softmax"
    )
    recipe: dict[str, Any] = {}
    data_hash: str = Field(default="", description="sha256 of the labels and pixels trained and chosen on")
    inputs: dict[str, str] = Field(default={}, description="sha256 of all that the run read, by what it was")
    teachers: tuple[Parent, ...] = ()
    init: Parent | None = Field(default=None, description="the network that training began with; None for a random one")
    metrics: dict[str, float] = {}
    command: str = Field(default="", description="the command that made the weights")
    git_commit: str = ""
    note: str = Field(default="", description="what else a user should know of how they were made")


def available() -> list[str]:
    """The names of the weights that come with the package."""
    return sorted(path.stem for path in _PACKAGE_DATA.glob("*" + SUFFIX))


def locate(path_or_name: str | Path) -> Path:
    """Where the weights of a packaged name (`resnet9`) or of a path (`~/mine.safetensors`) lie, or would lie.

    WeightsError for a name that no packaged weights have.
    """
    text = os.fspath(path_or_name)
    given = Path(os.path.expanduser(text))
    if text and (text.endswith(SUFFIX) or given.name != text or _is_file(given)):
        return given
    if text in available():
        return _PACKAGE_DATA / (text + SUFFIX)
    raise WeightsError(f"no weights are called '{text}'{did_you_mean(text, available())}")


def find_weights(path_or_name: str | Path) -> Path:
    """The file of a packaged name or of a path; WeightsError if there is none."""
    path = locate(path_or_name)
    if not _is_file(path):
        hint = "; did you mean weights.safetensors in it?" if _is_file(path / "weights.safetensors") else ""
        raise WeightsError(f"no weights file at {path}{hint}")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error


def read_header(path_or_name: str | Path) -> Header:
    """The checked header alone: quick, and without torch."""
    path = find_weights(path_or_name)
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is cut off or not a safetensors file ({error})") from error
    if _METADATA_KEY not in metadata:
        if "epoch" in metadata:
            raise WeightsError(
                f"{path} is the checkpoint of a run: take weights.safetensors, which is written at its end"
            )
        raise WeightsError(f"{path} has no emograph header: it was not written by `emograph train`")
    try:
        written = from_json(metadata[_METADATA_KEY])
        # Looked at first: a later format may have fields that are unknown here.
        version = written.get("format_version", FORMAT_VERSION) if isinstance(written, dict) else FORMAT_VERSION
        if version != FORMAT_VERSION:
            raise WeightsError(f"{path} has weights format {version}; this version reads {FORMAT_VERSION}")
        header = Header.model_validate_json(metadata[_METADATA_KEY])
    except WeightsError:
        raise
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "header"
        raise WeightsError(f"{path}: bad header, {where}: {explain(problem)}") from error
    except ValueError as error:
        raise WeightsError(f"{path}: bad header, it is no JSON ({error})") from error
    if header.architecture != ARCHITECTURE:
        raise WeightsError(f"{path} holds a network '{header.architecture}'; the emotion node runs '{ARCHITECTURE}'")
    if header.labels != LABELS:
        raise WeightsError(f"{path} has the labels {', '.join(header.labels)} instead of {', '.join(LABELS)}")
    return header


def read_tensors(path_or_name: str | Path) -> tuple[dict[str, np.ndarray], Header]:
    """The network's tensors, float32, by name, and its header; without torch.

    Takes a packaged name or a path. Raises WeightsError if the file is missing, cut off or foreign, if it holds
    another network, other labels, shapes or types, or a value that is not finite.
    """
    path = find_weights(path_or_name)
    header = read_header(path)
    expected = parameter_shapes(header.width, len(header.labels))
    tensors = {}
    try:
        with safe_open(path, "numpy") as file:
            for name in sorted(expected.keys() ^ set(file.keys())):
                what = "lacks" if name in expected else "has a tensor that the network does not know:"
                raise WeightsError(f"{path} {what} {name}")
            for name, shape in expected.items():
                stored = file.get_slice(name)
                if tuple(stored.get_shape()) != shape:
                    raise WeightsError(f"{path}: {name} has the shape {tuple(stored.get_shape())} instead of {shape}")
                if stored.get_dtype() not in ("F16", "F32"):
                    raise WeightsError(f"{path}: {name} is stored as {stored.get_dtype()} instead of F16 or F32")
                tensors[name] = file.get_tensor(name).astype(np.float32)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is cut off or not a safetensors file ({error})") from error
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise WeightsError(f"{path}: {name} has values that are not finite")
        if name.endswith("running_var") and tensor.min() < 0:
            raise WeightsError(f"{path}: {name} has variances below 0")
    return tensors, header


def load_weights(path_or_name: str | Path) -> tuple[ResNet9, Header]:
    """A network in eval mode, float32 on the CPU, and its header; raises as read_tensors does."""
    import torch

    from nodes.emotion.model import ResNet9

    tensors, header = read_tensors(path_or_name)
    model = ResNet9(header.width, len(header.labels), header.preprocess.mean, header.preprocess.std)
    # Not strict: batch norm's step counters are in no file.
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, strict=False)
    return model.eval(), header


def save_weights(path: str | Path, state_dict: dict[str, Tensor], header: Header) -> None:
    """Write a network's state as fp16 with its header; the file appears whole or not at all.

    Raises WeightsError if the place cannot be written, or a value does not fit into fp16.
    """
    import torch
    from safetensors.torch import save

    path = Path(path)
    tensors = {
        name: value.detach().to("cpu", torch.float16).contiguous() for name, value in _parameters(state_dict).items()
    }
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path} was not written: {name} has values that are not finite in fp16")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, save(tensors, {_METADATA_KEY: header.model_dump_json()}))
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error.strerror or error}") from error


def _parameters(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that decide the answer: all but batch norm's integer step counters."""
    return {name: value for name, value in state_dict.items() if value.is_floating_point()}
