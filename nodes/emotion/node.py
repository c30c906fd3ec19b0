"""Classifies the expressions of faces, of all cameras in one call.

    emograph launch "testsrc ! haardetect ! emotion ! overlay ! videosink location=out.mp4"

Reads only the 48x48 patches that the detector cut, never the frame. What runs the network is imported when the
node opens, so that checking a graph, or running its other nodes, does not pay for it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from nodes.emotion.backends import Backend, conflict, int8_can_be_had, load
from nodes.emotion.busy import ALWAYS, Busy
from nodes.emotion.memory import Answer, Memory
from nodes.preprocess import DEFAULT, UNCERTAIN
from nodes.shortage import Shortage
from pipeline import BatchTransform, Buffer, Properties, Region, Seconds, UserError, pad


class Emotion(BatchTransform):
    """Adds the probabilities of seven expressions to each face, with one batched ResNet9 for all cameras.

    An expression is what a face shows, not what a person feels (docs/MODEL_CARD.md).
    """

    class Properties(Properties):
        weights: str = Field("resnet9", description="a shipped set by name, or the path of a safetensors file")
        device: str = Field("auto", description="auto, cpu, cuda or cuda:N; auto takes a GPU where there is one")
        backend: Literal["auto", "torch", "onnxruntime", "openvino"] = Field(
            "auto", description="what runs the network; auto takes the fastest that is installed for the device"
        )
        precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
            "auto",
            description="of the computing; auto: fp32 on a CPU, bf16 on a GPU. On a CPU that has it bf16 is twice as"
            " fast or more and moves probabilities by less than 0.03; int8 (VNNI) is about three times as fast or more,"
            " and moves them by less than 0.1",
        )
        max_batch: int = Field(64, ge=1, le=4096, description="faces in one call, at most")
        max_wait: Seconds = Field(0.0, description="how long a partial batch waits for more faces")
        mirror: bool = Field(
            False, description="also classify each face's mirror image and take the mean: twice the work, more accurate"
        )
        smoothing: Seconds = Field(0.4, description="time constant of the smoothing per track; 0 for none")
        threshold: float = Field(
            0.4, ge=0, le=1, description="below this smoothed probability the label is 'uncertain'"
        )
        reclassify_interval: Seconds = Field(
            0.0, le=5, description="how long the answer for a tracked face that looks the same may stand; 0: never"
        )
        busy_reclassify_interval: Seconds = Field(
            0.5,
            le=5,
            description="the same while there is too little time for all frames of live cameras, if it is longer; 0: as"
            " ever, which costs frames",
        )
        reclassify_change: float = Field(
            4.0, ge=0, le=255, description="mean difference in grey levels above which a face looks another"
        )
        threads: int = Field(
            0,
            ge=0,
            le=256,
            description="CPU threads of the network; 0: one in live mode, where other nodes have work to do meanwhile;"
            " in lossless mode one a core, up to 4 (torch: one)",
        )

        @field_validator("device")
        @classmethod
        def _known_device(cls, value: str) -> str:
            kind, _, index = value.partition(":")
            if value not in ("auto", "cpu", "cuda") and not (kind == "cuda" and index.isdigit()):
                raise ValueError("auto, cpu, cuda or cuda:N")
            return value

        @field_validator("backend", "precision")
        @classmethod
        def _fits(cls, value: str, info: ValidationInfo) -> str:
            given = {"backend": "auto", "device": "auto", "precision": "auto", **info.data, str(info.field_name): value}
            problem = conflict(given["backend"], given["device"], given["precision"])
            if problem:
                raise ValueError(problem)
            return value

    sink = pad("video/raw", needs="faces", access="none")
    src = pad("video/raw", adds="emotions")

    @classmethod
    def reads(cls, props: Emotion.Properties) -> list[Path]:
        from nodes.emotion.weights import locate

        return [locate(props.weights)]

    def open(self) -> None:
        from nodes.emotion.weights import read_header

        props = self.props
        self.max_batch, self.max_wait = props.max_batch, props.max_wait
        header = read_header(props.weights)
        self.labels, self._size, self._margin = header.labels, header.preprocess.size, header.preprocess.margin
        self._fits = self._misfits = False
        """Whether a patch of the network's size has come, and of another one."""
        self._margin_told = self._busy_told = self._sparing_told = False
        self._busy = Busy()
        self._shortage = Shortage()
        self._memories: dict[str, Memory] = {}
        try:
            self._classify: Backend | None = load(
                props.weights, props.backend, props.device, props.precision,
                props.threads or (None if self.lossless else 1), props.max_batch,
                warn=lambda text: self.log("warning", text),
            )  # fmt: skip
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from error
        self._probabilities(np.stack([np.full((self._size, self._size), grey, np.uint8) for grey in (0, 127, 255)]))
        self._where = self._classify.where
        self.log("info", f"{props.weights} on {self._where}")

    def close(self) -> None:
        self._classify = None

    def items(self, buffer: Buffer) -> int:
        return sum(region.patch is not None for region in buffer.regions)

    def transform_batch(self, buffers: list[Buffer]) -> list[Buffer | None]:
        begun = self.clock()
        faces = [(b, r, p) for b in buffers for r in b.regions if (p := self._patch(r)) is not None]
        asked: list[tuple[np.ndarray, Answer]] = []
        interval = self._interval(buffers)
        try:
            answers = [self._answer(buffer, region, patch, interval, asked) for buffer, region, patch in faces]
            for begin in range(0, len(asked), self.max_batch):
                if begin:
                    self.breathe()  # one buffer may bring more faces than a batch holds
                part = asked[begin : begin + self.max_batch]
                rows = self._probabilities(np.stack([patch for patch, _ in part]))
                for (_, answer), raw in zip(part, rows, strict=True):
                    answer.raw = raw
        except Exception:
            for memory in self._memories.values():
                memory.forget_answers()
            raise
        for (buffer, region, _), answer in zip(faces, answers, strict=True):
            assert answer.raw is not None
            self._label(buffer, region, answer.raw)
        for buffer in buffers:
            self._check_margin(buffer)
        if self._busy.add(begun, self.clock()) >= ALWAYS:
            self._tell_busy()
        return list(buffers)

    def _probabilities(self, faces: np.ndarray) -> np.ndarray:
        """uint8 (N, S, S) -> float32 (N, classes), of one view or the mean of two.

        UserError where a network that overflows gives no number.
        """
        assert self._classify is not None
        if self.props.mirror:
            both = self._classify(np.concatenate([faces, faces[:, :, ::-1]]))
            found = both.reshape(2, len(faces), -1).mean(axis=0)
        else:
            found = self._classify(faces)
        if not np.isfinite(found).all():
            raise UserError(f"{self.name}: {self.props.weights} gives probabilities that are no numbers: it is broken")
        return found

    def _interval(self, buffers: list[Buffer]) -> float:
        """Seconds for which answers may stand: longer where time is short, so that the frames go first."""
        props, short = self.props, False
        if not self.lossless:
            for buffer in buffers:
                short |= self._shortage.seen(buffer, self.clock())
        spared = props.busy_reclassify_interval if short else 0.0
        if spared > props.reclassify_interval and not self._sparing_told and self._shortage.lasts(self.clock()):
            self._sparing_told = True
            text = f"faces that look the same are classified every {spared:g} s (busy_reclassify_interval)"
            self.log("info", f"there is too little time for all frames; until that is over, {text}")
        return max(props.reclassify_interval, spared)

    def _answer(
        self,
        buffer: Buffer,
        region: Region,
        patch: np.ndarray,
        interval: float,
        asked: list[tuple[np.ndarray, Answer]],
    ) -> Answer:
        """The answer that stands for a face, or a new one, to be filled, which joins `asked`."""
        if region.track is None:
            answer = Answer()
        else:
            memory, seen = self._memory(buffer.stream), (region.track, buffer.pts, patch, interval)
            known = memory.recall(*seen)
            if known is not None:
                region.attrs["reused"] = True
                return known
            answer = memory.ask(*seen)
        asked.append((patch, answer))
        return answer

    def _patch(self, region: Region) -> np.ndarray | None:
        """The face as the network reads it, uint8 (S, S). None where there is none, or one of another size: such a
        face gets no label, for it may come from another host, whose mistakes must not end this graph.

        UserError when the weights do not read what this project's detector cuts.
        """
        patch = region.patch
        if patch is None or patch.shape == (self._size, self._size):
            self._fits |= patch is not None
            return patch
        height, width = patch.shape
        text = f"a {width}x{height} patch came; {self.props.weights} reads {self._size}x{self._size}"
        if width == height == DEFAULT.size and not self._fits:
            raise UserError(f"{self.name}: {text}")
        self.observe("wrong_patches", 1)
        if not self._misfits:
            self._misfits = True
            self.log("warning", f"{text}: such faces get no label")
        return None

    def _check_margin(self, buffer: Buffer) -> None:
        """Say once that faces are cut wider or closer than in training, which costs accuracy and nothing else."""
        margin = buffer.meta.get("margin")
        if self._margin_told or not isinstance(margin, float) or math.isclose(margin, self._margin, abs_tol=1e-6):
            return
        self._margin_told = True
        text = f"faces are cut with margin {margin:g}, but {self.props.weights} was trained with {self._margin:g}"
        self.log("warning", f"{buffer.stream}: {text}; set haardetect's margin to that")

    def _tell_busy(self) -> None:
        """Say once that the network cannot follow the cameras, and what would help. In lossless mode they wait."""
        if self._busy_told or self.lossless:
            return
        self._busy_told = True
        ways = ["weights: resnet9-s is a quarter of the work"] if self.props.weights == "resnet9" else []
        in_fp32 = self.props.precision in ("auto", "fp32") and self._where.startswith("the CPU")
        if in_fp32 and int8_can_be_had(self.props.backend):
            ways.append("precision: int8 is faster, with nearly the same answers")
        if not self.props.reclassify_interval:
            ways.append("reclassify_interval: 200ms classifies a face that looks the same less often")
        cure = "; ".join(ways) or "give the cameras a lower fps"
        self.log("warning", f"the network works without a pause, and frames may be dropped for it: {cure}")

    def _memory(self, stream: str) -> Memory:
        if stream not in self._memories:
            self._memories[stream] = Memory(self.props.smoothing, self.props.reclassify_change)
        return self._memories[stream]

    def _label(self, buffer: Buffer, region: Region, raw: np.ndarray) -> None:
        """Enter raw and smoothed probabilities, and the label that they make."""
        smoothed = raw
        if region.track is not None:
            smoothed = self._memory(buffer.stream).smooth(region.track, buffer.pts, raw)
        best = int(smoothed.argmax())
        region.raw = dict(zip(self.labels, raw.tolist(), strict=True))
        region.scores = dict(zip(self.labels, smoothed.tolist(), strict=True))
        region.label = self.labels[best] if smoothed[best] >= self.props.threshold else UNCERTAIN
