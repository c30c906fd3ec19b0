"""What `emograph train` does around the loop: the run's folder, resuming, several seeds, and what is left at the end.

A finished run's folder holds recipe.yaml, checkpoint.safetensors, metrics.csv, weights.safetensors,
evaluation.json, curves.png, confusion.png, reliability.png and MODEL_CARD.md.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from pydantic import ValidationError

from nodes.emotion.model import ResNet9, fuse
from nodes.emotion.weights import (
    Header,
    Parent,
    WeightsError,
    find_weights,
    load_weights,
    locate,
    read_header,
    read_tensors,
    save_weights,
)
from nodes.preprocess import DEFAULT
from pipeline.errors import UserError
from trainer.allocator import keep_freed_memory
from trainer.card import INIT_ACCURACY, Entry, card
from trainer.checkpoint import load_checkpoint, write_whole
from trainer.commandline import joined
from trainer.dataset import FaceSet
from trainer.evaluate import Evaluation, evaluate
from trainer.folders import PUBLIC
from trainer.loop import Progress, Run
from trainer.metrics import fit_temperature
from trainer.pictures import confusion_png, curves_png, reliability_png
from trainer.predict import predict_logits
from trainer.prepare import file_sha256, pick_device, prepare, run_inputs
from trainer.recipe import Recipe

Tell = Callable[[Progress], None]

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"


def saved_epochs(recipe: Recipe, out: Path) -> int:
    """Epochs that a run in the folder `out` has behind it. UserError, before any data are read, if it is another's."""
    path = out / CHECKPOINT
    if not path.exists():
        if _made_by(out, recipe):
            return recipe.epochs
        _refuse_finished(out, recipe)
        return 0
    checkpoint = load_checkpoint(path)
    checkpoint.check_recipe(recipe.essence(), path)
    return checkpoint.epoch


def check_parents(recipe: Recipe) -> None:
    """UserError, before any data are read, if weights that a recipe names are not there or do not fit."""
    for name in recipe.distill.teachers if recipe.distill else []:
        _check_parent("distill.teachers", name)
    if recipe.init is not None:
        header = _check_parent("init", recipe.init)
        if header.width != recipe.width:
            raise UserError(f"init={recipe.init} has width {header.width}, the recipe {recipe.width}: they must agree")
        if header.preprocess != DEFAULT:
            raise UserError(f"init={recipe.init} was trained on pictures prepared in another way: {header.preprocess}")


def _check_parent(key: str, name: str) -> Header:
    try:
        if not os.path.exists(locate(name)):
            raise WeightsError(f"no weights file at {name}; they are trained before what learns from them")
        return read_tensors(name)[1]
    except WeightsError as error:
        raise UserError(f"{key}: {error}") from error


def _refuse_finished(out: Path, recipe: Recipe) -> None:
    """UserError where a folder without a checkpoint has weights: they would be lost."""
    if not (out / WEIGHTS).exists():
        return
    theirs, ours = read_header(out / WEIGHTS).recipe, _for_others(recipe)
    differing = sorted(
        key for key in theirs | ours if theirs.get(key) != ours.get(key) and key not in ("description", "compile")
    )
    whose = f"another recipe ({', '.join(differing)} differ)" if differing else "other data, votes or parents"
    raise UserError(f"{out / WEIGHTS} is of {whose}: give another --out, or delete it")


def train_run(
    recipe: Recipe,
    faces: FaceSet,
    out: Path,
    device: str = "auto",
    ferplus: Path | None = None,
    tell: Tell = lambda _: None,
) -> Evaluation:
    """Train, or go on with, one run in the folder `out`; a finished run is only evaluated again, and left as it is.

    Raises UserError if `out` holds a run of another recipe, or of other data, votes, first weights or teachers.
    """
    check_parents(recipe)
    commit = git_commit()  # of the code that trains, whatever is done to its files meanwhile
    place = pick_device(device)
    if place.type == "cpu":
        keep_freed_memory()
    checkpoint = out / CHECKPOINT
    inputs = run_inputs(recipe, faces, ferplus)
    if is_finished(out, recipe, inputs):
        stored, header = load_weights(out / WEIGHTS)
        return evaluate(stored.to(place), header, faces.split(PUBLIC), PUBLIC)
    if not checkpoint.exists():
        _refuse_finished(out, recipe)
    data = prepare(faces, recipe, ferplus, place)
    teachers = [_teacher(name, place) for name in recipe.distill.teachers] if recipe.distill else []
    init = load_weights(recipe.init)[0] if recipe.init is not None else None
    run = Run(recipe, data.training, data.public, inputs, teachers, init)
    if checkpoint.exists():
        run.resume(checkpoint)
    if run.epoch < recipe.epochs and commit and commit not in run.commits:
        run.commits.append(commit)
    write_whole(out / "recipe.yaml", yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False).encode())

    def save_and_tell(progress: Progress) -> None:
        if progress.public is not None:
            write_whole(out / "metrics.csv", pd.DataFrame(run.history).to_csv(index=False).encode())
        tell(progress)

    net = run.train(checkpoint, save_and_tell)
    begun = {}
    if init is not None:
        answers = predict_logits(init.to(place), data.public_faces.images)[0].argmax(axis=1)
        begun = {INIT_ACCURACY: float((answers == data.public_faces.labels).mean())}
    header = Header(
        width=recipe.width,
        recipe=_for_others(recipe),
        data_hash=faces.digest(),
        inputs=inputs,
        teachers=tuple(map(_about_parent, recipe.distill.teachers)) if recipe.distill else (),
        init=_about_parent(recipe.init) if recipe.init is not None else None,
        metrics={
            "training_faces": len(data.training),
            "epochs": len(run.history),
            "seconds": sum(row["seconds"] for row in run.history),
            **begun,
        },
        command=_command(),
        git_commit=", ".join(run.commits),
    )
    return finish(net, header, data.public_faces, out, run.history)


def finish(net: ResNet9, header: Header, public: FaceSet, out: Path, history: list[dict[str, float]]) -> Evaluation:
    """Fit the temperature on PublicTest, evaluate there, and write pictures, card and weights to `out`.

    The weights take their name last: where they are, all is. `header` gets the temperature and the figures.
    """
    header.temperature = temperature = fit_temperature(predict_logits(net, public.images)[0], public.labels)
    measured = out / f"{WEIGHTS}.measured"
    save_weights(measured, net.state_dict(), header)
    # What is measured is the file as written, in fp16; its figures then go into its own header.
    stored, _ = load_weights(measured)
    result = evaluate(stored.to(net.classifier.weight.device), header, public, PUBLIC)
    plain, flip = result.figures["none"], result.figures["flip"]
    header.metrics |= {
        "public_accuracy": plain.accuracy,
        "public_accuracy_flip": flip.accuracy,
        "public_macro_f1": plain.macro_f1,
        "public_nll": plain.nll,
        "public_ece": plain.ece,
    }
    save_weights(measured, stored.state_dict(), header)
    write_whole(out / "evaluation.json", json.dumps(result.as_json(), indent=1).encode())
    write_whole(out / "curves.png", curves_png(history))
    write_whole(out / "confusion.png", confusion_png(plain))
    logits = predict_logits(stored, public.images)
    write_whole(out / "reliability.png", reliability_png(logits[0], public.labels, temperature))
    write_whole(
        out / "MODEL_CARD.md", card([Entry(out.resolve().name, header, result, measured.stat().st_size)]).encode()
    )
    measured.replace(out / WEIGHTS)
    return result


def train_seeds(
    recipe: Recipe,
    seeds: int,
    faces: FaceSet,
    out: Path,
    device: str = "auto",
    ferplus: Path | None = None,
    tell: Callable[[int, Progress], None] = lambda _seed, _progress: None,
) -> dict[str, float]:
    """Runs with seeds recipe.seed, +1, ... in out/seed-N; mean and deviation (n - 1) go to out/seeds.json."""
    accuracies: dict[int, float] = {}
    inputs = run_inputs(recipe, faces, ferplus)
    for seed in range(recipe.seed, recipe.seed + seeds):
        folder = out / f"seed-{seed}"
        one = recipe.model_copy(update={"seed": seed})
        if not is_finished(folder, one, inputs):
            train_run(one, faces, folder, device, ferplus, lambda p, seed=seed: tell(seed, p))
        accuracies[seed] = read_header(folder / WEIGHTS).metrics["public_accuracy"]
    values = list(accuracies.values())
    summary = {
        "seeds": len(values),
        "public_accuracy_mean": statistics.mean(values),
        "public_accuracy_deviation": statistics.stdev(values) if len(values) > 1 else 0.0,
        **{f"seed-{seed}": value for seed, value in accuracies.items()},
    }
    write_whole(out / "seeds.json", json.dumps(summary, indent=1).encode())
    return summary


def is_finished(folder: Path, recipe: Recipe, inputs: dict[str, str]) -> bool:
    """Whether a folder holds the final, measured weights of just this recipe and of these `run_inputs`."""
    header = _made_by(folder, recipe)
    return header is not None and header.inputs == inputs


def _made_by(folder: Path, recipe: Recipe) -> Header | None:
    """The header of a folder's final, measured weights, if they are of just this recipe."""
    path = folder / WEIGHTS
    if not path.exists():
        return None
    header = read_header(path)
    try:
        theirs = Recipe.model_validate(header.recipe)
    except ValidationError:  # of another version
        return None
    finished = theirs.essence() == recipe.essence() and "public_accuracy" in header.metrics
    return header if finished else None


def forget_other_teachers(folder: Path, inputs: dict[str, str]) -> bool:
    """Make room in the folder of a student whose teachers are others now, so that it is trained anew; whether it did.

    Only where nothing but the teachers differs. A checkpoint is deleted, weights that were finished stay, under another
    name. UserError if one of them cannot be read.
    """
    path = folder / CHECKPOINT
    if path.exists():
        theirs = load_checkpoint(path).inputs
    elif (folder / WEIGHTS).exists():
        theirs = read_header(folder / WEIGHTS).inputs
    else:
        return False
    if theirs == inputs or theirs | {"teachers": ""} != inputs | {"teachers": ""}:
        return False
    path.unlink(missing_ok=True)
    if (folder / WEIGHTS).exists():
        (folder / WEIGHTS).replace(folder / f"of-other-teachers-{WEIGHTS}")
    return True


def git_commit() -> str:
    """The commit of this source tree, with "-dirty" after it where files differ.

    Of a copy without its repository, which may lie within somebody else's: what EMOGRAPH_COMMIT says, else nothing.
    """
    ours = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ours), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) == ours:
            return git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        pass
    return os.environ.get("EMOGRAPH_COMMIT", "")


def _command() -> str:
    """The command line; of absolute paths only the last part, since weights are passed on to others."""
    script = Path(sys.argv[0])
    program = ["python", "-m", f"trainer.{script.stem}"] if script.parent.name == "trainer" else ["emograph"]
    return joined([*program, *sys.argv[1:]])


def _for_others(recipe: Recipe) -> dict[str, Any]:
    """A recipe as it stands in the weights: of where its parents' files lie, only what says which they are."""
    written = recipe.model_dump(mode="json")
    if recipe.init is not None:
        written["init"] = _file_for_others(recipe.init)
    if recipe.distill:
        written["distill"]["teachers"] = list(map(_file_for_others, recipe.distill.teachers))
    return written


def _file_for_others(name: str) -> str:
    """The last two parts of an absolute path, `seed-0/weights.safetensors`; a name or a relative path as it is."""
    return str(Path(*Path(name).parts[-2:])) if Path(name).is_absolute() else name


def _about_parent(name: str) -> Parent:
    path = find_weights(name)
    header = read_header(path)
    parents = (*header.teachers, *([header.init] if header.init else []))
    votes = bool(header.recipe.get("ferplus")) or any(parent.votes for parent in parents)
    return Parent(file=_file_for_others(name), sha256=file_sha256(path), width=header.width, votes=votes)


def _teacher(name: str, device: torch.device) -> ResNet9:
    return fuse(load_weights(name)[0].to(device))
