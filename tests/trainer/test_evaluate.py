import json
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
import torch

import nodes
from nodes.emotion.backends import cpu_computes_in
from nodes.emotion.model import ResNet9
from nodes.emotion.weights import Header, available, find_weights, load_weights, read_header
from nodes.preprocess import LABELS, Preprocess, preprocess
from pipeline.errors import UserError
from trainer.card import FER2013_DIGEST, Entry, card, names_on_card, write_card
from trainer.class_means import class_faces
from trainer.console import print_evaluation
from trainer.dataset import FaceSet
from trainer.evaluate import evaluate
from trainer.export import export_onnx
from trainer.folders import PUBLIC, TRAINING
from trainer.metrics import expected_calibration_error, figures, nll
from trainer.predict import VIEWS, _views, predict_logits, probabilities
from trainer.through_detector import BORDER, ENLARGED, find_faces, in_a_frame


@pytest.fixture(scope="module")
def drawn() -> FaceSet:
    """The synthetic camera's seven faces, one a class."""
    strip = cv2.imread(str(Path(nodes.__file__).parent / "testsrc_faces.png"), cv2.IMREAD_GRAYSCALE)
    assert strip is not None
    images = np.stack(np.split(strip, len(LABELS), axis=1))
    return FaceSet(Path("drawn"), images, np.arange(7), np.full(7, PUBLIC), np.arange(7))


@pytest.fixture(scope="module")
def net() -> ResNet9:
    torch.manual_seed(0)
    return ResNet9(width=4).eval()


def test_each_level_has_its_views(net: ResNet9, drawn: FaceSet) -> None:
    for tta, count in VIEWS.items():
        assert predict_logits(net, drawn.images, tta).shape == (count, 7, 7)


def test_ten_crops_are_the_corners_the_centre_and_their_mirror_images(drawn: FaceSet) -> None:
    images = torch.from_numpy(drawn.images)
    views = list(_views(images, "ten-crop"))
    for place, (top, left) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]):
        crop = images[:, None, top : top + 44, left : left + 44].float()
        wanted = torch.nn.functional.interpolate(crop, (48, 48), mode="bilinear")
        assert torch.equal(views[2 * place], wanted)
        assert torch.equal(views[2 * place + 1], wanted.flip(-1))


def test_flip_tta_does_not_care_which_way_a_face_looks(net: ResNet9, drawn: FaceSet) -> None:
    straight = probabilities(predict_logits(net, drawn.images, "flip"))
    mirrored = probabilities(predict_logits(net, np.ascontiguousarray(drawn.images[:, :, ::-1]), "flip"))
    np.testing.assert_allclose(straight, mirrored, atol=1e-5)
    assert not np.allclose(straight, probabilities(predict_logits(net, drawn.images)), atol=1e-5)


def test_the_frame_holds_the_picture_where_it_says() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 2)
    frame = in_a_frame(image)
    back = preprocess(frame, (BORDER, BORDER, ENLARGED, ENLARGED), Preprocess(margin=0))
    assert np.abs(back.astype(int) - image).max() <= 3


def test_every_drawn_face_is_found_and_cut_much_as_it_was(drawn: FaceSet) -> None:
    found = find_faces(drawn.images)
    assert found.index.tolist() == list(range(7))
    for image, patch in zip(drawn.images, found.patches, strict=True):
        assert np.corrcoef(image.ravel(), patch.ravel())[0, 1] > 0.8


def test_where_there_is_no_face_none_is_found(net: ResNet9) -> None:
    grey = FaceSet(Path("grey"), np.full((2, 48, 48), 90, np.uint8), np.zeros(2, int), np.full(2, PUBLIC), np.arange(2))
    through = evaluate(net, Header(width=4), grey, PUBLIC, through_detector=True).through_detector
    assert through is not None
    assert (through.count, through.found, through.found_rate) == (2, 0, 0.0)


def test_faces_are_looked_for_once_for_all_the_networks_on_a_card(
    drawn: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr("trainer.card.find_faces", lambda *given: calls.append(given) or find_faces(*given))
    names: dict[str, str | Path] = {"one": "resnet9-s", "two": "resnet9-s"}
    write_card(tmp_path / "CARD.md", names, drawn, PUBLIC, "cpu")
    assert len(calls) == 1
    assert (tmp_path / "CARD.md").read_text().count("Through the detector") == 2


def test_an_evaluation_is_json_and_fills_the_card(
    net: ResNet9, drawn: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = evaluate(net, Header(width=4, temperature=2.0), drawn, PUBLIC, through_detector=True)
    again = json.loads(json.dumps(result.as_json()))
    assert again["figures"].keys() == VIEWS.keys()
    assert again["calibration"]["temperature"] == 2.0
    assert again["through_detector"]["found"] == 7
    monkeypatch.setattr("trainer.card.FER2013", {PUBLIC: len(drawn)})
    flip = f"{result.figures['flip'].accuracy:.2%}"
    common = "`tiny`", "a trial", flip, "Article 5(1)(f)", "Demographics"
    learnt = "fitted on PublicTest", "28,709", "under Apache-2.0", "436 Training faces"
    own = "fitted on the faces kept for it", "Other pictures than Kaggle's", "Who made the pictures decides"
    measured, elsewhere = "Accuracy on PublicTest", f"Accuracy on {len(drawn)} faces of `val`"
    for digest, expected, other in ((FER2013_DIGEST, learnt, own), ("ab" * 32, own, learnt)):
        header = Header(width=4, recipe={"description": "a trial"}, data_hash=digest)
        for faces, where, not_there in ((len(drawn), measured, elsewhere), (3589, elsewhere, measured)):
            monkeypatch.setattr("trainer.card.FER2013", {PUBLIC: faces})
            text = card([Entry("tiny", header, result, 1000)])
            assert [part for part in (*common, *expected, where) if part not in text] == []
            assert [part for part in (*other, not_there) if part in text] == []
            assert ("The figures above are of other faces" in text) == (expected is learnt and where is elsewhere)


def test_where_no_face_is_found_there_is_no_accuracy(net: ResNet9, drawn: FaceSet, capsys: pytest.CaptureFixture[str]):
    noise = np.random.default_rng(1).integers(0, 255, (3, 48, 48), np.uint8)
    nobody = FaceSet(drawn.source, noise, drawn.labels[:3], drawn.splits[:3], drawn.rows[:3])
    result = evaluate(net, Header(width=4), nobody, PUBLIC, through_detector=True)
    assert result.through_detector is not None
    assert (result.through_detector.found, result.through_detector.accuracy) == (0, None)
    print_evaluation(result)
    assert "through the detector: found none of 3" in capsys.readouterr().out
    assert "none of 3 faces was found" in card([Entry("tiny", Header(width=4), result, 1000)])


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("precision", "apart"), [("fp32", 1e-4), ("int8", 0.1)])
def test_the_onnx_file_answers_as_torch_does(
    tmp_path: Path, drawn: FaceSet, count: int, precision: Literal["fp32", "int8"], apart: float
) -> None:
    if not cpu_computes_in(precision):
        pytest.skip("this CPU has no VNNI: its sums in int8 are wrong")
    onnxruntime = pytest.importorskip("onnxruntime")
    net, header = load_weights("resnet9-s")
    path = tmp_path / "net.onnx"
    export_onnx(net, header, path, precision)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"faces": drawn.images[:count, None]})
    ours = probabilities(predict_logits(net, drawn.images[:count]), header.temperature)
    np.testing.assert_allclose(theirs, ours, atol=apart)
    stored = session.get_modelmeta().custom_metadata_map["emograph"]
    assert Header.model_validate_json(stored).labels == LABELS


def test_export_to_a_place_that_cannot_be_written(net: ResNet9, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        export_onnx(net, Header(width=4), tmp_path / "file" / "net.onnx")


def test_class_faces_leave_blank_pictures_out(faces: FaceSet) -> None:
    training = faces.split(TRAINING)
    images = training.images.copy()
    images[:7] = 0
    blanked = FaceSet(training.source, images, training.labels, training.splits, training.rows)
    result = class_faces(blanked)
    assert result.shape == (7, 48, 48)
    assert np.array_equal(result, class_faces(training.take(np.arange(7, len(training)))))


def test_networks_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    files = [tmp_path / place for place in ("a/weights.safetensors", "b/weights.safetensors", "c/mine.safetensors")]
    for file in files:
        file.parent.mkdir()
        file.touch()
    assert list(names_on_card(list(map(str, files)))) == ["a", "b", "mine"]
    assert list(names_on_card(["resnet9-s", str(files[0])])) == ["resnet9-s", "a"]
    with pytest.raises(UserError, match="would both be 'a' on the card"):
        names_on_card([str(files[0]), str(files[0])])


@pytest.mark.parametrize("name", available())
def test_the_card_in_the_docs_is_what_the_trainer_writes(
    name: str, net: ResNet9, drawn: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the measured figures, which need the data set."""
    header = read_header(name)
    entry = Entry(name, header, evaluate(net, header, drawn, PUBLIC), find_weights(name).stat().st_size)
    written = (Path(nodes.__file__).parents[1] / "docs" / "MODEL_CARD.md").read_text().splitlines()
    figures = ("| ", "Calibration:", "Through the detector")
    monkeypatch.setattr("trainer.card.FER2013", {PUBLIC: len(drawn)})
    text = card([entry])
    assert [line for line in text.splitlines() if line not in written and not line.startswith(figures)] == []


def test_calibration_is_before_and_after_the_temperature(faces: FaceSet) -> None:
    torch.manual_seed(0)
    net, public = ResNet9(width=4).eval(), faces.split(PUBLIC)
    evaluation = evaluate(net, Header(width=4, temperature=3.0), public, PUBLIC)
    found, logits = evaluation.calibration, predict_logits(net, public.images)
    before, after = (probabilities(logits, temperature) for temperature in (1.0, 3.0))
    assert (found.nll_before, found.nll_after) == (nll(before, public.labels), nll(after, public.labels))
    assert found.ece_before == expected_calibration_error(before, public.labels)
    assert found.ece_after == expected_calibration_error(after, public.labels)
    assert found.nll_before != found.nll_after
    for tta in ("none", "flip"):
        views = predict_logits(net, public.images, tta)
        assert evaluation.figures[tta] == figures(probabilities(views, 3.0), public.labels)


def test_of_several_faces_the_one_that_is_the_picture_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = np.array([[0, 0, 60, 60], [BORDER, BORDER, ENLARGED, ENLARGED], [150, 150, 80, 80]], np.float32)
    monkeypatch.setattr("trainer.through_detector.FaceDetector.detect", lambda self, frame: (boxes, np.ones(3)))
    images = np.zeros((1, 48, 48), np.uint8)
    images[0, 12:36, 12:36] = 200
    found = find_faces(images)
    assert np.abs(found.patches[0, 16:32, 16:32].astype(int) - 200).max() <= 3
    assert found.patches[0, :8].max() <= 3
