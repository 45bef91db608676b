"""What ``schema`` prints of the columns: for people, and for scripts. Decides nothing."""

import sys
from collections.abc import Sequence
from textwrap import fill
from typing import Any

from rich.console import Console
from rich.text import Text

from etl.cli.console import print_json
from etl.model import schema


def print_schema(tables: Sequence[schema.Table], output: str) -> None:
    """Print the columns of the tables to stdout; ``output`` is ``"table"`` or ``"json"``."""
    if output == "json":
        print_json([_as_json(table) for table in tables])
        return
    # As wide as the terminal also where a pager such as less reads this: rich asks all three standard streams.
    console = Console(file=sys.stdout, highlight=False)
    for table in tables:
        console.print(f"\n[bold]{table.name}[/]: one row per {table.one_row_per}, identified by {', '.join(table.key)}")
        for column in table.columns:
            unit = f", {column.unit}" if column.unit else ""
            console.print(Text.assemble((column.name, "bold"), f"  {column.type_name}{unit}"))
            source = f" Source: {column.source.replace('|', ' or ')}." if column.source else ""
            text = f"{column.meaning}{source} {column.null_rule[0].upper()}{column.null_rule[1:]}."
            console.print(Text(fill(text, console.width, initial_indent=" " * 4, subsequent_indent=" " * 4)))


def _as_json(table: schema.Table) -> dict[str, Any]:
    return {
        "table": table.name,
        "one_row_per": table.one_row_per,
        "key": table.key,
        "columns": [
            {"name": column.name} | {title: text or None for title, text in column.described.items()}
            for column in table.columns
        ],
    }
