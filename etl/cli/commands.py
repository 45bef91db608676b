"""The subcommands of ``metrics-etl`` as one command line.

Results go to stdout, messages and progress to stderr. Commands import heavy modules inside their functions, so that ``--help`` is
quick.
"""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from etl.cli import (
    compare_command,
    dataset_commands,
    report_command,
    run_commands,
    sandbox_commands,
    source_commands,
)
from etl.cli.console import print_result
from etl.cli.process import end
from etl.errors import ExitCode
from etl.version import __version__


class _Panels:
    """Help as plain text, options and commands under the headings that they name."""

    def format_options(self: Any, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for each in self.get_params(ctx):
            default = "Arguments" if each.param_type_name == "argument" else "Options"
            panels.setdefault(getattr(each, "rich_help_panel", None) or default, []).append(each.get_help_record(ctx))
        for name, command in getattr(self, "commands", {}).items():
            panels.setdefault(command.rich_help_panel, []).append((name, command.help.partition("\n\n")[0]))
        for panel, records in panels.items():
            with formatter.section(panel):
                formatter.write_dl(records)


class _Command(_Panels, TyperCommand):
    pass


class _Group(_Panels, TyperGroup):
    pass


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
    "Export": (
        source_commands.init,
        run_commands.run,
        run_commands.plan,
        source_commands.check,
        source_commands.discover,
    ),
    "Look at the dataset": (
        dataset_commands.status,
        dataset_commands.verify,
        compare_command.compare,
        report_command.report,
        dataset_commands.schema,
    ),
    "Maintain": (run_commands.load,),
    "Try it": (sandbox_commands.demo, sandbox_commands.sandbox),
}
for panel, commands in _COMMANDS.items():
    for command in commands:
        app.command(cls=_Command, rich_help_panel=panel)(command)


def _print_version(is_given: bool) -> None:  # noqa: FBT001 as typer calls it
    if is_given:
        print_result(__version__)
        end(ExitCode.COMPLETE)


# Eager: before any other option is read, for which typer imports pydantic.
_Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
]


@app.callback(invoke_without_command=True)
def root(context: typer.Context, *, version: _Version = False) -> None:  # noqa: D103, ARG001 its callback has printed it
    if context.invoked_subcommand is None:
        print_result(context.get_help())
        end(ExitCode.CONFIGURATION)
