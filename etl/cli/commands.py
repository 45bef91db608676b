"""The subcommands of ``metrics-etl`` as one command line.

Results go to stdout, messages and progress to stderr. Commands import heavy modules inside their functions, so that ``--help`` is
quick.
"""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from etl.cli import compare, dataset, report, run, sandbox, source
from etl.cli.console import print_result
from etl.cli.process import end
from etl.errors import EXIT_MEANINGS, ExitCode
from etl.version import __version__


class _PlainFlags:
    """Help shows no type beside an option that takes no value."""

    def get_params(self, ctx: Any) -> Any:
        parameters: Any = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
        return parameters


class _Command(_PlainFlags, TyperCommand):
    pass


class _Group(_PlainFlags, TyperGroup):
    pass


def _help(command: Callable[..., None]) -> str:
    """Its docstring, each paragraph in one line: a terminal wraps it where it ends."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (command.__doc__ or "").strip().split("\n\n"))


app = typer.Typer(
    cls=_Group,
    name="metrics-etl",
    help="Export Future AGI simulation metrics to a partitioned Parquet dataset.",
    epilog=f"Exit codes: {', '.join(f'{code} {meaning}' for code, meaning in EXIT_MEANINGS.items())}.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for panel, commands in {
    "Export": (run.run, run.plan, source.check, source.discover),
    "Look at the dataset": (dataset.status, dataset.verify, compare.compare, report.report, dataset.schema),
    "Maintain": (run.load,),
    "Try it": (sandbox.demo, sandbox.sandbox),
}.items():
    for command in commands:
        app.command(cls=_Command, rich_help_panel=panel, help=_help(command))(command)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:  # noqa: D103, FBT002
    if version:
        print_result(__version__)
        end(ExitCode.COMPLETE)
