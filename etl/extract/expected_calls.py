"""How many calls an execution's list should name, by what is stored and what the source counts, and when it names too few. Pure."""

from etl.extract.plan import Planned, is_mass_vanishing
from etl.model.lifecycle import ExportState
from etl.model.listed_execution import call_counts

_MAY_VANISH = 1


def expected_calls(item: Planned, stored_calls: int) -> int:
    """The calls that are stored or were listed last time, and those that the source counts, whichever are more.

    The source counts deleted calls for ever. So it is not asked about an execution that was exported as it is now.
    """
    known = item.stored
    expected = max(stored_calls, (known.held.listed_calls or 0) if known else 0)
    is_believed = (
        known is not None
        and known.export_state in (ExportState.EXPORTED, ExportState.SETTLING)
        and known.fingerprint == item.execution.fingerprint
    )
    return expected if is_believed else max(expected, *call_counts(item.execution.unpack().payload), 0)


def is_too_few(*, missing: int, expected: int) -> bool:
    """Whether so many calls are missing from a list that it may be wrong: all, or more than a tenth. One may always vanish."""
    return is_mass_vanishing(vanished=missing, living=expected, always_allowed=_MAY_VANISH)
