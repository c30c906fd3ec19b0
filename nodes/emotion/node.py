"""Classifies the expressions of faces, of all cameras in one call.

    emograph launch "testsrc ! haardetect ! emotion ! overlay ! videosink location=out.mp4"

Reads only the 48x48 patches that the detector cut, never the frame. torch is imported when the node opens, so
that checking a graph, or running its other nodes, does not pay for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, field_validator

from pipeline import BatchTransform, Buffer, Properties, Region, Seconds, UserError, pad

if TYPE_CHECKING:
    import torch

UNCERTAIN = "uncertain"
_FORGET_AFTER_NS = 10_000_000_000
"""A track that was not seen for so long is forgotten; detectors never use an id again."""


@dataclass(slots=True)
class _Track:
    """What is known of one face: smoothed probabilities and when they were last updated (PTS, ns)."""

    probabilities: np.ndarray
    pts: int


class Emotion(BatchTransform):
    """Adds the probabilities of seven expressions to each face, with one batched ResNet9 for all cameras.

    An expression is what a face shows, not what a person feels (docs/MODEL_CARD.md).
    """

    class Properties(Properties):
        weights: str = Field("resnet9-s", description="a shipped set by name, or the path of a safetensors file")
        device: str = Field("auto", description="auto, cpu, cuda or cuda:N; auto takes a GPU where there is one")
        max_batch: int = Field(64, ge=1, le=4096, description="faces in one call, at most")
        max_wait: Seconds = Field(0.0, description="how long a partial batch waits for more faces")
        smoothing: Seconds = Field(0.4, description="time constant of the smoothing per track; 0 for none")
        threshold: float = Field(
            0.4, ge=0, le=1, description="below this smoothed probability the label is 'uncertain'"
        )
        threads: int = Field(1, ge=1, le=256, description="CPU threads of the network")

        @field_validator("device")
        @classmethod
        def _known_device(cls, value: str) -> str:
            kind, _, index = value.partition(":")
            if value not in ("auto", "cpu", "cuda") and not (kind == "cuda" and index.isdigit()):
                raise ValueError("auto, cpu, cuda or cuda:N")
            return value

    sink = pad("video/raw", needs="faces", access="none")
    src = pad("video/raw", adds="emotions")

    def open(self) -> None:
        from nodes.emotion.weights import load_weights, read_header

        read_header(self.props.weights)  # wrong weights are told before torch's import, which takes seconds
        import torch

        from nodes.emotion.model import fuse

        self.max_batch, self.max_wait = self.props.max_batch, self.props.max_wait
        torch.set_num_threads(self.props.threads)
        self._device = _device(self.props.device, self.name)
        model, header = load_weights(self.props.weights)
        self.labels = header.labels
        self._size = header.preprocess.size
        self._temperature = header.temperature
        # bf16 halves the work of a GPU's tensor cores; answers differ by less than the fp16 of the stored weights.
        dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        self._model = fuse(model).to(self._device, dtype)
        self._tracks: dict[str, dict[int, _Track]] = {}
        self._classify(np.zeros((1, self._size, self._size), np.uint8))  # the first call is slow; nobody waits yet
        where = str(self._device) if self._device.type == "cpu" else torch.cuda.get_device_name(self._device)
        self.log("info", f"{self.props.weights} on {where}")

    def close(self) -> None:
        self._model = None

    def items(self, buffer: Buffer) -> int:
        return sum(region.patch is not None for region in buffer.regions)

    def transform_batch(self, buffers: list[Buffer]) -> list[Buffer | None]:
        faces = [(b, r) for b in buffers for r in b.regions if r.patch is not None]
        for start in range(0, len(faces), self.max_batch):  # one frame may hold more faces than a batch
            part = faces[start : start + self.max_batch]
            patches = np.stack([self._patch(region) for _, region in part])
            for (buffer, region), probabilities in zip(part, self._classify(patches), strict=True):
                self._label(buffer, region, probabilities)
        return list(buffers)

    def _patch(self, region: Region) -> np.ndarray:
        assert region.patch is not None
        if region.patch.shape != (self._size, self._size):
            height, width = region.patch.shape
            raise UserError(
                f"{self.name}: a {width}x{height} patch came; {self.props.weights} reads {self._size}x{self._size}"
            )
        return region.patch

    def _classify(self, patches: np.ndarray) -> np.ndarray:
        """uint8 (N, size, size) -> calibrated probabilities, float32 (N, classes)."""
        import torch

        assert self._model is not None
        with torch.inference_mode():
            batch: torch.Tensor = torch.from_numpy(patches).to(self._device, non_blocking=True)
            logits = self._model(batch).float()
            return (logits / self._temperature).softmax(dim=1).cpu().numpy()

    def _label(self, buffer: Buffer, region: Region, probabilities: np.ndarray) -> None:
        """Enter raw and smoothed probabilities, and the label that they make."""
        region.raw = dict(zip(self.labels, probabilities.tolist(), strict=True))
        smoothed = probabilities
        if region.track is not None and self.props.smoothing > 0:
            smoothed = self._smooth(buffer.stream, region.track, buffer.pts, probabilities)
        best = int(smoothed.argmax())
        region.scores = dict(zip(self.labels, smoothed.tolist(), strict=True))
        region.label = self.labels[best] if smoothed[best] >= self.props.threshold else UNCERTAIN

    def _smooth(self, stream: str, track: int, pts: int, probabilities: np.ndarray) -> np.ndarray:
        """Exponential smoothing over the stream's time, so that the frame rate does not change the result."""
        tracks = self._tracks.setdefault(stream, {})
        known = tracks.get(track)
        if known is None:
            for old in [t for t, state in tracks.items() if pts - state.pts > _FORGET_AFTER_NS]:
                del tracks[old]
            tracks[track] = _Track(probabilities.copy(), pts)
            return probabilities
        elapsed = max(0, pts - known.pts) / 1e9
        weight = 1 - math.exp(-elapsed / self.props.smoothing)
        known.probabilities += weight * (probabilities - known.probabilities)
        known.pts = pts
        return known.probabilities


def _device(wanted: str, name: str) -> torch.device:
    """The torch device of a property's value; UserError when it is not there."""
    import torch

    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(f"{name}: device is '{wanted}', but torch finds no usable GPU; use device: auto or cpu")
    device = torch.device("cuda" if wanted == "auto" else wanted)
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise UserError(f"{name}: device is '{wanted}', but there are {torch.cuda.device_count()} GPUs")
    return device
