"""The end of an export: its findings as one summary, the index, its row of ``runs``, and the JSON of the last run.

Every export that has sent a request ends here, however it went. Nothing here asks the source, or loads into a
warehouse.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

from etl.dataset.comparisons import Comparison, read_compared, write_compared
from etl.dataset.index import update_index, write_index
from etl.dataset.last_run import update_last_run
from etl.dataset.layout import Part, folder_of, parse_part_path, place_of
from etl.dataset.state import StoredState
from etl.errors import DestinationError, ExporterError
from etl.extract.plan import Reason
from etl.model import schema
from etl.model.findings import Kind
from etl.model.values import fields_of
from etl.model.wording import counted, first_few
from etl.pipeline.context import Run
from etl.pipeline.record import Record
from etl.pipeline.summary import Summary
from etl.pipeline.tasks import to_the_end
from etl.transform.frames import table_of
from etl.version import __version__


async def conclude(run: Run, record: Record, state: StoredState, failure: ExporterError | None) -> Summary:
    """Save what the run leaves: the index, its row of the runs table, and the JSON of the last run.

    ``failure`` is what ended the run early; None if it did everything. No DestinationError is raised: it becomes the
    ``failure`` of the summary, unless there was one before. Call this while the lock is held, after the last commit.
    """
    finished_at = run.clock()
    try:
        if failure is None:
            await to_the_end(partial(_add_missing_tables, run, record, state))
        await to_the_end(partial(_save_index, run, record, state))
        await to_the_end(partial(_save_compared, run, record, state))
    except DestinationError as error:
        failure = failure or error
    summary = _summarize(run, record, failure=failure, finished_at=finished_at)
    for save in (_save_row, _save_document):
        summary.carry_on(record.before, run.settings)  # again, because a row that cannot be saved is a failure
        try:
            await to_the_end(partial(save, run, summary))
        except DestinationError as error:
            summary.failure = summary.failure or error
    return summary


def _add_missing_tables(run: Run, record: Record, state: StoredState) -> None:
    """Give each table a file, so that no reader fails where a table has no rows. After a failure, the next run does."""
    written = dict(filter(None, map(parse_part_path, run.dataset.receipt.written)))  # a part by table
    missing = [table for table in schema.OF_EXECUTIONS if table.name not in state.index.tables | written.keys()]
    if missing and (keys := [each.key for each in record.run_tests if each.name not in record.not_found]):
        new = Part(keys[0], place_of(folder_of(run.started_at.astimezone(UTC).date()), 0))
        part = min((*state.index.parts, *written.values()), default=new)
        for table in missing:
            run.dataset.write(table, part, table.no_rows)


def _save_index(run: Run, record: Record, state: StoredState) -> None:
    """Save what the dataset holds now, and note the rows that somebody else removed: fetched again, or lost."""
    index = update_index(run.dataset, state.index, [])
    if not index.is_saved:
        write_index(run.dataset.files, index)
    if not state.lost:
        return
    restored = record.committed - index.damaged()
    for part, execution_ids in sorted(state.lost.items()):
        lost = sorted(execution_ids - restored)
        subject = f"run_test={part.run_test_key}/{part.place}"
        if lost:
            text = f"are gone, and were not fetched again: {first_few(lost)}"
            record.find(Kind.LOST_ROWS, subject, f"rows of {counted(len(lost), 'execution')} {text}")
        if count := len(execution_ids & restored):
            text = f"rows of {counted(count, 'execution')} were gone, and were fetched again"
            record.find(Kind.FETCHED_AGAIN, subject, text)


def _save_compared(run: Run, record: Record, state: StoredState) -> None:
    """Save which final executions were compared, as of the run's start: what came since may not have been seen.

    What earlier runs noted is read again: holding it all the while would take much memory.
    """
    compared = {key: said for key, said in record.fetched.compared.items() if key in state.executions}
    if not compared:
        return
    for execution_id in compared:
        run.dataset.receipt.note(state.executions[execution_id].run_test_key, "verified", {execution_id})
    at = run.by_source(run.started_at)
    known = read_compared(run.dataset.files) | {key: Comparison(at, said) for key, said in compared.items()}
    write_compared(run.dataset.files, {key: each for key, each in known.items() if key in state.executions})


def _summarize(run: Run, record: Record, *, failure: ExporterError | None, finished_at: datetime) -> Summary:
    """The run as one value, once the findings of its run tests and of the run as a whole are noted."""
    settled_before = run.settled_before(finished_at)
    run_tests = record.run_test_summaries(is_cut_short=failure is not None, settled_before=settled_before)
    for kind, text in _findings_of_run(run, record):
        record.find(kind, "", text)
    return Summary(
        export_run_id=run.export_run_id,
        version=__version__,
        dataset=run.settings.destination.path,
        started_at=run.by_source(run.started_at),
        finished_at=run.by_source(finished_at),
        finished_here_at=finished_at,
        run_tests=run_tests,
        findings=record.findings,
        **fields_of(run.client.traffic, "requests_by_purpose", "call_requests", "retries", "rejections"),
        requests_per_minute=run.client.quota.requests_per_minute,
        **fields_of(run.dataset.written, "files", "size_bytes", "rows"),
        store_requests=dict(run.dataset.files.requests),
        receipt=run.dataset.receipt,
        is_first=record.before.export_run_id is None and record.before.attempt is None,
        failure=failure,
    )


def _findings_of_run(run: Run, record: Record) -> Iterator[tuple[Kind, str]]:
    """What concerns the run as a whole."""
    marked = run.dataset.written.marked
    if rows := [counted(marked[table], table.removesuffix("s")) for table in ("calls", "evals") if marked[table]]:
        yield Kind.DELETED, f"the source no longer has {' and '.join(rows)}, which got a deleted_at"
    swept = {item.execution.execution_id for item in record.all_planned() if item.reason is Reason.SWEEP}
    if found := sorted(swept & run.dataset.written.executions):
        yield Kind.SWEPT, f"{counted(len(found), 'final execution')} had changed at the source: {first_few(found)}"
    if failures := record.fetched.not_compared:
        executions = counted(len(failures), "execution")
        yield Kind.NOT_COMPARED, f"{executions} could not be compared with the API: {min(failures.values())}"
    if record.fetched.one_by_one:
        yield Kind.ONE_BY_ONE, f"calls were fetched one by one: {record.fetched.one_by_one}"
    if redactions := run.client.traffic.redactions:
        yield Kind.KEY_REMOVED, f"{counted(redactions, 'answer')} contained an API key"
    if record.completed_files:
        files = counted(record.completed_files, "file")
        yield Kind.COLUMNS_ADDED, f"{files} from an older version got this version's new columns"


def _save_row(run: Run, summary: Summary) -> None:
    rows = table_of(schema.RUNS_TABLE, [summary.as_row()])
    run.dataset.record_run(summary.started_at.astimezone(UTC).date(), summary.export_run_id, rows)


def _save_document(run: Run, summary: Summary) -> None:
    update_last_run(run.dataset.files, summary.as_json())
