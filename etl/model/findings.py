"""What a person should know or do: each finding has a kind, a subject, a text, and a next step that its kind gives.

``run``, ``status``, ``verify``, ``check`` and ``load`` share them. Pure.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from etl.model.wording import quoted


class Severity(StrEnum):
    """How much a finding matters.

    ``missing``: something that exists at the source is not in the dataset, or not as it should be there. ``unknown``: nobody can
    tell. Both are alarms. A ``notice`` is only worth knowing.
    """

    MISSING = "missing"
    UNKNOWN = "unknown"
    NOTICE = "notice"


class Kind(StrEnum):
    """What is found."""

    # the source
    NO_SUCH_RUN_TEST = "no_such_run_test"
    LIST_FAILED = "list_failed"
    LIST_UNPROVED = "list_unproved"
    LIST_WRONG = "list_wrong"
    LOOK_UP_FAILED = "look_up_failed"
    ROW_UNREADABLE = "row_unreadable"
    RUN_TESTS_UNKNOWN = "run_tests_unknown"
    NOT_FETCHED = "not_fetched"
    DEAD_LETTER = "dead_letter"
    NEW_STATUS_ENDED = "new_status_ended"
    # the dataset
    QUARANTINED = "quarantined"
    LOST_ROWS = "lost_rows"
    DAMAGED = "damaged"
    MISPLACED = "misplaced"
    ALTERED = "altered"
    SCHEMA = "schema"
    UNREADABLE = "unreadable"
    NOT_READ = "not_read"
    FOREIGN_FILE = "foreign_file"
    DIFFERENCE = "difference"
    # the warehouse
    NOT_LOADED = "not_loaded"
    # worth knowing
    DELETED = "deleted"
    RENAMED = "renamed"
    FETCHED_AGAIN = "fetched_again"
    RUN_TEST_GONE = "run_test_gone"
    NAMESAKES = "namesakes"
    NEW_STATUS = "new_status"
    DOCUMENT_SET_ASIDE = "document_set_aside"
    CLOCK = "clock"
    NO_DETAIL = "no_detail"
    KEY_REMOVED = "key_removed"
    COLUMNS_ADDED = "columns_added"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a kind of finding says in general, and what to do about it."""

    severity: Severity
    meaning: str
    next_step: str


_RUN = "metrics-etl run tries again"
_MOVE_ASIDE = "move the file out of the dataset; metrics-etl run then fetches its rows again"
_NOTHING = "nothing"

MEANINGS: dict[Kind, Meaning] = {
    Kind.NO_SUCH_RUN_TEST: Meaning(
        Severity.MISSING,
        "the API knows no run test of this name",
        "correct the name in run_tests, or check that the key is of the right workspace: metrics-etl discover lists the names",
    ),
    Kind.LIST_FAILED: Meaning(Severity.UNKNOWN, "the list of a run test could not be read", _RUN),
    Kind.LIST_UNPROVED: Meaning(
        Severity.UNKNOWN, "a list kept changing while it was read, so rows may be missing from it", _RUN
    ),
    Kind.LIST_WRONG: Meaning(
        Severity.UNKNOWN, "a list lacks executions that exist, as the API says of their ids: nothing was marked", _RUN
    ),
    Kind.LOOK_UP_FAILED: Meaning(
        Severity.UNKNOWN, "the API did not say whether executions that are no longer listed still exist", _RUN
    ),
    Kind.ROW_UNREADABLE: Meaning(
        Severity.MISSING,
        "the API cannot give a row of a list; all others were exported",
        f"{_RUN}; if it stays for days, report it to the API's operators",
    ),
    Kind.RUN_TESTS_UNKNOWN: Meaning(
        Severity.UNKNOWN, 'with run_tests = "all": the list of run tests is not complete', _RUN
    ),
    Kind.NOT_FETCHED: Meaning(
        Severity.MISSING,
        "executions that were not fetched, or not all of them",
        "metrics-etl run goes on where the last one ended",
    ),
    Kind.DEAD_LETTER: Meaning(
        Severity.MISSING, "requests failed and were given up; the table errors has one row for each", _RUN
    ),
    Kind.NEW_STATUS_ENDED: Meaning(
        Severity.MISSING,
        "executions have stopped changing in a status that this version does not know: their calls are not fetched",
        'upgrade, or set [export] calls = "all"',
    ),
    Kind.QUARANTINED: Meaning(
        Severity.UNKNOWN,
        "a damaged file was moved to _state/quarantine; what the API lists of its rows was fetched again",
        "look at it, then remove it from _state/quarantine; metrics-etl run goes on without it",
    ),
    Kind.LOST_ROWS: Meaning(
        Severity.MISSING,
        "rows that the last run left are gone from their files, and were not fetched again",
        "metrics-etl run, without --run-test and --since; what the API no longer lists is only in your backups",
    ),
    Kind.DAMAGED: Meaning(
        Severity.MISSING,
        "an execution whose stored calls or evals are not those that were exported, or whose own row is missing",
        "metrics-etl run fetches it again, if the API still has it",
    ),
    Kind.MISPLACED: Meaning(
        Severity.MISSING,
        "rows in another part than their execution, or there twice: files were moved or copied by hand",
        "move the file back to where it was, or a copy out of the dataset; then metrics-etl run",
    ),
    Kind.ALTERED: Meaning(
        Severity.MISSING,
        "rows that were not written so: with other values, or with the key of another row",
        _MOVE_ASIDE,
    ),
    Kind.SCHEMA: Meaning(
        Severity.UNKNOWN,
        "a file with columns that this version does not know",
        f"upgrade the exporter if a newer one wrote it; otherwise {_MOVE_ASIDE}",
    ),
    Kind.UNREADABLE: Meaning(Severity.UNKNOWN, "a damaged file: cut short, or with a wrong checksum", _MOVE_ASIDE),
    Kind.NOT_READ: Meaning(
        Severity.UNKNOWN,
        "a file that this user may not read, or that does not fit into memory",
        "leave the file where it is, since its rows may be intact; try as another user, or with more memory",
    ),
    Kind.FOREIGN_FILE: Meaning(
        Severity.UNKNOWN,
        "something in the folder of a table that metrics-etl did not write: a file, a link, a pipe or a device",
        "move it out of the dataset, where readers may take it for data",
    ),
    Kind.DIFFERENCE: Meaning(
        Severity.UNKNOWN,
        "an aggregate of the API that differs from the stored calls without a known cause",
        "metrics-etl run --full-refresh fetches it again; if the difference stays, please report it",
    ),
    Kind.NOT_LOADED: Meaning(
        Severity.MISSING, "the warehouse lacks rows of the dataset, or has others", "metrics-etl load"
    ),
    Kind.DELETED: Meaning(
        Severity.NOTICE, "rows got a deleted_at, because the source no longer has what they describe", _NOTHING
    ),
    Kind.RENAMED: Meaning(Severity.NOTICE, "a run test has another name now; its rows took it over", _NOTHING),
    Kind.FETCHED_AGAIN: Meaning(Severity.NOTICE, "rows were gone or damaged, and were fetched again", _NOTHING),
    Kind.RUN_TEST_GONE: Meaning(
        Severity.NOTICE, "the API has no run test of this name any more; its rows stay as they are", _NOTHING
    ),
    Kind.NAMESAKES: Meaning(
        Severity.NOTICE, "several run tests share a name, and the API lists their executions as one", _NOTHING
    ),
    Kind.NEW_STATUS: Meaning(
        Severity.NOTICE, "a status that this version does not know; it counts as not finished", _NOTHING
    ),
    Kind.DOCUMENT_SET_ASIDE: Meaning(
        Severity.NOTICE, "a file in _state could not be read; it was moved to _state/quarantine or ignored", _NOTHING
    ),
    Kind.CLOCK: Meaning(
        Severity.NOTICE, "this machine's clock and that of the source differ", "set the clock that is wrong"
    ),
    Kind.NO_DETAIL: Meaning(
        Severity.NOTICE, "settling executions were fetched in full, because their details could not be read", _NOTHING
    ),
    Kind.KEY_REMOVED: Meaning(
        Severity.NOTICE, "answers contained one of the keys; the dataset has [key] in its place", "rotate that key"
    ),
    Kind.COLUMNS_ADDED: Meaning(
        Severity.NOTICE,
        "files of an older version got the columns of this one, null until their rows are fetched again",
        "nothing, or metrics-etl run --full-refresh to fill them",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is missing, unknown or worth knowing. ``subject`` is the run test, file or call that it is about, or empty."""

    kind: Kind
    subject: str
    text: str

    @property
    def severity(self) -> Severity:
        """That of its kind."""
        return MEANINGS[self.kind].severity

    @property
    def is_alarm(self) -> bool:
        """Whether something is missing or unknown: then a run exits with 3."""
        return self.severity is not Severity.NOTICE

    @property
    def next_step(self) -> str:
        """What to do about it."""
        return MEANINGS[self.kind].next_step

    def __str__(self) -> str:
        return f"{quoted(self.subject)}: {self.text}" if self.subject else self.text

    def as_json(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        return {
            "kind": self.kind.value,
            "severity": self.severity.value,
            "subject": self.subject,
            "text": self.text,
            "next_step": self.next_step,
        }


def alarms(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Those that say that something is missing or unknown."""
    return (finding for finding in findings if finding.is_alarm)


def gravest(findings: Iterable[Finding]) -> Finding | None:
    """The alarm whose next step comes first: what is missing before what is unknown, the warehouse last, since a run loads, too."""
    return min(
        alarms(findings),
        key=lambda each: (each.kind is Kind.NOT_LOADED, each.severity is Severity.UNKNOWN),
        default=None,
    )
