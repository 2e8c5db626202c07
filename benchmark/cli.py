"""The command line. The only module that prints; heavy imports wait until a command needs them."""

import inspect
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from ..plugins import InputError, suggestion
from .catalogue import KINDS
from .engines import Engine
from .store import Unwritable

if TYPE_CHECKING:
    from .display import Display

app = typer.Typer(
    help="Train autoencoders on a grid of datasets and seeds, score them, rank them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Directory = Annotated[str, typer.Argument(metavar="DIR", help="The folder of a run's results.")]
Metrics = Annotated[
    str | None,
    typer.Option("--metric", metavar="NAME,…", help="Only these, or families; the first ranks."),
]
Datasets = Annotated[str | None, typer.Option(metavar="NAME,…", help="Only these of the results.")]
Format = Annotated[Literal["text", "md", "csv", "latex", "html", "svg"], typer.Option()]


def names(text: str | None) -> list[str] | None:
    """What is listed with commas; those within brackets belong to a name."""
    if text is None:
        return None
    found = re.split(r",(?![^(\[]*[)\]])", text)
    return [name.strip() for name in found if name.strip()]


def with_engines(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with an option for every parameter of every engine, such as ``--ray-address``."""
    parameters = dict(inspect.signature(command, eval_str=True).parameters)
    del parameters["options"]
    for name, engine in Engine.choices().items():
        for key, held in engine.parameters_of().items():
            option = typer.Option(metavar=key.upper(), help=engine.about(key), show_default=False)
            parameters[f"{name}_{key}"] = held.replace(
                name=f"{name}_{key}", default=None, annotation=Annotated[str | None, option]
            )
    vars(command)["__signature__"] = inspect.Signature(list(parameters.values()))
    return command


def engine_of(name: str, options: dict[str, str | None]) -> Engine:
    """The engine called ``name``, with what the command line says of its parameters.

    Raises:
        InputError: an option of another engine, or a value that it refuses.
    """
    chosen = Engine.choose(name)
    given: dict[str, Any] = {}
    for option, text in options.items():
        owner, _, key = option.partition("_")
        if text is None:
            continue
        flag = f"--{option.replace('_', '-')}"
        if owner != name:
            raise InputError(f"{flag} is for --engine {owner}, not {name}")
        numeric = chosen.parameters_of()[key].annotation in (int, int | None)
        given[key] = int(text) if numeric and re.fullmatch(r"-?\d+", text) else text
    return chosen(**chosen.complete(given))


@app.command()
@with_engines
def run(
    grid: Annotated[str, typer.Argument(metavar="GRID", help="A shipped grid or a YAML file.")],
    datasets: Annotated[str | None, typer.Option(help="Only these of the grid: a,b.")] = None,
    models: Annotated[str | None, typer.Option(help="Only these of the grid: a,b.")] = None,
    seeds: Annotated[
        int | None, typer.Option(parser=int, metavar="N", help="So many seeds, from 0 on.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the grid: training.epochs=5."),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="FILE.py", help="A file whose models join the grid."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="The folder of results [runs/GRID].")] = None,
    workers: Annotated[
        int | None,
        typer.Option(parser=int, metavar="N", help="Cells at once [as many as there is room for]."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or one: cuda:1.")] = "auto",
    per_device: Annotated[
        int | None, typer.Option(parser=int, metavar="N", help="Cells at once on a GPU [1].")
    ] = None,
    devices: Annotated[
        int | None, typer.Option(parser=int, metavar="N", help="Train each cell on so many [1].")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="32|bf16-mixed", help="Of the training [32].")
    ] = None,
    engine: Annotated[str, typer.Option(metavar="NAME", help="What runs the cells.")] = "local",
    wandb: Annotated[bool, typer.Option("--wandb", help="Log to Weights & Biases.")] = False,
    **options: str | None,
) -> None:
    """Train and score what a grid's folder does not have yet; print its leaderboard."""
    from .display import Display

    display = Display()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        from .runner import run as run_grid

        with display:
            rows = run_grid(
                grid,
                datasets=names(datasets),
                models=names(models),
                seeds=seeds,
                settings=settings or [],
                files=files or [],
                out=out,
                engine=engine_of(engine, options),
                workers=workers,
                device=device,
                devices=devices,
                per_device=per_device,
                precision=precision,
                wandb=wandb,
                on_plan=display.on_plan,
                on_event=display.on_event,
                on_note=display.notes.append,
            )
    except KeyboardInterrupt:
        stopped(display)
    from .leaderboard import leaderboard

    typer.echo(leaderboard(rows).headline().draw("text", width(), bold=sys.stdout.isatty()))
    typer.echo(display.summary())
    if display.failures:
        raise typer.Exit(1)


def interrupt(number: int, frame: Any) -> NoReturn:
    """A cluster's SIGTERM stops a run as Ctrl-C does."""
    raise KeyboardInterrupt


def stopped(display: "Display") -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    typer.echo(display.summary(), err=True)
    typer.echo("Stopped. The same command goes on from here.", err=True)
    raise typer.Exit(130)


@app.command()
def table(
    directory: Directory,
    metric: Metrics = None,
    datasets: Datasets = None,
    rank: Annotated[
        bool, typer.Option("--rank", help="Rank over the datasets, with tests and win rates.")
    ] = False,
    format: Format = "text",
) -> None:
    """Print the leaderboard of a run: mean ± 95 % interval over seeds."""
    from .leaderboard import leaderboard
    from .results import read

    board = leaderboard(read(directory).rows)
    if datasets is not None:
        board = board.of(*names(datasets) or [])
    if metric is not None:
        board = board.only(*names(metric) or [])
    elif format != "csv" or rank:
        board = board.headline()
    shown = board.ranking if rank else board
    typer.echo(shown.draw(format, width(), bold=sys.stdout.isatty()), nl=False)


@app.command()
def compare(
    directory: Directory,
    model: Annotated[str, typer.Option(metavar="NAME", help="The model in question.")],
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Against these [all others].")
    ] = None,
    metric: Metrics = None,
    datasets: Datasets = None,
    format: Format = "text",
) -> None:
    """Tell whether a model beats the baselines: on what, by how much, how surely, at what cost."""
    from .compare import compare as against
    from .results import read

    held = read(directory)
    found = against(
        held.rows,
        model,
        names(baseline),
        metrics=names(metric),
        datasets=names(datasets),
        devices={cell: spec["device"] for cell, spec in held.specs.items()},
    )
    typer.echo(found.draw(format, width(), bold=sys.stdout.isatty()), nl=False)


@app.command()
def report(
    directory: Directory,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="The page [DIR/report.html].")
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option("--model", metavar="FILE.py", help="A file to load first.")
    ] = None,
    wandb: Annotated[
        str | None,
        typer.Option(metavar="PROJECT", help="Log to Weights & Biases, with a Report."),
    ] = None,
) -> None:
    """Write one HTML page with everything: tables, ranks, costs, curves and pictures."""
    from ..plugins import load_file
    from .report.page import page
    from .results import read

    for file in files or []:
        load_file(file)
    held = read(directory)
    made = Path(out).expanduser() if out else held.path / "report.html"
    try:
        page([held], made)
    except OSError as error:
        raise InputError(f"{made} cannot be written: {error.strerror}") from None
    typer.echo(f"written: {made}")
    if wandb:
        from .display import counting
        from .report.tracking import log_results

        with counting("logging") as on_progress:
            logged = log_results(held, wandb, on_progress)
        for note in logged.notes:
            typer.echo(note)


@app.command()
def merge(
    directories: Annotated[list[str], typer.Argument(metavar="DIR...", help="Folders of runs.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="The folder that gets the cells.")],
) -> None:
    """Merge the results of several machines; nothing is overwritten, conflicts are named."""
    from .merge import merge as merged

    found = merged(directories, out)
    typer.echo(found.summary())
    if not found.whole:
        raise typer.Exit(1)


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(metavar="|".join(KINDS))],
    files: Annotated[
        list[str] | None, typer.Option("--model", metavar="FILE.py", help="A file to load first.")
    ] = None,
) -> None:
    """List what can be chosen, with its parameters."""
    if kind not in KINDS:
        raise InputError(f"cannot list {kind!r}{suggestion(kind, KINDS)}")
    from ..plugins import load_file
    from .catalogue import catalogue

    for file in files or []:
        load_file(file)
    for entry in catalogue(kind):
        typer.echo(typer.style(entry.name, bold=True) + (f"  {entry.about}" if entry.about else ""))
        if entry.parameters:
            typer.echo("    " + ", ".join(entry.parameters))


@app.command()
def show(
    directory: Directory,
    cell: Annotated[str, typer.Argument(metavar="CELL", help="Its name, or the beginning.")],
) -> None:
    """Show one cell: specification, metrics, pictures."""
    import yaml

    from .store import Store, read_json

    found, folder = Store(directory).find(cell)
    about = read_json(folder / "cell.json")
    typer.echo(typer.style(found.title, bold=True))
    typer.echo(yaml.safe_dump(about["spec"], sort_keys=False).rstrip())
    typer.echo(yaml.safe_dump({"provenance": about["provenance"]}, sort_keys=False).rstrip())
    typer.echo("metrics:")
    for row in read_json(folder / "metrics.json"):
        name = f"{row['metric']} ({row['sampler']})" if row["sampler"] else row["metric"]
        value = f"n/a: {row['note']}" if row["value"] is None else f"{row['value']:.6g}"
        typer.echo(f"  {name:32} {value} {row['unit']}".rstrip())
    typer.echo("pictures:")
    for picture in sorted((folder / "pictures").iterdir()):
        typer.echo(f"  {picture}")


def width() -> int:
    """The terminal's width, or 100 where there is none."""
    if not sys.stdout.isatty():
        return 100
    return os.get_terminal_size(sys.stdout.fileno()).columns


def main() -> None:
    """Run the command line: 0 done, 1 a cell failed, 2 bad input, 130 stopped."""
    command = typer.main.get_command(app)
    try:
        code = command(standalone_mode=False)
    except InputError as error:
        code = complain(str(error))
    except Unwritable as error:
        complain(f"{error}; what is finished is kept, and the same command goes on from there")
        code = 1
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        # Typer's own complaints: which class they are depends on its version.
        if not hasattr(error, "format_message"):
            raise
        code = complain(error.format_message())
    sys.exit(code if isinstance(code, int) else 0)


def complain(message: str) -> int:
    typer.echo(f"aebench: {' '.join(message.split())}", err=True)
    return 2
