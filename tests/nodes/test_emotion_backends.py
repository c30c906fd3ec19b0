"""Each back end gives the network's answers; choosing one, and what is said where it cannot be had."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.numpy import save_file

from nodes.emotion import backends
from nodes.emotion.architecture import parameter_shapes
from nodes.emotion.backends import FASTEST_FIRST, PART, cpu_computes_in, load, on_cuda, parts, spare_threads
from nodes.emotion.backends.on_cuda import CudaBackend, bucket_sizes
from nodes.emotion.graph import build
from nodes.emotion.layers import Int8Layers, Value, fold
from nodes.emotion.model import ResNet9
from nodes.emotion.node import Emotion
from nodes.emotion.weights import available, load_weights, read_tensors
from nodes.preprocess import LABELS
from pipeline import GraphError, Harness, UserError
from tests.support.graphs import ROOT

STRIP = cv2.imread(str(ROOT / "nodes/testsrc_faces.png"), cv2.IMREAD_GRAYSCALE)


def faces(count: int = 64) -> np.ndarray:
    """Half of them faces (shifted and lit in different ways), half noise; uint8 (count, 48, 48)."""
    rng = np.random.default_rng(3)
    drawn = [
        np.roll(STRIP[:, 48 * (i % 7) : 48 * (i % 7 + 1)], i // 7 - 2, axis=1) // (1 + i % 3) for i in range(count)
    ]
    noise = rng.integers(0, 256, (count, 48, 48), np.uint8)
    return np.where(np.arange(count)[:, None, None] % 2 == 0, np.stack(drawn), noise).astype(np.uint8)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """The trained network by the plain way: unfused, all faces in one call."""
    model, header = load_weights("resnet9-s")
    with torch.inference_mode():
        return (model(torch.from_numpy(faces())) / header.temperature).softmax(1).numpy()


@pytest.mark.parametrize("name", FASTEST_FIRST)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_back_end_gives_the_networks_answers_at_every_batch_size(name: Any, threads: int, truth: np.ndarray):
    run = load("resnet9-s", name, "cpu", threads=threads)
    assert f"{name}, fp32, {threads} thread" in run.where
    assert truth.max(axis=1).mean() < 0.95  # answers that could differ, not all of them certain
    for count in (1, 2, 7, 64):
        got = run(faces()[:count])
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, truth[:count], atol=1e-4)


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_bf16_is_near_and_gives_the_same_labels(name: Any, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "cpu_computes_in", lambda _: True)  # others compute in it too, only slowly
    got = load("resnet9-s", name, "cpu", "bf16")(faces())
    assert np.abs(got - truth).max() < 0.05
    assert (got.argmax(1) == truth.argmax(1)).mean() > 0.95


@pytest.mark.skipif(not cpu_computes_in("int8"), reason="this CPU has no VNNI: its sums in int8 are wrong")
@pytest.mark.parametrize("weights", available())
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_int8_is_near_and_gives_the_same_labels(name: Any, weights: str):
    real = faces()[::2]  # noise drives activations to where no face does
    full, got = (load(weights, name, "cpu", precision)(real) for precision in ("fp32", "int8"))
    assert 1e-4 < np.abs(got - full).max() < 0.1
    assert (got.argmax(1) == full.argmax(1)).mean() > 0.95


def test_in_int8_all_layers_but_the_first_multiply_whole_numbers():
    tensors, header = read_tensors("resnet9-s")
    model = build(tensors, header, "int8")
    onnx.checker.check_model(model, full_check=True)
    kinds = {constant.name: constant.data_type for constant in model.graph.initializer}
    made = {node.output[0]: node for node in model.graph.node}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 8
    for convolution in convolutions[1:]:
        x, weight, bias = (made[name] for name in convolution.input)
        assert made[x.input[0]].op_type == "QuantizeLinear"
        assert (kinds[weight.input[0]], kinds[bias.input[0]]) == (onnx.TensorProto.INT8, onnx.TensorProto.INT32)


def test_in_int8_a_channel_without_weights_still_has_its_bias():
    tensors = read_tensors("resnet9-s")[0]
    tensors["features.3.0.weight"][:7] = 0
    rounded = Int8Layers(tensors)
    rounded.convolution(Value("x", step=0.01, scale="s"), "features.3")
    by_name = {constant.name: numpy_helper.to_array(constant) for constant in rounded.constants}
    [conv] = [node for node in rounded.nodes if node.op_type == "Conv"]
    [node] = [node for node in rounded.nodes if node.output[0] == conv.input[2]]
    whole, steps = (by_name[name] for name in node.input[:2])
    wanted = fold(tensors, "features.3")[1]
    assert np.abs(wanted[:7]).max() > 0.01
    np.testing.assert_allclose(whole[:7].astype(float) * steps[:7], wanted[:7], rtol=1e-5)


def test_an_answer_is_not_overwritten_by_the_next_call():
    for name in FASTEST_FIRST:
        run = load("resnet9-s", name, "cpu")
        first = run(faces(2))
        kept = first.copy()
        run(faces(64)[10:12])
        np.testing.assert_array_equal(first, kept)


def test_the_table_of_the_architecture_is_the_networks():
    state = ResNet9(width=8).state_dict()
    shapes = {name: tuple(t.shape) for name, t in state.items() if t.is_floating_point()}
    assert list(shapes.items()) == list(parameter_shapes(8, len(LABELS)).items())


def test_the_graph_is_a_valid_onnx_model_and_carries_the_header():
    tensors, header = read_tensors("resnet9-s")
    model = build(tensors, header)
    onnx.checker.check_model(model, full_check=True)
    assert {p.key: p.value for p in model.metadata_props} == {"emograph": header.model_dump_json()}


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_without_torch_without_network_and_without_a_trace(name: str, tmp_path: Path):
    """The light back ends never import torch; openvino's telemetry would fork, connect and write to the home."""
    code = f"""
import os, sys, threading
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event in
                 ("socket.connect", "socket.getaddrinfo", "os.fork", "os.posix_spawn", "subprocess.Popen") else None)
from nodes.emotion.node import Emotion
from pipeline import Harness, Region
import numpy as np
with Harness(Emotion(backend="{name}")) as harness:
    [out] = harness.push(regions=[Region((0, 0, 9, 9), patch=np.zeros((48, 48), np.uint8))])
assert out.regions[0].raw and "{name}" in harness.logs[0][1]
assert not seen, seen
assert "torch" not in sys.modules
assert not os.listdir(os.environ["HOME"])
"""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=False, timeout=200)
    assert done.returncode == 0


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """As if these packages were not installed."""
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    for name in FASTEST_FIRST:
        monkeypatch.delitem(sys.modules, f"nodes.emotion.backends.on_{name}", raising=False)
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name in packages else find_spec(name))


@pytest.mark.parametrize(
    ("missing", "precision", "taken"),
    [
        ((), "auto", FASTEST_FIRST[0]),
        (("openvino",), "auto", "onnxruntime"),
        (("openvino", "onnxruntime"), "fp32", "torch"),
        (("openvino",), "bf16", "torch, bf16"),
        ((), "int8", "openvino, int8"),
        (("openvino",), "int8", "onnxruntime, int8"),
    ],
)
def test_auto_takes_the_fastest_that_is_there(missing, precision: Any, taken: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "cpu_computes_in", lambda _: True)
    without(monkeypatch, *missing)
    warnings: list[str] = []
    assert taken in load("resnet9-s", device="cpu", precision=precision, warn=warnings.append).where
    assert warnings == []


def test_auto_says_so_when_an_installed_one_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "openvino.py").write_text("raise ImportError('libtbb.so.12: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("openvino", "nodes.emotion.backends.on_openvino"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    warnings: list[str] = []
    assert "onnxruntime" in load("resnet9-s", device="cpu", warn=warnings.append).where
    assert len(warnings) == 1
    assert "backend 'openvino' cannot be loaded (libtbb.so.12" in warnings[0]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("openvino", r"mood: backend 'openvino' needs the package openvino: pip install openvino,"),
        ("onnx", r"mood: backend 'openvino' needs the package onnx: pip install"),
    ],
)
def test_a_named_one_that_is_missing_is_one_line_with_the_cure(missing: str, message: str, monkeypatch):
    monkeypatch.delitem(sys.modules, "nodes.emotion.graph", raising=False)
    without(monkeypatch, missing)
    with pytest.raises(UserError, match=message) as caught:
        Harness(Emotion(name="mood", backend="openvino"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"backend": "tensorflow"}, "property 'backend' of emotion"),
        ({"backend": "openvino", "device": "cuda"}, "runs on the CPU, and device is 'cuda'"),
        (
            {"backend": "onnxruntime", "precision": "bf16"},
            "'onnxruntime' computes in fp32 and int8 alone: use backend: op",
        ),
        ({"backend": "torch", "precision": "int8"}, "'torch' computes in fp32 and bf16 alone: use backend: openvino"),
        ({"device": "cuda:0", "precision": "int8"}, "precision 'int8' is for CPUs, and device is 'cuda:0'"),
        ({"precision": "int4"}, "property 'precision' of emotion"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_before_the_start(properties: dict[str, str], message: str):
    with pytest.raises(GraphError, match=message):
        Emotion(**properties)


@pytest.mark.parametrize(("precision", "lacks"), [("bf16", "no avx512_bf16"), ("int8", "no VNNI")])
def test_a_precision_on_a_cpu_without_it_is_one_line(precision: str, lacks: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "cpu_computes_in", lambda wanted: wanted == "fp32")
    message = f"mood: precision is '{precision}', but this CPU does not compute in it ({lacks}): use precision: auto"
    with pytest.raises(UserError, match=re.escape(message)):
        Harness(Emotion(name="mood", precision=precision, device="cpu"))


def test_int8_leaves_a_gpu_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "cpu_computes_in", lambda _: True)
    monkeypatch.setattr(backends, "_may_have_gpu", lambda: True)
    monkeypatch.setattr(backends, "_on_gpu", lambda *_: pytest.fail("the GPU was asked"))
    assert "int8" in load("resnet9-s", precision="int8").where


def test_what_the_cpu_computes_in_is_what_torch_says():
    if torch.cpu._is_vnni_supported():  # it knows of that of AVX-512 alone
        assert cpu_computes_in("int8")
    ours = cpu_computes_in("bf16")
    assert ours == bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@pytest.mark.parametrize(
    ("flags", "bf16", "int8"),
    [
        ("avx avx2 fma", False, False),
        ("avx512f avx512bw avx512_vnni", False, True),
        ("avx2 avx_vnni", False, True),
        ("avx512_bf16 avx512_vnni", True, True),
        ("amx_bf16 amx_tile amx_int8", True, True),
        ("fp asimd asimddp", False, True),
        ("fp asimd", False, False),
    ],
)
def test_a_cpu_computes_in_what_its_flags_say(
    flags: str, bf16: bool, int8: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "cpuinfo").write_text(f"model name\t: avx_vnniless\nflags\t\t: {flags}\n")
    monkeypatch.setattr(backends, "_CPUINFO", tmp_path / "cpuinfo")
    assert (cpu_computes_in("fp32"), cpu_computes_in("bf16"), cpu_computes_in("int8")) == (True, bf16, int8)


@pytest.mark.parametrize("name", FASTEST_FIRST)
def test_threads_are_as_many_as_pay(name: Any, monkeypatch: pytest.MonkeyPatch):
    for cores, threads in ((1, 1), (2, 2), (16, 4)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        wanted = 1 if name == "torch" else threads
        assert f"{wanted} thread" in load("resnet9-s", name, "cpu", threads=None).where


@pytest.mark.parametrize(("lossless", "threads"), [(False, 1), (True, spare_threads())])
def test_a_lossless_graph_uses_the_cores_that_its_detector_leaves(lossless: bool, threads: int):
    with Harness(Emotion(device="cpu", backend="openvino"), lossless=lossless) as harness:
        assert f"{threads} thread" in str(harness.logs)
    with Harness(Emotion(device="cpu", backend="openvino", threads=3), lossless=lossless) as harness:
        assert "3 threads" in str(harness.logs)


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(1, 8, [1]), (8, 8, [8]), (9, 8, [8, 1]), (64, 30, [30, 30, 4]), (0, 8, [])]
)
def test_parts_cover_all_in_order(count: int, size: int, lengths: list[int]):
    found = [list(range(count))[part] for part in parts(count, size)]
    assert [len(p) for p in found] == lengths
    assert list(chain(*found)) == list(range(count))
    assert PART == 8  # the batch sizes above are on both sides of it


@pytest.mark.parametrize(
    ("max_batch", "sizes"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (48, (1, 2, 4, 8, 16, 32, 48))]
)
def test_batch_sizes_that_a_gpu_prepares_for(max_batch: int, sizes: tuple[int, ...]):
    assert bucket_sizes(max_batch) == sizes


class Nothing:
    """A stream or an event of a machine without a GPU, where all is done at once."""

    def __init__(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
        pass

    wait_event = record = lambda self, _: None


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch):
    """What the GPU's way calls of CUDA does nothing, so that it runs on the CPU."""
    for name in ("Stream", "Event"):
        monkeypatch.setattr(torch.cuda, name, Nothing)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")


@pytest.mark.usefixtures("without_cuda")
@pytest.mark.parametrize("count", [1, 3, 4, 5, 17])
def test_the_gpu_way_pads_splits_and_joins(count: int, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    """Its staging, buckets and parts, on the CPU and without graphs: what a GPU does is not shown by this."""
    run = CudaBackend("resnet9-s", torch.device("cpu"), "fp32", max_batch=4, graphs=False)
    widths: list[int] = []
    compute = run._probabilities
    monkeypatch.setattr(run, "_probabilities", lambda x: widths.append(len(x)) or compute(x))
    np.testing.assert_allclose(run(faces()[:count]), truth[:count], atol=1e-4)
    assert widths == [4] * (count // 4) + [{1: 1, 2: 2, 3: 4}[rest] for rest in [count % 4] if rest]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize(("precision", "apart"), [("fp32", 1e-3), ("bf16", 0.05)])
@pytest.mark.parametrize("graphs", [True, False])
def test_a_gpu_gives_the_networks_answers(precision: Any, apart: float, graphs: bool, truth: np.ndarray):
    warnings: list[str] = []
    run = CudaBackend("resnet9-s", torch.device("cuda", 0), precision, 16, graphs, warnings.append)
    for count in (1, 2, 7, 16, 17, 64, 64):
        assert np.abs(run(faces()[:count]) - truth[:count]).max() < apart
    assert warnings == []


def test_a_gpu_is_asked_for_only_where_there_is_a_driver(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(on_cuda, "find_device", lambda wanted: asked.append(wanted))
    for driver, times in ((str(ROOT / "nosuch"), 0), (str(ROOT), 1)):
        monkeypatch.setattr(backends, "_GPU_DRIVERS", (driver,))
        load("resnet9-s")
        assert len(asked) == times
    load("resnet9-s", device="cpu")
    assert len(asked) == 1


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: busy\nmore"), torch.OutOfMemoryError("2 GiB")])
def test_a_gpu_that_cannot_be_used_is_one_line_or_left_alone(error: Exception, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(backends, "_may_have_gpu", lambda: True)
    monkeypatch.setattr(on_cuda, "find_device", lambda _: torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "Stream", fail)
    wanted = r"the GPU cpu (has no memory left for the network|cannot be used: CUDA error: busy)"
    with pytest.raises(UserError, match=wanted + "; use device: cpu, or auto$"):
        load("resnet9-s", device="cuda")
    warnings: list[str] = []
    assert "on a GPU" not in load("resnet9-s", warn=warnings.append).where
    [told] = warnings
    assert re.fullmatch(wanted + "; the network runs on the CPU", told)


@pytest.mark.usefixtures("without_cuda")
@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="this torch does not tell a device's errors apart")
def test_a_gpu_that_fails_later_on_ends_the_process(monkeypatch: pytest.MonkeyPatch):
    run = CudaBackend("resnet9-s", torch.device("cpu"), "fp32", max_batch=4, graphs=False)

    def fail(_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(run, "_probabilities", fail)
    with pytest.raises(SystemExit, match="^the GPU cpu failed: CUDA error: an illegal memory access was encountered$"):
        run(faces()[:3])


@pytest.mark.usefixtures("without_cuda")
@pytest.mark.parametrize("code", [None, 901, 700])
def test_sizes_without_a_graph_are_launched_kernel_by_kernel(
    truth: np.ndarray, monkeypatch: pytest.MonkeyPatch, code: int | None
):
    """code: CUDA's own of a failed capture, which torch tells as a device's error; 700 is one of the device indeed."""
    error: Exception = RuntimeError("capture is not permitted")
    if code is not None:
        if not hasattr(torch, "AcceleratorError"):
            pytest.skip("this torch does not tell a device's errors apart")
        error = torch.AcceleratorError("capture is not permitted")
        error.error_code = code

    class Graph:
        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None:
            raise error

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Graph)
    for name in ("set_stream", "default_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda _: None)
    warnings: list[str] = []
    if code == 700:
        with pytest.raises(UserError, match="capture is not permitted"):
            CudaBackend("resnet9-s", torch.device("cpu"), "fp32", max_batch=4, warn=warnings.append)
        return
    run = CudaBackend("resnet9-s", torch.device("cpu"), "fp32", max_batch=4, warn=warnings.append)
    assert warnings == ["no CUDA graphs, which is slower: capture is not permitted"]
    np.testing.assert_allclose(run(faces()[:7]), truth[:7], atol=1e-4)


@pytest.mark.parametrize(("wanted", "found"), [("auto", 1), ("cuda", 1), ("cuda:0", 0), ("cuda:01", 1)])
def test_gpus_are_counted_as_numbers(wanted: str, found: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert on_cuda.find_device(wanted) == torch.device("cuda", found)
    for index in (2, 128, 256):
        with pytest.raises(UserError, match=f"device is 'cuda:{index}', but there are 2 GPUs"):
            on_cuda.find_device(f"cuda:{index}")


def test_weights_of_a_foreign_type_are_one_line(tmp_path: Path):
    from nodes.emotion.weights import WeightsError

    tensors, header = read_tensors("resnet9-s")
    tensors = {**tensors, "classifier.bias": np.zeros(len(LABELS), np.int64)}
    path = tmp_path / "int.safetensors"
    save_file(tensors, path, {"emograph": header.model_dump_json()})
    with pytest.raises(WeightsError, match=r"int\.safetensors: classifier\.bias is stored as I64"):
        read_tensors(path)
