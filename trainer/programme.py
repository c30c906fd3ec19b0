"""python -m trainer.programme --data fer2013.csv --ferplus ferplus.csv: all that ships, made anew on one GPU.

Five seeds of best.yaml, then their distillation into `resnet9` and into `resnet9-s`; the two files go into the
package, their measured figures onto docs/MODEL_CARD.md. Give --minutes where a machine ends commands after a while:
the programme stops after an epoch with exit code 75, and the same command goes on where it was; 0 means all done.
key=value changes all recipes alike (epochs=100). The card takes minutes of CPU time for finding faces: --no-card leaves
it to `python -m trainer.card`, on another machine.
--trial runs every step on a few rows with tiny networks, within a minute or two on a CPU, and ships nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import nodes
from pipeline.errors import UserError
from trainer.card import write_card
from trainer.commandline import location
from trainer.console import TrainingView
from trainer.dataset import FaceSet
from trainer.folders import PUBLIC
from trainer.loop import Progress
from trainer.prepare import load_for_training, run_inputs
from trainer.recipe import Recipe, load_recipe
from trainer.session import WEIGHTS, forget_other_teachers, is_finished, train_run, train_seeds

ROOT = Path(__file__).parents[1]
SHIPPED = {"resnet9": "distil", "resnet9-s": "distil-s"}
"""Names of the packaged weights and the recipes that make them."""

TO_BE_CONTINUED = 75  # EX_TEMPFAIL of sysexits.h
_TRIAL = ("epochs=1", "batch=64", "width=8", "sizes=[[1.0,16]]")
_TRIAL_ROWS = 300


class OutOfTime(Exception):
    """The minutes given are over; all epochs so far are saved."""


def run(arguments: argparse.Namespace) -> None:
    """Every step that is not done yet. Raises OutOfTime where --minutes are over."""
    overrides = [*(_TRIAL if arguments.trial else ()), *arguments.overrides]
    seeds = arguments.seeds or (2 if arguments.trial else 5)
    faces = load_for_training(arguments.data)
    if arguments.trial:
        faces = _few(faces)

    def recipe(name: str) -> Recipe:
        return load_recipe(ROOT / "configs" / "training" / f"{name}.yaml", overrides)

    def timed(tell: Callable[..., None]) -> Callable[..., None]:
        def told(*news: int | Progress) -> None:
            tell(*news)
            progress = news[-1]
            assert isinstance(progress, Progress)
            if progress.public is not None and time.monotonic() > arguments.deadline:
                raise OutOfTime

        return told

    place, ferplus = arguments.device, arguments.ferplus
    with TrainingView() as view:
        best = arguments.out / "best"
        teacher = recipe("best")
        summary = train_seeds(teacher, seeds, faces, best, place, ferplus, timed(view.tell_seed))
        print("best:", ", ".join(f"{name} {value:.4f}" for name, value in summary.items()), flush=True)
        teachers = [str(best / f"seed-{seed}" / WEIGHTS) for seed in range(teacher.seed, teacher.seed + seeds)]
        for name in SHIPPED.values():
            student = recipe(name)
            assert student.distill is not None
            student = student.model_copy(update={"distill": student.distill.model_copy(update={"teachers": teachers})})
            folder, inputs = arguments.out / name, run_inputs(student, faces, ferplus)
            if is_finished(folder, student, inputs):
                continue
            if forget_other_teachers(folder, inputs):
                print(f"{name}: its teachers are others now, so it is trained anew", flush=True)
            train_run(student, faces, folder, place, ferplus, timed(view.tell))

    made = {name: arguments.out / folder / WEIGHTS for name, folder in SHIPPED.items()}
    if not arguments.trial:
        for name, path in made.items():
            shutil.copyfile(path, Path(nodes.__file__).parent / "emotion" / "data" / f"{name}.safetensors")
    if arguments.no_card:
        print(f"all done but the card: {', '.join(map(str, made.values()))}")
        return
    card = arguments.out / "MODEL_CARD.md"
    write_card(card, made, faces.split(PUBLIC), PUBLIC, place)
    if not arguments.trial:
        shutil.copyfile(card, ROOT / "docs" / "MODEL_CARD.md")
    print(f"all done; the card is {card}")


def _few(faces: FaceSet) -> FaceSet:
    """Some rows of each split."""
    return faces.take(
        np.concatenate([np.flatnonzero(faces.splits == s)[:_TRIAL_ROWS] for s in np.unique(faces.splits)])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=location, required=True, help="fer2013.csv")
    parser.add_argument("--ferplus", type=location, required=True, help="ferplus.csv")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="change a key of all recipes: epochs=100")
    parser.add_argument("--seeds", type=int, help="teachers (default: 5)")
    parser.add_argument("--out", type=location, help="folder of the runs (default: runs, for a trial runs-trial)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop in time to be started again")
    parser.add_argument("--no-card", action="store_true", help="leave the card to python -m trainer.card")
    parser.add_argument("--trial", action="store_true", help="every step, very small; ships nothing")
    arguments = parser.parse_intermixed_args()  # `epochs=60 --seeds 3 compile=false`
    arguments.out = arguments.out or Path("runs-trial" if arguments.trial else "runs")
    arguments.deadline = time.monotonic() + 60 * arguments.minutes
    try:
        run(arguments)
    except UserError as error:
        sys.exit(f"programme: error: {error}")
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)
    except OutOfTime:
        print("out of time; the same command goes on")
        sys.exit(TO_BE_CONTINUED)


if __name__ == "__main__":
    main()
