"""Where the ``metrics-etl`` command begins: first what must hold from the start, then the imports that take their time."""

from etl.cli import streams


def main() -> None:
    """Run the command."""
    streams.take_over()
    from etl.cli import process  # noqa: PLC0415

    process.prepare()
    from etl.cli.commands import app  # noqa: PLC0415

    app()
