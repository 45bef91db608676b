"""``python -m etl`` is ``metrics-etl``."""

from etl.cli.app import main

main()
