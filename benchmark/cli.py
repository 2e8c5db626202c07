"""The command line. The only module that prints; heavy imports wait until a command needs them."""

import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from ..plugins import InputError, suggestion
from .catalogue import KINDS

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


def names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


@app.command()
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
        typer.Option(parser=int, metavar="N", help="Cells at once [one a core, or one a GPU]."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or one, such as cuda:1.")] = "auto",
    wandb: Annotated[bool, typer.Option("--wandb", help="Log to Weights & Biases.")] = False,
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
                workers=workers,
                device=device,
                wandb=wandb,
                on_plan=display.on_plan,
                on_event=display.on_event,
                on_note=display.notes.append,
            )
    except KeyboardInterrupt:
        stopped(display)
    from .leaderboard import leaderboard

    typer.echo(leaderboard(rows).headline().to_text(width(), bold=sys.stdout.isatty()))
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
    metric: Annotated[
        str | None,
        typer.Option(metavar="NAME,…", help="Only these, or families; best of the first first."),
    ] = None,
    format: Annotated[Literal["text", "md", "csv", "latex", "svg"], typer.Option()] = "text",
) -> None:
    """Print the leaderboard of a run: mean ± 95 % interval over seeds."""
    from .leaderboard import leaderboard
    from .store import Store

    board = leaderboard(Store(directory).rows())
    if metric is not None:
        board = board.only(*names(metric) or [])
    elif format != "csv":
        board = board.headline()
    made = {
        "text": lambda: board.to_text(width(), bold=sys.stdout.isatty()),
        "md": board.to_markdown,
        "csv": board.to_csv,
        "latex": board.to_latex,
        "svg": board.to_svg,
    }
    typer.echo(made[format](), nl=False)


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
