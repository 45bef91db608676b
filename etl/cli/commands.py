"""The command line ``metrics-etl``: which commands it has, under which headings, and what its ``--help`` looks like.

Composes, and does nothing else: each command is a function of a ``*_command`` or ``*_commands`` module, and what it
prints is in a ``show_*`` module. Results go to stdout, messages and progress to stderr. Commands import heavy modules
inside their functions, so that ``--help`` is quick.
"""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from etl.cli.compare_command import compare
from etl.cli.console import print_result
from etl.cli.dataset_commands import forget, load, schema, status, verify
from etl.cli.process import end
from etl.cli.report_command import report
from etl.cli.run_commands import plan, run
from etl.cli.sandbox_commands import demo, sandbox
from etl.cli.source_commands import check, discover, init
from etl.errors import ExitCode
from etl.version import __version__


class _Panels:
    """Groups options and commands of plain-text help under their headings, which typer itself does only with rich."""

    def format_options(self: Any, ctx: Any, formatter: Any) -> None:
        """Write a section for each heading; click calls this instead of its own method."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            default = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panel = getattr(parameter, "rich_help_panel", None) or default
            panels.setdefault(panel, []).append(parameter.get_help_record(ctx))
        for name, command in getattr(self, "commands", {}).items():
            panels.setdefault(command.rich_help_panel, []).append((name, command.help.partition("\n\n")[0]))
        for panel, records in panels.items():
            with formatter.section(panel):
                formatter.write_dl(records)


class _Command(_Panels, TyperCommand):
    """A command with this help."""


class _Group(_Panels, TyperGroup):
    """All commands, with this help."""


app = typer.Typer(
    cls=_Group,
    name="metrics-etl",
    help="Export Future AGI simulation metrics to a partitioned Parquet dataset.",
    epilog=f"Exit codes: {', '.join(f'{code} {code.meaning}' for code in ExitCode)}.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Export": (init, run, plan, check, discover),
    "Look at the dataset": (status, verify, compare, report, schema),
    "Maintain": (load, forget),
    "Try it": (demo, sandbox),
}
"""The commands under the headings of ``--help``, in its order."""

for panel, commands in _COMMANDS.items():
    for command in commands:
        app.command(cls=_Command, rich_help_panel=panel)(command)


def _print_version(is_given: bool) -> None:  # noqa: FBT001 as typer calls it
    if is_given:
        print_result(__version__)
        end(ExitCode.COMPLETE)


# Eager: read before all other options, so that --version does not wait for the imports that reading these takes.
_Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
]


@app.callback(invoke_without_command=True)
def root(context: typer.Context, *, version: _Version = False) -> None:  # noqa: D103, ARG001 its callback has printed
    if context.invoked_subcommand is None:
        print_result(context.get_help())
        end(ExitCode.CONFIGURATION)
