"""Compare an execution's stored rows with its lists: which rows may stay, and whether all are right. Pure.

``settling.py`` decides with it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from etl.extract.call_list import CallList
from etl.extract.open_execution import OpenExecution
from etl.extract.plan import Planned
from etl.model import schema
from etl.model.digest import fingerprint
from etl.model.lifecycle import BEGUN, WHOLE
from etl.model.records import FROM_DETAIL, ListedCall
from etl.transform.detail import EXPORTED, differences
from etl.transform.flatten import eval_outputs, has_evals
from etl.version import __version__

Row = Sequence[Any]
"""The values of a stored row, in the order of its table's columns."""
_METRICS_FROM = schema.CALLS.names.index("metrics_from")
_EXPORTED_AT = schema.CALLS.names.index("exported_at")
_EVAL_CONFIG_ID = schema.EVALS.names.index("eval_config_id")


def fingerprint_of(item: Planned, latest: CallList) -> str:
    """The fingerprint of what the list of calls and the detail say, as far as it is exported, and of what is stored.

    So if it is the same again, there is no difference again. It is empty where the lists do not show everything, and
    another one in another version, which may export more.
    """
    details = latest.details.calls if latest.details and not latest.details.failure else {}
    if latest.count is not None or latest.unreadable or latest.calls.keys() != details.keys():
        return ""
    shown = {key: {name: each.payload.get(name) for name in EXPORTED} for key, each in details.items()}
    listed = {key: call.payload for key, call in latest.calls.items()}
    rows = item.stored and item.stored.held.calls_digest
    return fingerprint({"of": (__version__, item.run_test_name, rows), "listed": listed, "shown": shown})


def stays_whole(execution: OpenExecution, latest: CallList) -> bool:
    """Whether one page showed all stored calls, which stay without an amendment, with their evals, and no others."""
    stored, arrived = execution.stored, execution.arrived
    if latest.count is not None or latest.unreadable or arrived.amended:
        return False
    if not arrived.kept == stored.rows.keys() == latest.calls.keys():
        return False
    return latest.lacks_evals or all(has_evals(call, stored.evals.get(key, ())) for key, call in latest.calls.items())


def calls_without_evals(execution: OpenExecution, details: Mapping[str, ListedCall]) -> frozenset[str]:
    """The calls whose list does not show evals that are stored, and that the detail still shows: these are not gone."""
    listed, stored = execution.listed, execution.stored.evals
    if listed.lacks_evals:
        return frozenset()

    def hides_evals(key: str) -> bool:
        known, shown = {row[_EVAL_CONFIG_ID] for row in stored[key]}, details[key].payload.get("eval_outputs")
        return isinstance(shown, dict) and bool(known & shown.keys() - eval_outputs(listed.calls[key]).keys())

    return frozenset(filter(hides_evals, details.keys() & stored.keys() & listed.calls.keys()))


def candidates_in(execution: OpenExecution) -> set[str]:
    """The listed calls whose rows may stay.

    Not one that a dead letter is about, since its row is older; nor one whose row was made of lists, where exact
    metrics are wanted.
    """
    stored = execution.stored
    may_be_of_lists = execution.planned.route.makes_rows_of_lists
    listed = {key for key, call in execution.listed.calls.items() if isinstance(call.payload.get("status"), str)}
    exact = {key for key, row in stored.rows.items() if may_be_of_lists or row[_METRICS_FROM] != FROM_DETAIL}
    return (listed & exact) - stored.failed


def standing_in(item: Planned, rows: Mapping[str, Row]) -> set[str]:
    """The calls whose rows are of the execution as it is listed now: it was stored so, or they were fetched since.

    What only the detail shows of any other call may be gone at the source.
    """
    stored = item.stored
    if stored is None or stored.deleted_at or stored.fingerprint != item.execution.fingerprint:
        return set()
    if stored.export_state in WHOLE:
        return {*rows}
    begun_at = stored.verified_at if stored.export_state in BEGUN else None
    moments = {key: row[_EXPORTED_AT] for key, row in rows.items() if begun_at}
    return {key for key, moment in moments.items() if moment is not None and begun_at and moment >= begun_at}


def differences_of(item: Planned, listed: ListedCall, detail: ListedCall, stored: Row) -> set[str]:
    """The columns in which the call would get another row, as for ``differences``."""
    return differences(listed, detail, stored, run_test_name=item.run_test_name, started_at=item.execution.started_at)
