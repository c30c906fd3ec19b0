"""The command `emograph bench`; found by its entry point, so the engine does not know it."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Annotated

import typer

from bench.record import RESULTS, Result, Settings, cell
from pipeline.errors import UserError, did_you_mean

BENCHMARKS = {
    "transport": "frames between processes: 1080p through three links, against raw pyzmq, imagezmq, dora-rs, a queue",
    "detect": "haardetect on real clips, against the plain cascade on every frame and GStreamer's facedetect",
    "classify": "the network: faces/s and latency by backend and batch size, with its accuracy",
    "accuracy": "how often the named expression is right: the networks that ship, and the fer package",
    "e2e": "whole graphs: against a plain loop, four live cameras, 1 to 16 cameras",
    "startup": "from the command to the first event",
    "train": "the trainer: images/s against a plain loop with DataLoader and torchvision transforms",
}


def bench(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help=", ".join(BENCHMARKS))] = None,
    runs: Annotated[int, typer.Option(min=1, help="repetitions; the median counts")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="length of one measurement")] = 5.0,
    only: Annotated[list[str] | None, typer.Option(help="only this contestant (repeat for several)")] = None,
    videos: Annotated[Path | None, typer.Option(help="folder of clips with faces")] = None,
    data: Annotated[Path | None, typer.Option(help="fer2013.csv, for accuracies and training")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    python: Annotated[str | None, typer.Option(help="the Python that has the peers (default: this one)")] = None,
    save: Annotated[bool, typer.Option("--save", help=f"write a dated file to bench/{RESULTS.name}/")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Run one benchmark; without a name, list them."""
    from pipeline.console import print_table
    from pipeline.jsonlines import dumps

    if name is None:
        print_table(["benchmark", ""], [[key, text] for key, text in BENCHMARKS.items()])
        return
    if name not in BENCHMARKS:
        raise UserError(f"no benchmark is called '{name}'{did_you_mean(name, BENCHMARKS)}")
    settings = Settings(runs, seconds, tuple(only or ()), data=data, device=device)
    if python is not None:
        if shutil.which(python) is None:
            raise UserError(f"there is no Python at {python}: give --python that of the environment with the peers")
        settings.python = python
    if videos is not None:
        settings.videos = videos
    benchmark = importlib.import_module(f"bench.{name}")
    offered = set(benchmark.contestants(settings))
    for unknown in sorted(set(settings.only) - offered):
        raise UserError(f"nothing in {name} is called '{unknown}'{did_you_mean(unknown, offered)}")
    result: Result = benchmark.run(settings)
    if as_json:
        print(dumps(result.as_dict(settings)))
    else:
        show(result)
    if save:
        typer.echo(f"written to {result.write(settings)}", err=as_json)


def show(result: Result) -> None:
    """The tables on the terminal."""
    from pipeline.console import print_table

    for title, rows in result.tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        print(f"\n{title}")
        print_table(columns, [[cell(row.get(c)) for c in columns] for row in rows], numbers=range(1, len(columns)))
    for note in [*result.notes, *(f"not measured: {what}" for what in result.skipped)]:
        print(f"- {note}")
