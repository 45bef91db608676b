"""The end of an export: its findings as one summary, the index, its row of ``runs``, and the JSON of the last run."""

from datetime import UTC, datetime, timedelta
from functools import partial

from etl.dataset.index import update_index, write_index
from etl.dataset.last_run import update_last_run
from etl.dataset.layout import Part, folder_of, parse_part_path, place_of
from etl.dataset.state import StoredState
from etl.errors import DestinationError, ExporterError
from etl.extract.transport import Traffic
from etl.model import schema
from etl.model.findings import Kind
from etl.model.lifecycle import CLOCKS_DIFFER
from etl.model.wording import counted, first_few
from etl.pipeline.context import Run
from etl.pipeline.record import Record
from etl.pipeline.summary import Summary
from etl.pipeline.tasks import to_the_end
from etl.transform.frames import table_of
from etl.version import __version__


async def conclude(run: Run, record: Record, state: StoredState, failure: ExporterError | None) -> Summary:
    """Save what the run leaves: the index, its row of the runs table, and the JSON of the last run."""
    finished_at = run.clock()
    try:
        if failure is None:
            await to_the_end(partial(_add_missing_tables, run, record, state))
        await to_the_end(partial(_save_index, run, record, state))
    except DestinationError as error:
        failure = failure or error
    summary = _summarize(run, record, failure=failure, finished_at=finished_at)
    for save in (_save_row, _save_document):
        summary.carry_on(record.before, run.settings)
        try:
            await to_the_end(partial(save, run, summary))
        except DestinationError as error:
            summary.failure = summary.failure or error
    return summary


def _add_missing_tables(run: Run, record: Record, state: StoredState) -> None:
    """Let each table have a file, so that no reader fails where a table has no rows; else the next run adds it."""
    written = dict(filter(None, map(parse_part_path, run.dataset.receipt.written)))
    missing = [table for table in schema.OF_EXECUTIONS if table.name not in state.index.tables | written.keys()]
    if missing and record.run_tests:
        new = Part(record.run_tests[0].key, place_of(folder_of(run.started_at.astimezone(UTC).date()), 0))
        part = min((*state.index.parts, *written.values()), default=new)
        for table in missing:
            run.dataset.write(table, part, table.no_rows)


def _save_index(run: Run, record: Record, state: StoredState) -> None:
    """Save what the dataset holds now, and tell what somebody else took away, as far as it was not fetched again."""
    index = update_index(run.dataset, state.index, [])
    if not index.is_saved:
        write_index(run.dataset.files, index)
    if not state.lost:
        return
    damaged = index.damaged()
    for part, execution_ids in sorted(state.lost.items()):
        left = {each for each in execution_ids if each not in record.committed or each in damaged}
        subject = f"run_test={part.run_test_key}/{part.place}"
        if left:
            text = f"rows of {counted(len(left), 'execution')} are gone, and were not fetched again: {first_few(sorted(left))}"
            record.find(Kind.LOST_ROWS, subject, text)
        if back := len(execution_ids) - len(left):
            text = f"rows of {counted(back, 'execution')} were gone, and were fetched again"
            record.find(Kind.FETCHED_AGAIN, subject, text)


def _summarize(run: Run, record: Record, *, failure: ExporterError | None, finished_at: datetime) -> Summary:
    """The run as one value; ``failure`` is what ended it early."""
    traffic, fetched, written = run.client.traffic, record.fetched, run.dataset.written
    shares = record.run_test_summaries(is_cut_short=failure is not None, settled_before=run.settled_before(finished_at))
    marked = [counted(written.marked[f"{what}s"], what) for what in ("call", "eval") if written.marked[f"{what}s"]]
    files, executions = counted(record.completed_files, "file"), counted(fetched.without_detail, "execution")
    clocks, empty = _of_the_clocks(traffic), ", ".join(schema.NOT_IN_LISTS)
    for is_so, kind, text in (
        (marked, Kind.DELETED, f"{' and '.join(marked)} marked as deleted: the source no longer has them"),
        (run.policy.detail_suffices, Kind.LISTS_ALONE, f'[export] metrics is "listed", so these are empty: {empty}'),
        (traffic.redactions, Kind.KEY_REMOVED, f"{counted(traffic.redactions, 'answer')} contained a key"),
        (record.completed_files, Kind.COLUMNS_ADDED, f"{files} from an older version got this version's columns"),
        (fetched.without_detail, Kind.NO_DETAIL, f"the details of {executions} could not be read: {fetched.failure}"),
        (clocks, Kind.CLOCK, clocks),
    ):
        if is_so:
            record.find(kind, "", text)
    return Summary(
        export_run_id=run.export_run_id,
        version=__version__,
        dataset=run.settings.destination.path,
        started_at=run.by_source(run.started_at),
        finished_at=run.by_source(finished_at),
        finished_here_at=finished_at,
        run_tests=shares,
        findings=record.findings,
        requests_by_purpose=traffic.requests_by_purpose,
        saved_requests=fetched.saved_requests,
        retries=traffic.retries,
        rejections=traffic.rejections,
        requests_per_minute=run.client.quota.requests_per_minute,
        files=written.files,
        size_bytes=written.size_bytes,
        store_requests=dict(run.dataset.files.requests),
        rows=written.rows,
        receipt=run.dataset.receipt,
        is_first=record.before.export_run_id is None and record.before.attempt is None,
        failure=failure,
    )


def _of_the_clocks(traffic: Traffic) -> str:
    """What is worth knowing of the source's clock, beside ours; empty when nothing is."""
    offset = traffic.clock_offset
    if offset is None or abs(offset) <= CLOCKS_DIFFER:
        return ""
    minutes, way = abs(offset) // timedelta(minutes=1), "behind" if offset > timedelta(0) else "ahead of"
    return f"this machine's clock is {minutes:,} min {way} the source's: check it (NTP); if it is right, tell the API's operators"


def _save_row(run: Run, summary: Summary) -> None:
    rows = table_of(schema.RUNS_TABLE, [summary.as_row()])
    run.dataset.record_run(summary.started_at.astimezone(UTC).date(), summary.export_run_id, rows)


def _save_document(run: Run, summary: Summary) -> None:
    update_last_run(run.dataset.files, summary.as_json())
