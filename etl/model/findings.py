"""What a person should know or do: findings, each with a kind, a subject and a text; the kind gives the next step.

``run``, ``status``, ``verify``, ``check`` and ``load`` share them. Pure: this module declares what can be found, and
looks for none of it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from etl.model.wording import counted, quoted


class Severity(StrEnum):
    """How much a finding matters."""

    MISSING = "missing"
    """An alarm: something that exists at the source is not in the dataset, or is not there as it should be."""
    UNKNOWN = "unknown"
    """An alarm: nobody can tell whether something is missing."""
    NOTICE = "notice"
    """No alarm: only worth knowing."""


_RUN = "the next run tries again"
"""The next step of an alarm that needs nobody."""
_ASIDE = "_state/quarantine"
"""Where damaged files are moved to."""
_MOVE_ASIDE = "move the file out of the dataset, keep it, and run metrics-etl run to fetch what the API still has"
_RUN_OR_MOVE = f"metrics-etl run. If metrics-etl verify still finds the damage, {_MOVE_ASIDE}"
_LOAD_ALL = "metrics-etl load --full"
_Facts = tuple[str, Severity, str, str]
"""The value of a kind, its severity, its meaning and its next step."""


def _missing(value: str, meaning: str, next_step: str = _RUN) -> _Facts:
    return value, Severity.MISSING, meaning, next_step


def _unknown(value: str, meaning: str, next_step: str = _RUN) -> _Facts:
    return value, Severity.UNKNOWN, meaning, next_step


def _notice(value: str, meaning: str, next_step: str = "nothing") -> _Facts:
    return value, Severity.NOTICE, meaning, next_step


class Kind(StrEnum):
    """What can be found. The value is the word in JSON, in logs and in metrics."""

    severity: Severity
    meaning: str
    """What a finding of this kind says in general."""
    next_step: str
    """What to do about it: a command, or an action in words."""

    def __new__(cls, value: str, severity: Severity, meaning: str, next_step: str) -> Self:
        """Make a member that is its word and carries what the word means."""
        kind = str.__new__(cls, value)
        kind._value_, kind.severity, kind.meaning, kind.next_step = value, severity, meaning, next_step
        return kind

    @classmethod
    def _missing_(cls, value: object) -> Self:
        """A kind in the record of a run of another version, which this one does not know: no alarm."""
        kind = str.__new__(cls, value)
        kind._name_ = str(value)
        kind._value_, kind.severity, kind.meaning, kind.next_step = _notice(str(value), "")
        return kind

    # the source
    NO_SUCH_RUN_TEST = _missing(
        "no_such_run_test",
        "the API has no run test with this name",
        "correct the name in run_tests (metrics-etl discover lists all names). If the run test was renamed, use its "
        "new name. If it was deleted, remove it. If the name is right, check that the key is of the right workspace",
    )
    LIST_FAILED = _unknown("list_failed", "the list of a run test's executions could not be read")
    LIST_UNPROVED = _unknown("list_unproved", "a list kept changing while it was read, so rows may be missing from it")
    LIST_WRONG = _unknown(
        "list_wrong", "a list is missing executions that the API still returns by id, so nothing was marked as deleted"
    )
    LOOK_UP_FAILED = _unknown(
        "look_up_failed", "the API did not say whether executions that are missing from a list still exist"
    )
    ROW_UNREADABLE = _missing(
        "row_unreadable",
        "the API cannot return one row of a list, but all other rows were exported",
        f"{_RUN}. If this goes on for days, report the row to the API's operators",
    )
    RUN_TESTS_UNKNOWN = _unknown("run_tests_unknown", 'with run_tests = "all", some run tests may be missing')
    NOT_FETCHED = _missing(
        "not_fetched",
        "executions were not fetched, or were fetched only in part",
        "the next run continues where the last one stopped",
    )
    DEAD_LETTER = _missing("dead_letter", "requests failed after all retries, as the errors table shows")
    NEW_STATUS_ENDED = _missing(
        "new_status_ended",
        "executions seem to have ended in a status that this version does not know, so their calls are not fetched",
        'upgrade metrics-etl, or set [export] calls = "all"',
    )
    ANSWERS_CHANGED = _missing(
        "answers_changed",
        "the format of the API's answers has changed, so values that the API has are missing or wrong in some columns",
        "report these columns to the API's operators and the maintainers of metrics-etl. Later runs fetch the values "
        'as soon as they can read them. If settle_by is "refetch", set "detail", which still gives most values',
    )
    RUN_LOST = _unknown(
        "run_lost",
        "the last run was killed or could not start",
        "metrics-etl run. If the last run left an error message, first fix that problem",
    )
    # the dataset
    QUARANTINED = _unknown(
        "quarantined",
        f"a damaged file was moved to {_ASIDE}, and the rows that the API still lists were fetched again",
        f"inspect the file, and then delete it from {_ASIDE}, where no run needs it",
    )
    LOST_ROWS = _missing(
        "lost_rows",
        "rows that were there after the last run are gone from their files, and were not fetched again",
        "metrics-etl run, without --run-test and --since. Rows that the API no longer lists are only in your backups",
    )
    DAMAGED = _missing(
        "damaged",
        "an execution's stored calls or evals differ from what was exported, or the execution's own row is missing",
        "the next run fetches the execution again, if the API still has it",
    )
    MISPLACED = _missing(
        "misplaced",
        "rows are in the wrong file, or are stored twice, because files were moved or copied by hand",
        "move a misplaced file back to its place, or a duplicate out of the dataset, and then run metrics-etl run",
    )
    SCHEMA = _unknown(
        "schema",
        "a file has columns that this version does not know",
        f"if a newer version wrote the file, upgrade metrics-etl; otherwise, {_MOVE_ASIDE}",
    )
    UNREADABLE = _unknown("unreadable", "a file is damaged, or differs from what a run wrote", _RUN_OR_MOVE)
    NOT_READ = _unknown(
        "not_read",
        "a file was not read, because this user may not read it, or because it does not fit in memory",
        "leave the file in place, since its rows may be intact. Try again as another user, or with more memory",
    )
    FOREIGN_FILE = _unknown(
        "foreign_file",
        "a table's folder holds something that metrics-etl did not write, such as a file, link, pipe or device",
        "move it out of the dataset, because readers may take it for data",
    )
    # the warehouse
    NOT_LOADED = _missing("not_loaded", "the warehouse is behind the dataset", "metrics-etl load")
    LOADED_WRONG = _missing("loaded_wrong", "somebody changed rows or views in the warehouse", _LOAD_ALL)
    # worth knowing
    DELETED = _notice("deleted", "rows were marked as deleted (deleted_at), because the source no longer has them")
    SWEPT = _notice("swept", "final executions had changed, so this run fetched them again, and later runs check them")
    NOT_COMPARED = _notice("not_compared", "executions could not be compared with the API, so rows are unchanged", _RUN)
    RENAMED = _notice("renamed", "a run test was renamed, and its rows now have the new name")
    NOT_EXPORTED = _notice(
        "not_exported",
        "stored executions now belong to a run test that the settings do not name, and their rows now have its name",
        "nothing, or add this run test to run_tests to export its new executions",
    )
    FETCHED_AGAIN = _notice("fetched_again", "rows were gone or damaged, and were fetched again")
    RUN_TEST_GONE = _notice("run_test_gone", "the API no longer has a run test of this name, but its rows stay")
    NAMESAKES = _notice("namesakes", "several run tests have one name, so the API lists their executions together")
    NEW_STATUS = _notice("new_status", "executions or calls with a status new to this version count as unfinished")
    DOCUMENT_SET_ASIDE = _notice(
        "document_set_aside",
        f"a file in the folder _state or runs could not be read. Runs move it to {_ASIDE}; other commands ignore it",
        f"nothing, but once the file is in {_ASIDE}, you can delete it",
    )
    ANSWERS_ODD = _notice(
        "answers_odd",
        "an execution is missing values that the API has, and is checked again until others show if the format changed",
    )
    FROM_DETAILS = _notice(
        "from_details",
        "some values are no longer in the calls' own metrics, and are taken from the executions' details",
        "report the change to the API's operators. Nothing is missing",
    )
    VALUES_STAY = _notice(
        "values_stay",
        "columns that leave_out newly names still have their values in stored rows",
        "nothing, or metrics-etl run --full-refresh to empty these columns in most stored rows now",
    )
    NOT_DESCRIBED = _notice(
        "not_described",
        "agent versions and eval configurations of executions are unknown, so the columns for them are null",
        "nothing, since a run requests them again when the run test has new executions",
    )
    ONE_BY_ONE = _notice(
        "one_by_one",
        "calls were fetched one by one, because lists could not be used. The rows are the same, but took more requests",
    )
    KEY_REMOVED = _notice(
        "key_removed",
        "the API's answers contained one of your API keys, and the dataset has [key] in its place",
        "rotate that key",
    )
    COLUMNS_ADDED = _notice(
        "columns_added",
        "files from an older version got this version's new columns, which are null until the rows are fetched again",
        "nothing, or metrics-etl run --full-refresh to fill these columns",
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is missing, unknown or worth knowing. ``str`` gives it in one line, with its subject."""

    kind: Kind
    subject: str
    """The run test, file or call that it is about, as its source names it; empty if it is about the whole."""
    text: str
    """What was found, in words; the subject is not repeated in it."""

    @property
    def is_alarm(self) -> bool:
        """Whether it says that something is missing or unknown. A run with such a finding exits with 3."""
        return self.kind.severity is not Severity.NOTICE

    @property
    def next_step(self) -> str:
        """What to do about it: what its kind says, unless its text ends with the one command that helps."""
        return _LOAD_ALL if self.text.endswith(_LOAD_ALL) else self.kind.next_step

    def __str__(self) -> str:
        return f"{quoted(self.subject)}: {self.text}" if self.subject else self.text

    def as_json(self) -> dict[str, Any]:
        """The finding as a JSON object, as the commands print it with ``--json``."""
        words = {"subject": self.subject, "text": self.text, "next_step": self.next_step}
        return {"kind": self.kind.value, "severity": self.kind.severity.value, **words}


LOSSES = (Kind.ANSWERS_CHANGED, Kind.ANSWERS_ODD)
"""What is said of a run test, or of single executions, whose columns lost values; what says more comes first."""


def alarms(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings that say that something is missing or unknown, in their order."""
    return (finding for finding in findings if finding.is_alarm)


def alarm_lines(findings: Sequence[Finding], *, has_next_step: bool = True) -> Iterator[tuple[str, str]]:
    """Lines with their labels: the first alarm of each kind, with how many more there are, then one next step.

    The next step is that of the gravest alarm; without ``has_next_step`` it is left out.
    """
    counts = Counter(alarm.kind for alarm in alarms(findings))
    for kind, count in counts.items():
        first = next(finding for finding in findings if finding.kind is kind)
        yield "problem", f"{first} ({counted(count - 1, 'more problem')} like this)" if count > 1 else str(first)
    if has_next_step and (alarm_to_act_on := gravest(findings)):
        yield "next", alarm_to_act_on.next_step


def gravest(findings: Iterable[Finding]) -> Finding | None:
    """The alarm whose next step comes first; None if there is no alarm.

    What is missing comes before what is unknown. A warehouse that is behind comes last, since the next run loads it,
    too.
    """
    return min(alarms(findings), key=_order_of_acting, default=None)


def _order_of_acting(alarm: Finding) -> tuple[bool, bool]:
    return alarm.kind is Kind.NOT_LOADED, alarm.kind.severity is Severity.UNKNOWN
