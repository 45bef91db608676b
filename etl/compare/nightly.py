"""What got worse, as far as the dataset's nights show."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from etl.load.files.contract import Files


@dataclass(frozen=True, slots=True)
class Worse:
    """A metric of a run test that got worse on a day; ``text`` has names and figures only."""

    run_test: str
    metric: str
    since: date
    text: str


def read_worse(files: Files) -> Sequence[Worse]:  # noqa: ARG001
    """All that is worse than it was."""
    return ()
