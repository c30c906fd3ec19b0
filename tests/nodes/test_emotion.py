"""The classifier node with the weights that ship: batching, smoothing over time, labels, devices."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from nodes.emotion import backends
from nodes.emotion.model import ResNet9
from nodes.emotion.node import UNCERTAIN, Emotion
from nodes.emotion.weights import Header, load_weights, save_weights
from nodes.preprocess import LABELS, Preprocess
from pipeline import GraphError, Harness, Region, UserError
from tests.support.graphs import ROOT

MEANS = cv2.imread(str(ROOT / "nodes/testsrc_faces.png"), cv2.IMREAD_GRAYSCALE)
SECOND = 1_000_000_000
WEIGHTS = Emotion.Properties().weights


def face(label: str) -> np.ndarray:
    """The class mean of an expression, uint8 (48, 48)."""
    index = LABELS.index(label)
    return np.ascontiguousarray(MEANS[:, 48 * index : 48 * (index + 1)])


def region(label: str, track: int | None = 1) -> Region:
    return Region((0, 0, 48, 48), track=track, patch=face(label))


def expected(label: str) -> np.ndarray:
    """The probabilities by the plain way: the trained network, its temperature, softmax."""
    model, header = load_weights(WEIGHTS)
    with torch.inference_mode():
        logits = model(torch.from_numpy(face(label))[None]) / header.temperature
        return logits.softmax(1)[0].numpy()


@pytest.fixture(scope="module")
def plain() -> Harness:
    return Harness(Emotion(smoothing=0, threshold=0), streams=("door", "desk"))


def test_probabilities_are_the_networks_calibrated_ones(plain: Harness):
    for label in LABELS:
        [out] = plain.push(regions=[region(label)])
        [got] = out.regions
        assert got.raw is not None
        assert list(got.raw) == list(LABELS)
        np.testing.assert_allclose(list(got.raw.values()), expected(label), atol=1e-4)
        assert got.scores == got.raw
        assert got.label == max(got.raw, key=lambda name: got.raw[name])


def test_one_call_serves_all_cameras_and_each_face_gets_its_own(plain: Harness):
    buffers = [
        plain.buffer(stream="door", regions=[region("happy"), region("surprise", 2)]),
        plain.buffer(stream="desk", regions=[]),
        plain.buffer(stream="desk", regions=[Region((0, 0, 9, 9)), region("angry")]),
    ]
    assert [plain.node.items(b) for b in buffers] == [2, 0, 1]
    calls = []
    classify = plain.node._classify
    plain.node._classify = lambda patches: calls.append(len(patches)) or classify(patches)
    try:
        out = plain.push_all(buffers)
    finally:
        plain.node._classify = classify
    assert calls == [3]
    for got, label in ((out[0].regions[0], "happy"), (out[0].regions[1], "surprise"), (out[2].regions[1], "angry")):
        np.testing.assert_allclose(list(got.raw.values()), expected(label), atol=1e-4)
    assert out[2].regions[0].label is None  # a region without a patch is left alone


def test_mirror_takes_the_mean_of_a_face_and_its_mirror_image():
    mirrored = region("happy")
    assert mirrored.patch is not None
    mirrored.patch = mirrored.patch[:, ::-1].copy()
    with Harness(Emotion(smoothing=0)) as harness:
        [one], [other] = (harness.push(regions=[r])[0].regions for r in (region("happy"), mirrored))
    assert one.raw != pytest.approx(other.raw, abs=1e-4)
    mean = {name: (one.raw[name] + other.raw[name]) / 2 for name in one.raw}
    with Harness(Emotion(smoothing=0, mirror=True)) as harness:
        [out] = harness.push(regions=[region("happy"), region("angry"), mirrored])
    for index in (0, 2):
        assert out.regions[index].raw == pytest.approx(mean, abs=1e-5)


def test_a_frame_with_more_faces_than_a_batch_is_classified_in_parts():
    with Harness(Emotion(max_batch=2, smoothing=0)) as harness:
        [out] = harness.push(regions=[region("happy", n) for n in range(5)])
    assert all(r.raw == pytest.approx(out.regions[0].raw, abs=1e-5) for r in out.regions)


@pytest.mark.parametrize("step_ms", [10, 100])
def test_smoothing_has_a_time_constant_whatever_the_frame_rate(step_ms: int):
    start, end = expected("happy"), expected("surprise")
    with Harness(Emotion(smoothing=0.5)) as harness:
        harness.push(regions=[region("happy")], pts=0)
        for at in range(step_ms, 501, step_ms):
            [out] = harness.push(regions=[region("surprise")], pts=at * SECOND // 1000)
        share = 1 - math.exp(-1)
        np.testing.assert_allclose(list(out.regions[0].scores.values()), start + share * (end - start), atol=1e-3)
        np.testing.assert_allclose(list(out.regions[0].raw.values()), end, atol=1e-3)


def test_tracks_and_cameras_are_smoothed_apart():
    with Harness(Emotion(smoothing=10.0), streams=("door", "desk")) as harness:
        harness.push(stream="door", regions=[region("happy", 1)], pts=0)
        for stream, track in (("door", 2), ("desk", 1), ("door", None)):
            [out] = harness.push(stream=stream, regions=[region("surprise", track)], pts=SECOND // 10)
            assert out.regions[0].scores == out.regions[0].raw
        [out] = harness.push(stream="door", regions=[region("surprise", 1)], pts=SECOND // 10)
        assert out.regions[0].scores != out.regions[0].raw


def test_below_the_threshold_the_label_is_uncertain():
    top = expected("happy").max()
    for threshold, label in ((top - 0.01, "happy"), (top + 0.01, UNCERTAIN)):
        with Harness(Emotion(threshold=float(threshold))) as harness:
            [out] = harness.push(regions=[region("happy")])
            assert out.regions[0].label == label


def other_size(size: int) -> Region:
    return Region((0, 0, 9, 9), track=1, patch=np.zeros((size, size), np.uint8))


def test_a_face_of_another_size_gets_no_label_and_ends_nothing():
    """It may come from another host."""
    with Harness(Emotion(name="mood")) as harness:
        for _ in range(3):
            [out] = harness.push(regions=[other_size(32), region("happy", 2), Region((0, 0, 9, 9))])
    assert [r.label for r in out.regions] == [None, "happy", None]
    assert harness.metrics["wrong_patches"] == [1, 1, 1]
    text = f"a 32x32 patch came; {WEIGHTS} reads 48x48: such faces get no label"
    assert [said for said in harness.logs if said[0] == "warning"] == [("warning", text)]


@pytest.fixture
def wide_weights(tmp_path: Path) -> str:
    """Weights that read 56x56 faces cut with a margin."""
    path = tmp_path / "wide.safetensors"
    save_weights(path, ResNet9(width=4).state_dict(), Header(width=4, preprocess=Preprocess(margin=0.1, size=56)))
    return str(path)


def test_weights_that_do_not_read_what_haardetect_cuts_stop_with_one_line(wide_weights: str):
    with Harness(Emotion(name="mood", weights=wide_weights)) as harness:
        with pytest.raises(UserError, match=r"^mood: a 48x48 patch came; .*wide.safetensors reads 56x56$"):
            harness.push(regions=[region("happy")])
        harness.push(regions=[other_size(56)])
        [out] = harness.push(regions=[other_size(56), region("happy")])  # once it works, no peer can stop it
    assert [r.label is None for r in out.regions] == [False, True]


def test_faces_cut_otherwise_than_in_training_are_told_once(wide_weights: str):
    with Harness(Emotion(weights=wide_weights), streams=("door",)) as harness:
        for margin in (None, "wide", 0.1, 0.1 + 1e-9):
            harness.push(regions=[other_size(56)], meta={} if margin is None else {"margin": margin})
        assert [level for level, _ in harness.logs] == ["info"]
        for _ in range(2):
            harness.push(regions=[other_size(56)], meta={"margin": 0.0})
    text = (
        f"door: faces are cut with margin 0, but {wide_weights} was trained with 0.1; set haardetect's margin to that"
    )
    assert harness.logs[1:] == [("warning", text)]


def test_more_faces_than_a_batch_are_computed_in_parts_with_a_breath_between():
    seen: list[str | int] = []
    with Harness(Emotion(max_batch=4, smoothing=0)) as harness:
        classify = harness.node._classify
        harness.node._classify = lambda patches: seen.append(len(patches)) or classify(patches)
        harness.node._breathe = lambda: seen.append("breath")
        [out] = harness.push(regions=[region("happy", n) for n in range(10)])
        assert seen == [4, "breath", 4, "breath", 2]
        assert all(r.label == "happy" for r in out.regions)
        harness.node.stopping.set()  # the graph ends: what is on its way is still classified
        [out] = harness.push(regions=[region("happy", n) for n in range(10)])
        assert all(r.label == "happy" for r in out.regions)


def work(harness: Harness, seconds: float, rest: float, calls: int, lossless: bool = False) -> list[str]:
    """Calls that take so long each, with a rest after each; what was warned of."""
    harness.node.lossless = lossless

    def classify(faces: np.ndarray) -> np.ndarray:
        harness.clock += seconds
        return np.full((len(faces), 7), 1 / 7, np.float32)

    harness.node._classify = classify
    for _ in range(calls):
        harness.push(regions=[region("happy", track=None)])
        harness.clock += rest
    return [text for level, text in harness.logs if level == "warning"]


def test_a_network_that_never_rests_is_told_once_with_what_helps():
    with Harness(Emotion(weights="resnet9-s")) as harness:
        assert work(harness, 0.2, 0.02, 100) == []  # 91 %
        [told] = work(harness, 0.2, 0.001, 200)
    assert told.startswith("the network works without a pause")
    assert "resnet9-s" not in told
    assert "reclassify_interval: 200ms" in told
    with Harness(Emotion(weights="resnet9", reclassify_interval=1)) as harness:
        [told] = work(harness, 0.2, 0.0, 60)
    assert "resnet9-s is a quarter of the work" in told
    assert "reclassify_interval" not in told


@pytest.mark.parametrize(
    ("properties", "said"),
    [({}, True), ({"backend": "onnxruntime"}, True), ({"backend": "torch"}, False), ({"precision": "int8"}, False)],
)
def test_who_could_compute_in_int8_is_told(properties: dict, said: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "cpu_computes_in", lambda _: True)
    with Harness(Emotion(weights="resnet9-s", device="cpu", **properties)) as harness:
        [told] = work(harness, 0.2, 0.0, 60)
    assert ("precision: int8 is faster" in told) == said
    monkeypatch.setattr(backends, "cpu_computes_in", lambda precision: precision == "fp32")
    with Harness(Emotion(weights="resnet9-s", device="cpu")) as harness:
        assert "int8" not in work(harness, 0.2, 0.0, 60)[0]


def test_a_network_may_work_without_a_pause_where_no_frame_is_dropped_for_it():
    with Harness(Emotion()) as harness:
        assert work(harness, 0.2, 0.0, 100, lossless=True) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match="mood: device is 'cuda:0', but torch finds no usable GPU"):
        Harness(Emotion(name="mood", device="cuda:0"))


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:0"])
def test_a_device_that_does_not_exist_is_refused_before_the_start(device: str):
    with pytest.raises(GraphError, match="property 'device' of emotion"):
        Emotion(device=device)


def test_missing_weights_are_one_line(tmp_path: Path):
    with pytest.raises(UserError, match=r"nosuch\.safetensors"):
        Harness(Emotion(weights=str(tmp_path / "nosuch.safetensors")))


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "openvino"])
def test_weights_that_overflow_are_refused_at_the_start(tmp_path: Path, backend: str):
    model = ResNet9(width=4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.fill_(6e4)  # finite, in fp16 too
    path = tmp_path / "huge.safetensors"
    save_weights(path, model.state_dict(), Header(width=4))
    with pytest.raises(UserError, match=r"^mood: .*huge\.safetensors gives probabilities that are no numbers"):
        Harness(Emotion(name="mood", weights=str(path), backend=backend))


def test_an_answer_that_is_no_number_later_on_stops_with_one_line():
    with Harness(Emotion(name="mood")) as harness:
        harness.node._classify = lambda faces: np.full((len(faces), 7), np.nan, np.float32)
        with pytest.raises(UserError, match=r"^mood: resnet9.* gives probabilities that are no numbers: it is broken$"):
            harness.push(regions=[region("happy")])


def test_most_class_means_are_read_as_their_class(plain: Harness):
    [out] = plain.push(regions=[region(label) for label in LABELS])
    right = sum(r.label == label for r, label in zip(out.regions, LABELS, strict=True))
    assert right >= 5
