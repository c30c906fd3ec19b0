"""The command `emograph bench`; found by its entry point, so the engine does not know it."""

from __future__ import annotations

import importlib
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from bench.record import RESULTS, Result, Settings, cell
from nodes.location import check_folder
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
WITH_DEVICE = ("classify", "train")
"""Those that may run on a GPU."""


def bench(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help=", ".join(BENCHMARKS))] = None,
    runs: Annotated[int, typer.Option(min=1, help="repetitions; the median counts")] = 3,
    seconds: Annotated[
        float,
        typer.Option(min=0.1, max=3600, help="length of one measurement (e2e: live graphs take 10 to 20)"),
    ] = 5.0,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONTESTANT",
            help="only this row of the tables (e2e: efficiency, live, growth, overload); repeat for several",
        ),
    ] = None,
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
    if device != "cpu" and name not in WITH_DEVICE:
        raise UserError(f"--device {device}: only {' and '.join(WITH_DEVICE)} run on another device than the CPU")
    if save:
        check_folder(RESULTS)
    settings = Settings(runs, seconds, tuple(only or ()), data=data, device=device)
    if python is not None:
        if shutil.which(python) is None:
            raise UserError(f"there is no Python at {python}: give --python that of the environment with the peers")
        settings.python = python
    if videos is not None:
        settings.videos = videos
    for end in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, _leave)
    try:
        benchmark = importlib.import_module(f"bench.{name}")
        offered = benchmark.contestants(settings)
        for unknown in sorted(set(settings.only) - set(offered)):
            # Some have commas in their names.
            raise UserError(f"nothing in {name} is called '{unknown}'{did_you_mean(unknown, offered, between=' | ')}")
        result: Result = benchmark.run(settings)
    except ModuleNotFoundError as error:
        raise UserError(f"this benchmark needs {error.name}: uv sync --extra bench") from error
    if as_json:
        print(dumps(result.as_dict(settings)))
    else:
        show(result)
    if save:
        try:
            page = result.write(settings)
        except OSError as error:
            raise UserError(f"cannot write to {RESULTS}: {error.strerror}") from None
        typer.echo(f"written to {page}", err=as_json)


def _leave(signal_number: int, frame: FrameType | None) -> None:
    """A terminal that is closed, or a kill: what was started is ended as after Ctrl-C."""
    sys.exit(128 + signal_number)


def show(result: Result) -> None:
    """The tables on the terminal."""
    from pipeline.console import print_table

    for title, rows in result.tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        print(f"\n{title}")
        print_table(columns, [[cell(row.get(c)) for c in columns] for row in rows], numbers=range(1, len(columns)))
    for note in [*result.notes, *(f"not measured: {what}" for what in result.skipped)]:
        print(f"- {note}")
