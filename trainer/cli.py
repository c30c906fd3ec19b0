"""The commands `emograph train`, `evaluate`, `export` and `data`; found by entry points, so the engine knows none.

Heavy imports stay inside the functions: `--help` must not wait for torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.commandline import location

DataPath = Annotated[
    Path,
    typer.Option("--data", metavar="PATH", help="fer2013.csv, or the folder of picture folders", parser=location),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
Json = Annotated[bool, typer.Option("--json", help="for machines")]

data = typer.Typer(no_args_is_help=True, add_completion=False, help="Look at a data set, or make one.")


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="a YAML file of configs/training")],
    data: DataPath,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="change a key of the recipe: epochs=5")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the run's folder (default: runs/RECIPE)", parser=location)] = None,
    ferplus: Annotated[
        Path | None, typer.Option(help="ferplus.csv, for recipes that use its votes", parser=location)
    ] = None,
    device: Device = "auto",
    seeds: Annotated[int, typer.Option(min=1, help="train with so many seeds, report mean and deviation")] = 1,
) -> None:
    """Train weights; the same command again goes on where a stopped run was."""
    from nodes.emotion.weights import read_header
    from trainer.card import INIT_ACCURACY
    from trainer.console import TrainingView, print_evaluation
    from trainer.prepare import check_votes, load_for_training, pick_device
    from trainer.recipe import load_recipe
    from trainer.session import CHECKPOINT, WEIGHTS, check_parents, saved_epochs, train_run, train_seeds

    checked = load_recipe(recipe, overrides or [])
    check_parents(checked)
    check_votes(checked, ferplus)
    pick_device(device)
    if ferplus is not None and not checked.ferplus:
        typer.echo("the recipe has ferplus: 0, so the FER+ votes are not used", err=True)
    folder = out or Path("runs") / recipe.stem
    try:
        if seeds == 1 and (epochs := saved_epochs(checked, folder)):
            behind = f"going on after epoch {epochs} of {checked.epochs} in {folder}"
            print(behind if epochs < checked.epochs else f"all {epochs} epochs are done in {folder}", flush=True)
        with TrainingView() as view:
            view.say(f"reading {data}")
            faces = load_for_training(data)
            if seeds == 1:
                result = train_run(checked, faces, folder, device, ferplus, view.tell)
            else:
                summary = train_seeds(checked, seeds, faces, folder, device, ferplus, view.tell_seed)
    except KeyboardInterrupt:
        saved = any(folder.rglob(CHECKPOINT))
        then = f"the same command goes on after the last epoch saved in {folder}" if saved else "nothing was saved yet"
        typer.echo(f"stopped; {then}", err=True)
        raise typer.Exit(130) from None
    if seeds == 1:
        print_evaluation(result)
        begun = read_header(folder / WEIGHTS).metrics.get(INIT_ACCURACY)
        if begun is not None:
            now = result.figures["none"].accuracy
            print(f"right on PublicTest, one view: {begun:.2%} with {checked.init} as it is, {now:.2%} after training")
    else:
        mean, deviation = summary["public_accuracy_mean"], summary["public_accuracy_deviation"]
        print(f"PublicTest accuracy over {seeds} seeds: mean {mean:.2%}, deviation {deviation:.2%}")
    print(f"results are in {folder}")


def evaluate(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help="a name (resnet9-s) or a file")],
    data: DataPath,
    split: Annotated[
        str, typer.Option(help="Training, PublicTest or PrivateTest; or as folders are called: train, val, test")
    ] = "PublicTest",
    through_detector: Annotated[
        bool, typer.Option("--through-detector", help="also find each face in a larger frame first")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure weights on one split of a data set."""
    from nodes.emotion.weights import load_weights
    from trainer.console import print_evaluation, waiting
    from trainer.dataset import load
    from trainer.evaluate import evaluate as measure
    from trainer.folders import SPLIT_OF
    from trainer.prepare import pick_device

    net, header = load_weights(weights)
    net = net.to(pick_device(device))
    with waiting() as say:
        say(f"reading {data}")
        split = SPLIT_OF.get(split, split)
        faces = load(data, [split]).split(split)
        result = measure(net, header, faces, split, through_detector, say=say)
    if as_json:
        print(json.dumps({"weights": weights, **result.as_json()}))
    else:
        print_evaluation(result)


def export(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help="a name (resnet9-s) or a file")],
    format: Annotated[str, typer.Option(help="onnx")] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32; int8 (for CPUs with VNNI, AMX or ARM dot products)")] = "fp32",
    out: Annotated[
        Path | None, typer.Option(help="the file to write (default: NAME.onnx, NAME-int8.onnx)", parser=location)
    ] = None,
) -> None:
    """Write weights for other runtimes."""
    from nodes.emotion.weights import find_weights, load_weights
    from pipeline.errors import UserError
    from trainer.export import export_onnx

    if format != "onnx":
        raise UserError(f"unknown format '{format}': it must be onnx")
    if precision not in ("fp32", "int8"):
        raise UserError(f"unknown precision '{precision}': it must be fp32 or int8")
    net, header = load_weights(weights)
    path = out or Path(find_weights(weights).stem + ("" if precision == "fp32" else f"-{precision}") + ".onnx")
    export_onnx(net, header, path, precision)
    print(f"wrote {path}: faces uint8 (n, 1, 48, 48) -> probabilities float32 (n, {len(header.labels)})")


@data.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="fer2013.csv, or the folder of picture folders")],
    picture: Annotated[Path, typer.Option(help="where to write samples of each class", parser=location)] = Path(
        "samples.png"
    ),
    as_json: Json = False,
) -> None:
    """Count faces per class and split, blank pictures and exact copies; write a picture of samples."""
    from trainer.checkpoint import write_whole
    from trainer.console import print_info, waiting
    from trainer.dataset import load
    from trainer.info import describe
    from trainer.pictures import samples_png

    with waiting() as say:
        say(f"reading {path}")
        faces = load(path)
        description: dict[str, Any] = describe(faces)
        write_whole(picture, samples_png(faces))
    if as_json:
        print(json.dumps({**description, "picture": str(picture)}))
    else:
        print_info(description)
        print(f"samples of each class are in {picture}")


@data.command()
def cut(
    pictures: Annotated[Path, typer.Argument(metavar="PICTURES", help="folders train/happy, val/sad, ... of pictures")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="the folder to write, new or empty")],
    as_json: Json = False,
) -> None:
    """Cut the faces out of pictures of any size, as the detector node does, for `train --data OUT`."""
    from trainer.console import print_cuts, waiting
    from trainer.cut import LIST, cut_faces

    with waiting() as say:
        done = cut_faces(pictures, out, lambda count, of: say(f"{count} of {of} pictures"))
    if as_json:
        written = sum(one.written is not None for one in done)
        print(json.dumps({"pictures": len(done), "cut": written, "list": str(out / LIST)}))
    else:
        print_cuts(done)
        print(f"the faces are in {out}; what became of each picture is in {out / LIST}")
