"""A run's folder: what makes a run go on, count as done or start anew, and what its weights say of it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.record import commit
from nodes.emotion.weights import load_weights, read_header, save_weights
from nodes.preprocess import DEFAULT, LABELS
from pipeline.errors import UserError
from trainer import metrics, session
from trainer.card import INIT_ACCURACY, training_lines
from trainer.dataset import FaceSet
from trainer.evaluate import evaluate
from trainer.ferplus import VOTES
from trainer.folders import PRIVATE, PUBLIC, TRAINING
from trainer.loop import Progress
from trainer.metrics import fit_temperature
from trainer.predict import predict_logits, probabilities
from trainer.prepare import file_sha256, load_for_training, run_inputs
from trainer.recipe import Distill, Recipe
from trainer.session import (
    CHECKPOINT,
    WEIGHTS,
    check_parents,
    forget_other_teachers,
    git_commit,
    is_finished,
    saved_epochs,
    train_run,
    train_seeds,
)

BASE = {"width": 4, "epochs": 1, "batch": 64, "lr": 0.01, "precision": "fp32", "sizes": [[1.0, 16]]}


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate(BASE | changes)


def student(*teachers: Path, **changes: object) -> Recipe:
    return recipe(distill={"teachers": list(map(str, teachers))} | changes)


@pytest.fixture(scope="module")
def few(faces: FaceSet) -> FaceSet:
    return faces.take(np.r_[0:70, 210:245])


@pytest.fixture(scope="module")
def votes(few: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Votes that say what the labels say."""
    as_label = {"anger": "angry", "happiness": "happy", "sadness": "sad"}
    columns = [as_label.get(name, name) for name in VOTES]
    table = pd.DataFrame({name: [10 * (LABELS[label] == name) for label in few.labels] for name in columns})
    table.columns = list(VOTES)
    path = tmp_path_factory.mktemp("votes") / "ferplus.csv"
    table.assign(row=few.rows).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def trained(few: FaceSet, votes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with votes. Not to be written to."""
    out = tmp_path_factory.mktemp("runs") / "teacher"
    train_run(recipe(ferplus=0.5), few, out, "cpu", votes)
    return out


def other_split(faces: FaceSet) -> FaceSet:
    """The same pictures and labels, of which one has gone from Training to PublicTest."""
    splits = faces.splits.copy()
    splits[69] = PUBLIC
    return FaceSet(faces.source, faces.images, faces.labels, splits, faces.rows)


def test_a_run_goes_on_only_with_the_same_splits_and_votes(
    few: FaceSet, votes: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    assert other_split(few).digest() == few.digest()  # the header's hash, of old, does not cover the splits
    with pytest.raises(UserError, match=f"{CHECKPOINT} was made with other data: give another --out, or delete what"):
        train_run(recipe(ferplus=0.5), other_split(few), out, "cpu", votes)
    changed = tmp_path / "votes.csv"
    changed.write_text(votes.read_text().replace("10,", "9,"))
    with pytest.raises(UserError, match="with other votes"):
        train_run(recipe(ferplus=0.5), few, out, "cpu", changed)
    train_run(recipe(ferplus=0.5), few, out, "cpu", votes)


def test_a_run_is_finished_with_its_own_data_and_votes_alone(few: FaceSet, votes: Path, trained: Path) -> None:
    wanted = recipe(ferplus=0.5)

    def finished(faces: FaceSet, of: Recipe = wanted) -> bool:
        return is_finished(trained, of, run_inputs(of, faces, votes))

    assert finished(few)
    assert finished(few, recipe(ferplus=0.5, description="the same, told otherwise"))
    assert not finished(few, recipe(ferplus=0.4))
    assert not finished(other_split(few))
    assert not finished(few.take(np.arange(1, len(few))))
    assert not is_finished(trained, wanted, run_inputs(wanted, few, trained / "metrics.csv"))


@pytest.mark.parametrize("left", ["checkpoint", "no checkpoint"])
def test_a_finished_run_is_measured_again_and_left_as_it_is(
    few: FaceSet, votes: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """Its weights go on telling of the code that trained them, and no other recipe takes their place."""
    out = shutil.copytree(trained, tmp_path / "run")
    if left == "no checkpoint":  # "delete it when the run is done"
        (out / CHECKPOINT).unlink()
    monkeypatch.setattr(session, "git_commit", lambda: "another")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert saved_epochs(recipe(ferplus=0.5), out) == 1
    again = train_run(recipe(ferplus=0.5), few, out, "cpu", votes)
    assert again.figures["none"].accuracy == read_header(out / WEIGHTS).metrics["public_accuracy"]
    for wanted, faces in ((recipe(ferplus=0.4), few), (recipe(ferplus=0.5), other_split(few))):
        with pytest.raises(UserError, match=r"(other data|another recipe).*: give another --out, or delete"):
            train_run(wanted, faces, out, "cpu", votes)
    with pytest.raises(UserError, match="is of another recipe"):
        saved_epochs(recipe(ferplus=0.4), out)  # before any data are read
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_weights_tell_of_all_the_code_that_trained_them(
    few: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(progress: Progress) -> None:
        if progress.public is not None:
            raise KeyboardInterrupt

    for commit_, tell in (("first", stop), ("second", stop), ("second", stop), ("third", lambda _: None)):
        monkeypatch.setattr(session, "git_commit", lambda commit_=commit_: commit_)
        with contextlib.suppress(KeyboardInterrupt):
            train_run(recipe(epochs=4), few, tmp_path, "cpu", tell=tell)
    assert read_header(tmp_path / WEIGHTS).git_commit == "first, second, third"


def test_seeds_of_other_data_are_not_taken_for_done(few: FaceSet, tmp_path: Path) -> None:
    train_seeds(recipe(), 1, few, tmp_path, "cpu")
    before = (tmp_path / "seed-0" / WEIGHTS).read_bytes()
    train_seeds(recipe(), 1, few, tmp_path, "cpu")
    assert (tmp_path / "seed-0" / WEIGHTS).read_bytes() == before
    with pytest.raises(UserError, match="with other data"):
        train_seeds(recipe(), 1, other_split(few), tmp_path, "cpu")


def test_a_run_killed_before_its_card_is_not_finished(
    few: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(session, "card", killed)
        with pytest.raises(KeyboardInterrupt):
            train_run(recipe(), few, tmp_path, "cpu")
    inputs = run_inputs(recipe(), few, None)
    assert not is_finished(tmp_path, recipe(), inputs)
    train_run(recipe(), few, tmp_path, "cpu")
    assert is_finished(tmp_path, recipe(), inputs)
    assert (tmp_path / "MODEL_CARD.md").exists()


def test_a_student_is_told_by_its_teachers_bytes_and_tells_of_them(few: FaceSet, trained: Path, tmp_path: Path) -> None:
    teacher = trained / WEIGHTS
    twin, out = tmp_path / "twin.safetensors", tmp_path / "student"
    shutil.copyfile(teacher, twin)
    wanted = student(teacher, twin, share=0.8, temperature=3.0)
    train_run(wanted, few, out, "cpu")
    inputs = run_inputs(wanted, few, None)
    assert is_finished(out, wanted, inputs)
    assert is_finished(out, student(twin, teacher, share=0.8, temperature=3.0), inputs)
    assert not forget_other_teachers(out, inputs)

    header = read_header(out / WEIGHTS)
    assert str(tmp_path) not in header.model_dump_json()
    assert str(trained.parent) not in header.model_dump_json()
    assert header.recipe["distill"]["teachers"] == ["teacher/weights.safetensors", f"{tmp_path.name}/twin.safetensors"]
    assert [(t.width, t.votes) for t in header.teachers] == [(4, True), (4, True)]
    card = (out / "MODEL_CARD.md").read_text()
    assert (
        "Distilled from 2 networks of width 4: their mean answer, at temperature 3, is 80% of the loss, the labels are "
        "the rest. The teachers learnt from FER+ votes on Training rows too."
    ) in card
    assert "FER+ votes were" not in card

    twin.write_bytes((trained / CHECKPOINT).read_bytes())
    changed = run_inputs(wanted, few, None)
    assert not is_finished(out, wanted, changed)
    assert not forget_other_teachers(out, changed | {"data": "other"})
    assert forget_other_teachers(out, changed)
    assert not (out / CHECKPOINT).exists()


def test_a_run_begins_with_the_weights_that_its_recipe_names(few: FaceSet, trained: Path, tmp_path: Path) -> None:
    first, out = tmp_path / "first.safetensors", tmp_path / "run"
    shutil.copyfile(trained / WEIGHTS, first)
    wanted = recipe(init=str(first), optimizer="sgd", lr=1e-12)  # so small a step changes nothing
    train_run(wanted, few, out, "cpu")
    before, after = (load_weights(path)[0].features[0][0].weight for path in (first, out / WEIGHTS))  # pyright: ignore
    assert torch.equal(before, after)
    header = read_header(out / WEIGHTS)
    assert header.init is not None
    assert (header.init.width, header.init.votes, header.init.sha256) == (4, True, file_sha256(first))
    assert header.recipe["init"] == header.init.file == f"{tmp_path.name}/first.safetensors"
    first_accuracy = evaluate(*load_weights(first), few.split(PUBLIC), PUBLIC).figures["none"].accuracy
    assert header.metrics[INIT_ACCURACY] == first_accuracy
    card = (out / "MODEL_CARD.md").read_text()
    assert "Training began with the weights" in card
    assert f"They were right on {first_accuracy:.2%} of PublicTest in one view." in card
    assert is_finished(out, wanted, run_inputs(wanted, few, None))

    train_run(recipe(optimizer="sgd"), few, tmp_path / "other", "cpu")
    shutil.copyfile(tmp_path / "other" / WEIGHTS, first)
    assert not is_finished(out, wanted, run_inputs(wanted, few, None))
    with pytest.raises(UserError, match="with other init: give another --out"):
        train_run(wanted, few, out, "cpu")


def test_first_weights_must_fit(few: FaceSet, trained: Path, tmp_path: Path) -> None:
    net, header = load_weights(trained / WEIGHTS)
    broken, other, out = tmp_path / "broken.safetensors", tmp_path / "other.safetensors", tmp_path / "run"
    save_weights(other, net.state_dict(), header.model_copy(update={"preprocess": replace(DEFAULT, size=56)}))
    tensors = load_file(trained / WEIGHTS)
    tensors["classifier.bias"].fill_(torch.nan)
    save_file(tensors, broken, {"emograph": header.model_dump_json()})
    with pytest.raises(UserError, match=r"init=.*weights.safetensors has width 4, the recipe 8: they must agree"):
        train_run(recipe(init=str(trained / WEIGHTS), width=8), few, out, "cpu")
    with pytest.raises(UserError, match="no weights are called 'resnet8'; did you mean 'resnet9'"):
        train_run(recipe(init="resnet8"), few, out, "cpu")
    with pytest.raises(
        UserError, match=r"init=.*other.safetensors was trained on pictures prepared in another way: .*56"
    ):
        train_run(recipe(init=str(other)), few, out, "cpu")
    for wanted in (recipe(init=str(broken)), recipe(distill=Distill(teachers=[str(broken)]))):
        with pytest.raises(UserError, match=r"broken.safetensors: classifier.bias has values that are not finite"):
            check_parents(wanted)
    missing = f"{tmp_path}/none.safetensors"
    for teacher, message in (
        ("resnet8", "no weights are called 'resnet8'; did you mean 'resnet9'?"),
        (missing, f"no weights file at {missing}; they are trained before what"),
    ):
        for key, wanted in (
            ("init", recipe(init=teacher)),
            ("distill.teachers", recipe(distill=Distill(teachers=[teacher]))),
        ):
            with pytest.raises(UserError, match=f"^{key}: {re.escape(message)}"):
                check_parents(wanted)
    assert not out.exists()


def test_a_copy_without_its_repository_says_what_it_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOGRAPH_COMMIT", "0123456789ab")
    assert git_commit() != "0123456789ab"  # the repository knows better
    assert commit() != "0123456789ab"
    copy = shutil.copytree(Path(session.__file__).parent, tmp_path / "venv" / "trainer")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)  # somebody else's, around the copy
    monkeypatch.setattr(session, "__file__", str(copy / "session.py"))
    assert git_commit() == "0123456789ab"
    monkeypatch.undo()
    monkeypatch.setenv("EMOGRAPH_COMMIT", "0123456789ab")
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_commit() == commit() == "0123456789ab"


def test_the_card_tells_of_the_run_and_not_of_a_recipe(few: FaceSet, trained: Path) -> None:
    header = read_header(trained / WEIGHTS)
    assert training_lines(header) == [
        "Trained for 1 epochs; the last epoch's weights, not the best's. "
        "FER+ votes were an auxiliary target on Training rows (a second head, not in the file).",
        "Training rows left out: blank, leaked; 70 faces were trained on.",
    ]
    averaged = header.model_copy(update={"recipe": header.recipe | {"ema": 0.9, "ferplus": 0}})
    assert training_lines(averaged)[0] == "Trained for 1 epochs; the last epoch's averaged weights, not the best's."
    assert header.data_hash == few.digest()


def test_the_temperature_is_the_one_that_fits(few: FaceSet, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not 1, and not so far from it as what 35 faces alone would say: their answers get likelier by it."""
    net, header = load_weights(trained / WEIGHTS)
    public = few.split(PUBLIC)
    logits = predict_logits(net, public.images)

    def loss(temperature: float) -> float:
        return -np.log(probabilities(logits, temperature)[np.arange(len(public)), public.labels]).mean()

    with monkeypatch.context() as patched:
        patched.setattr(metrics, "_PRIOR", 1e9)
        alone = fit_temperature(logits[0], public.labels)
    assert loss(alone) < min(loss(1.0), loss(alone * 1.2), loss(alone / 1.2))
    assert 0.001 < abs(np.log(header.temperature)) < abs(np.log(alone))
    assert (header.temperature > 1) == (alone > 1)
    assert loss(header.temperature) < loss(1.0)


def test_training_never_looks_at_private_test(few: FaceSet, write_csv, tmp_path: Path) -> None:
    path = write_csv(few)
    path.write_text(path.read_text() + f"99,not pixels,{PRIVATE}\n")
    loaded = load_for_training(path)
    assert set(loaded.splits) == {TRAINING, PUBLIC}
    train_run(recipe(), loaded, tmp_path / "run", "cpu")


def test_seeds_are_summed_up(few: FaceSet, tmp_path: Path) -> None:
    summary = train_seeds(recipe(seed=3, lr=0.05), 3, few, tmp_path, "cpu")
    values = [summary[f"seed-{seed}"] for seed in (3, 4, 5)]
    assert len(set(values)) > 1
    assert summary["public_accuracy_mean"] == pytest.approx(np.mean(values))
    assert summary["public_accuracy_deviation"] == pytest.approx(np.std(values, ddof=1))
    assert json.loads((tmp_path / "seeds.json").read_text()) == summary


def test_votes_count_by_the_rows_that_they_are_read_for(few: FaceSet, votes: Path) -> None:
    shifted = FaceSet(few.source, few.images, few.labels, few.splits, few.rows + 1)
    ours, theirs = (run_inputs(recipe(ferplus=0.5), faces, votes) for faces in (few, shifted))
    assert ours["data"] == theirs["data"]
    assert ours["votes"] != theirs["votes"]
