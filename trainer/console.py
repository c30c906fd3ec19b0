"""What a person sees of the trainer's commands: progress and tables on a terminal, plain lines when piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from nodes.preprocess import LABELS
from trainer.cut import NO_FACE, UNREADABLE, Cut
from trainer.evaluate import Evaluation
from trainer.loop import Progress

_PLAIN_EVERY = 10.0


@contextmanager
def waiting() -> Iterator[Callable[[str], None]]:
    """Shows on a terminal what takes a while, and since when: call what it gives with a few words."""
    console = Console(stderr=True)
    bar = Bar(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True)
    bar.disable = not console.is_terminal
    with bar:
        task = bar.add_task("", total=None)
        yield lambda what: bar.update(task, description=what)


class TrainingView:
    """A progress bar on a terminal; when piped a line after each epoch, and in long epochs every ten seconds."""

    def __init__(self) -> None:
        console = Console()
        self._bar = None
        if console.is_terminal:
            self._bar = Bar(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
            self._task = self._bar.add_task("", total=1, figures="")
        self._said = time.monotonic()

    def __enter__(self) -> TrainingView:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, what: str) -> None:
        """What takes a while before the first epoch; not worth a line where it is piped."""
        if self._bar:
            self._bar.update(self._task, description=what)

    def tell(self, progress: Progress) -> None:
        self._show("", progress)

    def tell_seed(self, seed: int, progress: Progress) -> None:
        self._show(f"seed {seed}, ", progress)

    def _show(self, prefix: str, p: Progress) -> None:
        where = f"{prefix}epoch {p.epoch + 1}/{p.epochs}"
        if p.remark:
            (self._bar.console if self._bar else Console(stderr=True)).print(p.remark, highlight=False, markup=False)
        figures = (
            f"loss {p.loss:.3f}, accuracy {p.accuracy:.1%}, {p.images_per_second:,.0f} images/s, "
            f"{_duration(p.seconds_left)} left"
        )
        if p.public is not None:
            figures += f", PublicTest {p.public:.2%}"
        if self._bar:
            done = p.epoch * p.steps + p.step
            self._bar.update(self._task, total=p.epochs * p.steps, completed=done, description=where, figures=figures)
            if p.public is not None:
                self._bar.console.print(f"{where}: {figures}", highlight=False)
        elif p.public is not None or time.monotonic() - self._said > _PLAIN_EVERY:
            self._said = time.monotonic()
            print(f"{where}, step {p.step}/{p.steps}: {figures}", flush=True)


def print_evaluation(evaluation: Evaluation) -> None:
    """The tables of `emograph evaluate`."""
    rows = [
        [
            name,
            f"{f.accuracy:.2%}",
            f"{f.interval[0]:.1%} - {f.interval[1]:.1%}",
            f"{f.macro_f1:.3f}",
            f"{f.nll:.3f}",
            f"{f.ece:.3f}",
        ]
        for name, f in evaluation.figures.items()
    ]
    plain = evaluation.figures["none"]
    _table(
        f"{evaluation.split}, {plain.count} faces",
        ["views", "accuracy", "95 % interval", "macro F1", "NLL", "ECE"],
        rows,
    )
    _table(
        "one view: labelled (rows) and read as (columns); share read rightly",
        ["", *(name[:5] for name in LABELS), "recall", "95 % interval"],
        [
            [
                name,
                *map(str, plain.confusion[i]),
                *(
                    ("-", "-")
                    if recall is None
                    else (f"{recall:.1%}", "{:.1%} - {:.1%}".format(*plain.recall_interval[name]))
                ),
            ]
            for i, (name, recall) in enumerate(plain.recall.items())
        ],
    )
    c = evaluation.calibration
    print(
        f"temperature {c.temperature:.3f}: NLL {c.nll_before:.3f} -> {c.nll_after:.3f}, "
        f"ECE {c.ece_before:.3f} -> {c.ece_after:.3f}"
    )
    if (t := evaluation.through_detector) and t.accuracy is None:
        print(f"through the detector: found none of {t.count}")
    elif t:
        print(
            f"through the detector: found {t.found_rate:.1%} of {t.count}; of these {t.accuracy:.2%} right "
            f"({t.interval[0]:.1%} - {t.interval[1]:.1%}), directly {t.direct:.2%}"
        )


def print_info(description: dict[str, Any]) -> None:
    """The table of `emograph data info`."""
    counts = description["counts"]
    rows = [[name, *(str(counts[split][name]) for split in counts)] for name in LABELS]
    rows.append(["all", *(str(sum(counts[split].values())) for split in counts)])
    _table(f"{description['source']}: {description['faces']} faces", ["class", *counts], rows)
    blank, copies = description["blank"], description["copies"]
    files = description["blank_files"]
    which = f"{_some(files)}" if files else f"rows {_some(blank)}, counted from 0"
    print(f"blank pictures: {len(blank)}" + (f" ({which})" if blank else ""))
    print("exact copies inside a split: " + ", ".join(f"{split} {n}" for split, n in copies.items()))
    into = ", ".join(f"{n} {split} pictures" for split, n in description["leaked_into"].items())
    print(f"exact copies across splits: {description['leaked']} Training pictures" + (f", {into}" if into else ""))
    print(f"groups of copies with different labels: {description['contradictions']}")


def print_cuts(cuts: list[Cut]) -> None:
    """The table of `emograph data cut`."""
    rows = []
    for name in (*LABELS, "all"):
        of = [cut for cut in cuts if name in (LABELS[cut.file.label], "all")]
        none, unreadable = (sum(cut.problem.startswith(why) for cut in of) for why in (NO_FACE, UNREADABLE))
        several = sum(cut.faces > 1 for cut in of)
        rows.append([name, *map(str, (len(of), len(of) - none - unreadable, several, none, unreadable))])
    head = ["class", "pictures", "cut", "of several faces", "without a face", "unreadable"]
    _table("faces cut", head, rows)


def _some(rows: list[Any]) -> str:
    shown = ", ".join(map(str, rows[:20]))
    return shown + (", ..." if len(rows) > 20 else "")


def _table(title: str, head: list[str], rows: list[list[str]]) -> None:
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        print(title)
        for row in [head, *rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
