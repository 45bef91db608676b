"""Where the ``metrics-etl`` command begins: first what must hold from the start, then the imports that take their time."""

from etl.cli import signals


def main() -> None:
    """Run the command."""
    signals.end_on_signals()
    from etl.cli import process, streams  # noqa: PLC0415

    streams.take_over()
    process.prepare()
    from etl.cli.commands import app  # noqa: PLC0415

    app()
