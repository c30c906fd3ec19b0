import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nodes.emotion.model import ResNet9, fuse
from nodes.emotion.weights import (
    Header,
    WeightsError,
    available,
    find_weights,
    load_weights,
    read_header,
    save_weights,
)
from nodes.preprocess import LABELS

torch.set_num_threads(1)  # two threads that wait for each other crawl on a busy machine


@pytest.fixture
def net() -> ResNet9:
    """A small network with batch norms that are not the identity."""
    torch.manual_seed(0)
    model = ResNet9(width=4).train()
    for _ in range(3):
        model(torch.randint(0, 256, (16, 48, 48), dtype=torch.uint8))
    return model.eval()


@pytest.fixture
def saved(net: ResNet9, tmp_path: Path) -> Path:
    path = tmp_path / "some.safetensors"
    save_weights(path, net.state_dict(), Header(width=4, temperature=1.25, metrics={"public_accuracy": 0.5}))
    return path


def faces(count: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (count, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_the_full_width_has_the_designs_number_of_parameters() -> None:
    assert sum(p.numel() for p in ResNet9(64).parameters()) == 6_570_439


def test_both_input_shapes_give_the_same_logits(net: ResNet9) -> None:
    assert torch.equal(net(faces()), net(faces().unsqueeze(1)))
    assert net(faces()).shape == (5, len(LABELS))


def test_every_corner_of_the_last_map_counts() -> None:
    """`MaxPool2d(4)` on the 6x6 map would not see its last two rows and columns."""
    net = ResNet9(width=4).eval()
    for row, column in ((0, 0), (0, 5), (5, 0), (5, 5)):
        peak = torch.zeros(1, 32, 6, 6)
        peak[0, :, row, column] = 1
        net.features = torch.nn.Sequential()
        net.features.forward = lambda _, peak=peak: peak  # type: ignore[method-assign]
        assert net.embed(faces(1)).min() == 1


def test_the_network_normalises(net: ResNet9) -> None:
    shifted = ResNet9(width=4, mean=0.0, std=1.0).eval()
    shifted.load_state_dict(net.state_dict())
    assert not torch.allclose(net(faces()), shifted(faces()))


def test_fused_answers_the_same_without_batch_norms(net: ResNet9) -> None:
    fused = fuse(net)
    torch.testing.assert_close(fused(faces()), net(faces()), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())


def test_what_is_saved_is_loaded(net: ResNet9, saved: Path) -> None:
    loaded, header = load_weights(saved)
    torch.testing.assert_close(loaded(faces()), net(faces()), rtol=2e-2, atol=2e-2)
    assert not loaded.training
    assert (header.width, header.temperature, header.metrics["public_accuracy"]) == (4, 1.25, 0.5)
    assert all(tensor.dtype == torch.float16 for tensor in load_file(saved).values())


def change_header(path: Path, **changes: object) -> None:
    header = json.loads(read_header(path).model_dump_json()) | changes
    save_file(load_file(path), path, {"emograph": json.dumps(header)})


def change_preprocess(path: Path, **changes: object) -> None:
    change_header(path, preprocess=json.loads(read_header(path).model_dump_json())["preprocess"] | changes)


def change_tensors(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"emograph": Header(width=4).model_dump_json()})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), "no weights file"),
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "cut off"),
        (lambda p: p.write_bytes(b""), "cut off"),
        (lambda p: p.write_bytes(b"\x80\x04" + b"pickle" * 99), "not a safetensors"),
        (lambda p: save_file(load_file(p), p), "no emograph header"),
        (lambda p: save_file(load_file(p), p, {"emograph": "{"}), "bad header"),
        (lambda p: change_header(p, colour="red"), "bad header, colour"),
        (lambda p: change_header(p, format_version=2), "format 2"),
        (lambda p: change_header(p, format_version=2, quantised="int4"), "format 2"),
        (lambda p: change_header(p, architecture="vgg13"), "'vgg13'"),
        (lambda p: change_header(p, labels=["happy", "sad"]), "labels happy, sad"),
        (lambda p: change_header(p, width=8), "shape .* instead of"),
        (lambda p: change_header(p, temperature=0), "temperature"),
        (lambda p: change_header(p, temperature=1e-300), "temperature: it must be at least 0.01"),
        (lambda p: change_header(p, temperature=math.inf), "temperature"),
        (lambda p: change_header(p, temperature=math.nan), "temperature"),
        (lambda p: change_preprocess(p, size=0), "preprocess.size: it must be at least 8"),
        (lambda p: change_preprocess(p, size=-8), "preprocess.size"),
        (lambda p: change_preprocess(p, size=47), "preprocess.size: .* multiple of 8"),
        (lambda p: change_preprocess(p, size=1_000_000), "preprocess.size"),
        (lambda p: change_preprocess(p, mean=math.inf), "preprocess.mean: .* finite"),
        (lambda p: change_preprocess(p, std=0), "preprocess.std: it must be more than 0"),
        (lambda p: change_preprocess(p, std=-0.5), "preprocess.std"),
        (lambda p: change_preprocess(p, std=math.nan), "preprocess.std"),
        (lambda p: change_preprocess(p, margin=-9), "preprocess.margin: it must be more than -0.5"),
        (lambda p: change_preprocess(p, margin=math.inf), "preprocess.margin"),
        (lambda p: change_preprocess(p, colour="red"), "preprocess.colour"),
        (lambda p: change_tensors(p, lambda t: t.pop("classifier.bias")), "lacks classifier.bias"),
        (lambda p: change_tensors(p, lambda t: t.update(extra=torch.ones(1))), "not know: extra"),
        (lambda p: change_tensors(p, lambda t: t["classifier.bias"].fill_(torch.nan)), "not finite"),
        (lambda p: change_tensors(p, lambda t: t["features.0.1.running_var"].sub_(9)), "0.1.running_var has variances"),
    ],
)
def test_each_damage_is_one_line_that_names_the_file(saved: Path, damage, message: str) -> None:
    damage(saved)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_not_written(net: ResNet9, tmp_path: Path) -> None:
    state = net.state_dict()
    state["classifier.bias"][0] = 1e9
    with pytest.raises(WeightsError, match="fp16"):
        save_weights(tmp_path / "bad.safetensors", state, Header(width=4))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(WeightsError, match="did you mean 'resnet9"):
        find_weights("resnett9-s")
    with pytest.raises(WeightsError, match=r"^no weights are called ''; known: resnet9, resnet9-s$"):
        find_weights("")


def test_a_path_is_taken_as_a_shell_would(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(saved.parent))
    assert find_weights(f"~/{saved.name}") == saved
    with pytest.raises(WeightsError, match=f"^no weights file at {saved.parent}/none.safetensors$"):
        find_weights("~/none.safetensors")
    with pytest.raises(WeightsError, match="^cannot read .*: File name too long$"):
        find_weights("x" * 300)


def test_describing_weights_needs_no_torch() -> None:
    code = (
        "import sys; from nodes.emotion.weights import available, read_header\n"
        "[read_header(name) for name in available()]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", available())
def test_packaged_weights_read_most_drawn_faces_as_what_they_are(name: str, class_faces: np.ndarray) -> None:
    net, header = load_weights(name)
    assert header.metrics["public_accuracy"] > 0.6
    # The means of all fears and of all neutral faces show little; people read other things into them too.
    guesses = net(torch.from_numpy(class_faces)).argmax(dim=1).tolist()
    assert sum(guess == label for label, guess in enumerate(guesses)) >= 5


def test_a_small_set_is_packaged() -> None:
    assert "resnet9-s" in available()


@pytest.fixture
def class_faces() -> np.ndarray:
    import cv2

    import nodes

    strip = cv2.imread(str(Path(nodes.__file__).parent / "testsrc_faces.png"), cv2.IMREAD_GRAYSCALE)
    assert strip is not None
    return np.stack(np.split(strip, len(LABELS), axis=1))
