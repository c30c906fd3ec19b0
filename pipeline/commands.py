"""The commands of `emograph` and their options; what they do is imported when they are called."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from pipeline.cli import DEBUG, debugging
from pipeline.errors import UserError, printable

COMMANDS_GROUP = "emograph.commands"


def _broken(name: str, entry: EntryPoint, error: BaseException) -> TyperCommand:
    """In the place of a command that another package promises and does not have."""
    package = entry.dist.name if entry.dist is not None else "?"
    text = f"command '{name}' of package {package} cannot be imported: {type(error).__name__}: {error}"

    def fail() -> None:
        raise UserError(text) from error

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    return TyperCommand(name, context_settings=anything, callback=fail, short_help=f"broken: {text}", help=text)


class _Group(TyperGroup):
    """Adds the commands of other packages (train, evaluate, ...), imported only when they are called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *sorted(e.name for e in entry_points(group=COMMANDS_GROUP))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for entry in entry_points(group=COMMANDS_GROUP, name=cmd_name):
            try:
                loaded = entry.load()
            except (Exception, SystemExit) as error:
                return _broken(cmd_name, entry, error)
            if not isinstance(loaded, typer.Typer):
                single = typer.Typer(add_completion=False)
                single.command(cmd_name)(loaded)
                loaded = single
            command = typer.main.get_command(loaded)
            command.name = cmd_name
            return command
        return None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Real-time facial-expression recognition for many cameras at once.",
)

Graph = Annotated[str, typer.Argument(metavar="FILE|STRING", help="a graph file, or a launch string 'a ! b ! c'")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NODE.PROP=VALUE", help="override a property (or mode=, latency_budget=, name=)"),
]
Json = Annotated[bool, typer.Option("--json", help="for machines")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"emograph {version('emograph')}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks and debug messages")] = False,
    show_version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    if debug:
        os.environ[DEBUG] = "1"


@app.command()
def launch(
    graph: Graph,
    settings: Set = None,
    duration: Annotated[str | None, typer.Option(metavar="TIME", help="stop after 30s, 5min, ...")] = None,
    trace: Annotated[Path | None, typer.Option(metavar="OUT.JSON", help="write a trace that Perfetto opens")] = None,
    monitor: Annotated[
        str | None, typer.Option(metavar="ENDPOINT", help="publish snapshots at tcp://127.0.0.1:5557 too, for `top`")
    ] = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(metavar="OUT.HTML", help="write a report at the end: expressions over time, shares"),
    ] = None,
    report_thumbnails: Annotated[
        bool, typer.Option("--report-thumbnails", help="with a small picture of each face in the report")
    ] = False,
    table: Annotated[
        list[Path] | None,
        typer.Option(metavar="OUT.CSV", help="write the scores of each face in each frame, CSV or .jsonl"),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="on a terminal too: a line for each message and event")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no events, only messages and the ledger")] = False,
    as_json: Json = False,
) -> None:
    """Run a graph until its sources end, --duration is over, or Ctrl-C; then print the ledger."""
    from pipeline.launch import launch_graph

    code = launch_graph(
        graph, settings, duration, trace, quiet=quiet, as_json=as_json, debug=debugging(), monitor=monitor, plain=plain,
        reports=report, thumbnails=report_thumbnails, tables=table,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def check(graph: Graph, settings: Set = None, as_json: Json = False) -> None:
    """Validate a graph; nothing is started, no file or camera is opened."""
    from pipeline.console import print_json
    from pipeline.graph import expand, missing_files
    from pipeline.load import load

    spec = load(graph, settings)
    plan, missing = expand(spec), missing_files(spec)
    if as_json:
        print_json({
            "graph": plan.name, "mode": plan.mode, "cameras": plan.sources,
            "nodes": list(plan.nodes), "processes": plan.processes, "missing": missing,
        })  # fmt: skip
    else:
        cameras = "1 camera" if len(plan.sources) == 1 else f"{len(plan.sources)} cameras"
        processes = "1 process" if len(plan.processes) == 1 else f"{len(plan.processes)} processes"
        print(f"{graph}: ok: {cameras}, {len(plan.nodes)} nodes, {processes}, {plan.mode}")
        for line in missing.values():
            print(f"emograph: warning: {printable(line)}", file=sys.stderr)


@app.command()
def inspect(
    node: Annotated[str | None, typer.Argument(help="a node type")] = None,
    as_json: Json = False,
    schema: Annotated[bool, typer.Option("--schema", help="the JSON Schema of a graph file, for editors")] = False,
) -> None:
    """The registry; or one node type's pads, caps and properties."""
    from pipeline import inspection

    if schema:
        if node is not None:
            raise UserError("--schema is of all node types together: leave the type out (one alone: --json)")
        from pipeline.console import print_json
        from pipeline.schema import graph_schema

        print_json(graph_schema())
    elif node is None:
        inspection.print_registry(as_json)
    else:
        inspection.print_node(node, as_json)


@app.command()
def graph(
    graph: Graph,
    format: Annotated[str, typer.Option(help="mermaid, dot or svg")] = "mermaid",
    settings: Set = None,
) -> None:
    """The expanded graph as a picture, on stdout."""
    from pipeline import diagram
    from pipeline.errors import did_you_mean
    from pipeline.graph import expand
    from pipeline.load import load

    if format not in diagram.FORMATS:
        raise UserError(f"unknown format '{format}'{did_you_mean(format, diagram.FORMATS)}")
    print(diagram.FORMATS[format](expand(load(graph, settings))))


@app.command()
def events(
    endpoint: Annotated[str, typer.Argument(help="where a publish node listens, e.g. tcp://127.0.0.1:5556")],
    camera: Annotated[list[str] | None, typer.Option(help="only this camera (repeat for several)")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="observation, change or status")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="end after so many events")] = None,
    until_ended: Annotated[
        bool, typer.Option("--until-ended", help="end when all cameras have ended, or the run has")
    ] = False,
    as_json: Json = False,
) -> None:
    """Subscribe to a running graph's events and print them."""
    from pipeline.events_cli import print_events

    print_events(endpoint, camera, kind, as_json, count, until_ended)


@app.command()
def top(
    graph: Annotated[
        str | None,
        typer.Argument(metavar="[FILE|NAME|PID|ENDPOINT]", help="which running graph; not needed if there is one"),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="one table, or one snapshot, and end")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="snapshots as lines of JSON (docs/PROTOCOL.md)")] = False,
) -> None:
    """Live figures of a running graph: cameras, nodes, processes. `q` or Ctrl-C ends."""
    from pipeline.top import top as show

    show(graph, once=once, as_json=as_json)
