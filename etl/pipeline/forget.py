"""``forget``: choose what is removed for good, note it, remove it, and leave one line of record in ``runs``.

Which rows of a part go, and in which order files are written, is for ``dataset/forget``.
"""

import getpass
import os
import socket
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta

import pyarrow.compute as pc

from etl.dataset.forget import find_going, forget_rows
from etl.dataset.index import Index, read_index, update_index, write_index
from etl.dataset.last_run import read_last_run, update_last_run
from etl.dataset.layout import Part
from etl.dataset.parts import Dataset, Forgetting, identify, read_identity, require_whole
from etl.dataset.state import StoredState, read_state
from etl.errors import ConfigurationError
from etl.files.names import IDENTITY
from etl.model import schema
from etl.model.lifecycle import CLOCKS_DIFFER, LONG_AGO, ExportState, StoredExecution
from etl.model.values import fields_of
from etl.model.wording import counted, first_few, nearest, quoted, shown
from etl.pipeline.context import new_run_id
from etl.pipeline.summary import Summary
from etl.transform.frames import table_of
from etl.version import __version__


def forget(
    dataset: Dataset,
    *,
    executions: Collection[str] = (),
    calls: Collection[str] = (),
    run_tests: Collection[str] = (),
    deleted_before: date | None = None,
    created_before: date | None = None,
    is_agreed: bool,
) -> str:
    """Remove all rows of these executions, run tests and calls, and of what was created or marked before a day (UTC).

    Returns how much goes, empty if nothing does. Unless the owner ``is_agreed``, nothing is written; if so, only while
    the caller holds the dataset's lock, and what a killed one left is removed first.

    Raises:
        ConfigurationError: the dataset does not have what is named, or the source still has a call of these, which
            the next run would export again; or rows are damaged or gone, which the next run has to see first.
        DestinationError: a killed one is not finished; or a file cannot be read or written. If something was removed
            already, the next run goes on.
    """
    if is_agreed:
        finish_forgetting(dataset)
    else:
        require_whole(dataset.files)
    state = read_state(dataset, set_aside=False)
    _refuse_damage(state.lost or state.unreadable)
    before = datetime.combine(deleted_before, time.min, UTC) if deleted_before else LONG_AGO
    chosen = _chosen(state, executions, run_tests, before)
    if created_before:
        chosen |= {key for key in state.started_before(created_before) if not state.executions[key].is_forgotten}
    counts, missing = Counter[str](), {*calls}
    gone_calls, living = set[str](), set[str]()
    parts: list[tuple[Part, dict[str, tuple[str, int]]]] = []
    of_chosen = {part for key in chosen if (part := state.part_of(key))}
    for part in sorted(state.index.parts if calls or deleted_before else of_chosen):
        going = find_going(dataset, part, chosen, calls, before)
        counts += going.rows
        missing -= going.calls
        gone_calls |= going.calls
        living |= going.living
        if going.executions:
            parts.append((part, going.executions))
    if living & missing:
        raise ConfigurationError(
            f"cannot forget call {first_few(sorted(living & missing))}, which the source still had in the last run. "
            "Delete it there and run metrics-etl run, or forget its execution"
        )
    if missing:
        raise ConfigurationError(f"call {first_few(sorted(missing))} was never in the dataset, or was forgotten")
    known = {key: state.executions[key] for _, changed in parts for key in changed}
    _refuse_damage([key for key, each in known.items() if not each.has_row or (each.is_damaged and key not in chosen)])
    text = ", ".join(counted(counts[name], name.removesuffix("s")) for name in schema.TABLES if counts[name])
    if is_agreed and parts:
        options = {"call": calls, "execution": executions, "run-test": run_tests}
        asked = [f"--{name}" for name, value in options.items() if value]
        days = {"deleted-before": deleted_before, "created-before": created_before}
        asked += [f"--{name} {day}" for name, day in days.items() if day]
        now = datetime.now(UTC)
        what = Forgetting(
            export_run_id=new_run_id(now),
            started_at=now,
            exported_at=_after_all_rows(state.index, now),
            follows=read_last_run(dataset.files, note=lambda _: None).last_writer,
            message=f"{text} forgotten by {shown(_user())} on {socket.gethostname()} ({', '.join(asked)})",
            executions=frozenset(chosen),
            calls=frozenset(gone_calls),
            deleted_before=before,
            parts=tuple(parts),
        )
        dataset.files.publish(IDENTITY, identify(dataset.files, now).while_forgetting(what))
        finish_forgetting(dataset)
    return text


def finish_forgetting(of: Dataset) -> None:
    """Remove what is noted as to be removed, if anything is: also what a killed ``forget`` has left.

    Only for the holder of the lock; errors as for ``forget_rows``.
    """
    files = of.files
    identity = read_identity(files)
    if identity is None or identity.forgetting is None:
        return
    what = identity.forgetting
    dataset = Dataset(files, compression=of.compression)
    dataset.receipt.follows = what.follows
    forget_rows(dataset, what)
    # Of all other parts, the index stays as it is: what somebody took away there, the next run must see.
    index = read_index(files)
    after = update_index(dataset, index, [])
    index.parts |= {part: after.parts[part] for part, _ in what.parts if part in after.parts}
    write_index(files, index)
    summary = Summary(
        **fields_of(what, "export_run_id", "started_at"),
        version=__version__,
        dataset=files.where(),
        finished_at=datetime.now(UTC),
        **fields_of(dataset.written, "files", "size_bytes"),
        receipt=dataset.receipt,
    )
    row = summary.as_row() | {"outcome": ExportState.FORGOTTEN, "message": what.message}
    dataset.record_run(what.started_at.date(), what.export_run_id, table_of(schema.RUNS_TABLE, [row]))
    update_last_run(files, {"forgot": what.export_run_id})
    files.publish(IDENTITY, identity.while_forgetting(None))


def _refuse_damage(found: Collection[object]) -> None:
    if found:
        raise ConfigurationError("rows are damaged or gone. First run metrics-etl run, which names them")


def _chosen(state: StoredState, executions: Collection[str], run_tests: Collection[str], before: datetime) -> set[str]:
    """The ids of the executions that go as a whole; one that is forgotten goes again only if rows of it came back."""
    known = {key: each for key, each in state.executions.items() if not each.is_forgotten or each.is_damaged}
    chosen = {*executions}.union(*(_executions_of(known, name) for name in run_tests))
    if unknown := chosen - known.keys():
        raise ConfigurationError(f"execution {first_few(sorted(unknown))} was never in the dataset, or was forgotten")
    return chosen | {key for key, each in known.items() if each.deleted_at and each.deleted_at < before}


def _executions_of(known: Mapping[str, StoredExecution], name: str) -> set[str]:
    """The ids of the executions of a run test, given by its name or folder."""
    own = {key for key, each in known.items() if name in (each.run_test_name, each.run_test_key)}
    if not own:
        names = {each.run_test_name for each in known.values()}
        raise ConfigurationError(f"the dataset has no execution of run test {quoted(name)}. {nearest(name, names)}")
    return own


def _after_all_rows(index: Index, now: datetime) -> datetime:
    """A time after that of all rows, and before that of the next run's, which is by the source's clock."""
    times: list[datetime | None] = [pc.max(part.rows["exported_at"]).as_py() for part in index.parts.values()]
    return max([now - CLOCKS_DIFFER, *(each + timedelta(microseconds=1) for each in times if each)])


def _user() -> str:
    """Who runs this: a name, or the number of a user without one, as in many containers."""
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return f"user {os.getuid()}"
