"""The commands as a person types them; each in a process of its own only where signals or exit codes matter."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from nodes.emotion.weights import load_weights, read_header
from pipeline.errors import UserError
from trainer import cli
from trainer.commandline import shorten
from trainer.dataset import FaceSet
from trainer.recipe import Augment, Distill, Recipe, keys

RECIPE = "width: 4\nepochs: 2\nbatch: 32\nlr: 0.01\nsizes: [[1.0, 32]]\nprecision: fp32\n"


def call(command: Callable, *arguments: object) -> str:
    """Run one command function in this process; returns its stdout, raises what it raises."""
    app = command if isinstance(command, typer.Typer) else typer.Typer()
    if app is not command:
        app.command()(command)
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def data(faces: FaceSet, write_csv: Callable[[FaceSet], Path]) -> Path:
    return write_csv(faces)


def test_train_evaluate_export(recipe: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = call(cli.train, recipe, "--data", data, "--out", out, "--device", "cpu", "epochs=1")
    assert "epoch 1/1" in said
    assert "\x1b" not in said
    assert {path.name for path in out.iterdir()} == {
        "recipe.yaml",
        "checkpoint.safetensors",
        "metrics.csv",
        "weights.safetensors",
        "evaluation.json",
        "curves.png",
        "confusion.png",
        "reliability.png",
        "MODEL_CARD.md",
    }
    weights = out / "weights.safetensors"
    _, header = load_weights(weights)
    assert header.recipe["epochs"] == 1
    assert str(tmp_path) not in header.model_dump_json()

    report = json.loads(call(cli.evaluate, weights, "--data", data, "--json"))
    assert report["figures"]["none"]["accuracy"] == header.metrics["public_accuracy"]
    assert report["figures"]["none"]["count"] == 70
    text = call(cli.evaluate, weights, "--data", data, "--split", "Training")
    assert "Training, 210 faces" in text

    call(cli.export, weights, "--out", tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").stat().st_size > 10_000


def test_fine_tuning_says_what_it_was_worth(recipe: Path, data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    call(cli.train, recipe, "--data", data, "--out", first, "--device", "cpu", "epochs=1")
    init = first / "weights.safetensors"
    arguments = (cli.train, recipe, "--data", data, "--out", second, "--device", "cpu", f"init={init}")
    for said in (call(*arguments), call(*arguments)):  # the second time nothing is trained
        before, after = (read_header(run / "weights.safetensors").metrics["public_accuracy"] for run in (first, second))
        line = f"right on PublicTest, one view: {before:.2%} with {init} as it is, {after:.2%} after training"
        assert said.splitlines()[-2:] == [line, f"results are in {second}"]


def test_first_weights_are_checked_before_the_data_are_read(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights are called 'resnet8'"):
        call(cli.train, recipe, "--data", tmp_path / "none.csv", "--out", tmp_path / "run", "init=resnet8")
    assert not (tmp_path / "run").exists()


def test_what_is_wrong_on_the_command_line_is_told_before_the_data_are_read(recipe: Path, tmp_path: Path) -> None:
    missing = tmp_path / "none.csv"
    for arguments, message in (
        (("ferplus=0.5",), "give --ferplus ferplus.csv"),
        (("ferplus=0.5", "--ferplus", missing), "no FER\\+ votes at"),
        (("--device", "gpu"), "unknown device 'gpu'"),
    ):
        with pytest.raises(UserError, match=message):
            call(cli.train, recipe, "--data", missing, "--out", tmp_path / "run", *arguments)


def test_votes_that_a_recipe_does_not_use_are_told(recipe: Path, tmp_path: Path) -> None:
    arguments = (str(recipe), "--data", str(tmp_path / "none.csv"), "--ferplus", str(tmp_path / "votes.csv"))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "train", *arguments], capture_output=True, text=True, check=False
    )
    assert "the recipe has ferplus: 0, so the FER+ votes are not used" in done.stderr


def test_a_home_in_an_option_is_the_home(
    recipe: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bash leaves the ~ of `--out=~/run` as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    call(cli.train, recipe, "--data=~/fer2013.csv", "--out=~/run", "--device", "cpu", "epochs=1")
    assert (tmp_path / "run/weights.safetensors").exists()


def test_the_drawn_faces_are_written_or_it_is_said_why(data: Path, tmp_path: Path) -> None:
    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "trainer.class_means", "--data", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)

    (tmp_path / "file").write_text("")
    wrong = make(str(data), "--out", str(tmp_path / "file/x.png"))
    assert (wrong.returncode, "class_means: error: cannot write" in wrong.stderr, wrong.stdout) == (1, True, "")
    assert make(str(data), "--out", str(tmp_path / "x.png")).returncode == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    data.write_text("\n".join(line for line in data.read_text().splitlines() if not line.startswith("4,")))
    wrong = make(str(data), "--out", str(tmp_path / "y.png"))
    assert "fer2013.csv has no Training pictures of sad" in wrong.stderr
    assert not (tmp_path / "y.png").exists()


def test_several_seeds_are_summed_up_and_not_trained_twice(recipe: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    arguments = (recipe, "--data", data, "--out", out, "--device", "cpu", "--seeds", 2, "epochs=1")
    assert "over 2 seeds: mean" in call(cli.train, *arguments)
    summary = json.loads((out / "seeds.json").read_text())
    each = [read_header(out / f"seed-{n}" / "weights.safetensors").metrics["public_accuracy"] for n in (0, 1)]
    assert summary["public_accuracy_mean"] == pytest.approx(sum(each) / 2)
    assert summary["public_accuracy_deviation"] == pytest.approx(abs(each[0] - each[1]) / 2**0.5)
    assert "epoch" not in call(cli.train, *arguments)


def test_data_info(data: Path, tmp_path: Path) -> None:
    picture = tmp_path / "samples.png"
    text = call(cli.data, "info", data, "--picture", picture)
    assert "280 faces" in text
    assert "blank pictures: 0" in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(call(cli.data, "info", data, "--picture", picture, "--json"))["counts"]["Training"]["sad"] == 30


def test_what_export_does_not_know_is_refused() -> None:
    with pytest.raises(UserError, match="must be onnx"):
        call(cli.export, "resnet9-s", "--format", "tflite")
    with pytest.raises(UserError, match="must be fp32 or int8"):
        call(cli.export, "resnet9-s", "--precision", "int4")


def test_a_file_in_int8_is_a_quarter_of_the_size(tmp_path: Path) -> None:
    for precision in ("fp32", "int8"):
        call(cli.export, "resnet9-s", "--precision", precision, "--out", tmp_path / precision)
    assert (tmp_path / "int8").stat().st_size < 0.27 * (tmp_path / "fp32").stat().st_size


def start(*arguments: object) -> subprocess.Popen[str]:
    code = "from pipeline.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_mistake_is_one_line_and_a_failing_exit_code(recipe: Path, tmp_path: Path) -> None:
    process = start("train", recipe, "--data", tmp_path / "none.csv")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "no data at" in err


def test_ctrl_c_keeps_the_last_epoch_and_the_same_command_goes_on(recipe: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start("train", recipe, "--data", data, "--out", out, "--device", "cpu", "epochs=5000")
    checkpoint = out / "checkpoint.safetensors"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert checkpoint.exists()
    with pytest.raises(UserError, match="another recipe"):  # told before any data are read
        call(cli.train, recipe, "--data", tmp_path / "none.csv", "--out", out, "--device", "cpu", "lr=0.5")
    again = start("train", recipe, "--data", data, "--out", out, "--device", "cpu", "epochs=5000")
    assert again.stdout is not None
    assert again.stdout.readline().startswith("going on after epoch ")
    again.send_signal(signal.SIGINT)
    assert "the same command goes on" in again.communicate(timeout=200)[1]
    assert again.returncode == 130


def test_ctrl_c_is_heard_from_the_first_line_on(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.session.saved_epochs", stop)
    app = typer.Typer()
    app.command()(cli.train)
    result = CliRunner().invoke(app, [str(recipe), "--data", "none.csv"])
    assert (result.exit_code, result.stderr) == (130, "stopped; nothing was saved yet\n")


@pytest.mark.parametrize(
    ("word", "short"),
    [
        ("/home/jo doe/fer2013.csv", "fer2013.csv"),
        ("--out=/home/jo/run", "--out=run"),
        (
            "distill.teachers=[/home/jo/a.safetensors, '/b/c d.safetensors']",
            "distill.teachers=[a.safetensors, 'c d.safetensors']",
        ),
        ("runs/best/weights.safetensors", "runs/best/weights.safetensors"),
        ("augment.rotate=10", "augment.rotate=10"),
    ],
)
def test_folders_of_this_machine_are_left_out_of_what_is_passed_on(word: str, short: str) -> None:
    assert shorten(word) == short


def test_the_keys_of_a_recipe_are_listed_with_what_they_do() -> None:
    listed = list(keys())
    assert {name for name, _, _ in listed} >= {"epochs", "augment.rotate", "distill.teachers"}
    assert len(listed) == len(Recipe.model_fields) - 2 + len(Augment.model_fields) + len(Distill.model_fields)
    assert all(about for _, _, about in listed)
