"""Stored executions that are missing from the proved list of their name: whether they are gone, or renamed by now.

A name is not an identity: a run test may have been renamed, and another one may have its name (law 7). Writes nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from etl.errors import SourceError
from etl.extract.absence import decide
from etl.extract.executions import read_executions_once, run_test_of
from etl.model.findings import Kind
from etl.model.wording import counted, first_few, quoted
from etl.pipeline.context import Run
from etl.pipeline.lists import look_up
from etl.pipeline.record import Record

Lists = dict[str, Collection[str]]
"""The ids of the executions in each list, by the name of its run test."""


async def look_for(run: Run, record: Record, absent: Mapping[str, Collection[str]], elsewhere: Lists) -> Lists:
    """Request by id each stored execution that the proved list of its name does not have; gives those that are gone.

    One that exists may have another name now: the list of that is read, once, and added to ``elsewhere``. What it has
    is not missing. If that does not have it, either, a list was wrong: then nothing of this name is gone (law 5).
    """
    return {name: await _gone_of(run, record, name, absent[name], elsewhere) for name in absent}


async def _gone_of(run: Run, record: Record, name: str, absent: Collection[str], elsewhere: Lists) -> frozenset[str]:
    missing, gone = {*absent}.difference(*elsewhere.values()), frozenset[str]()
    while True:  # each round finds another list, or is the last
        answers = await look_up(run, missing)
        gone |= answers.gone
        if not answers.alive:
            break
        execution_id = min(answers.alive)
        try:
            new_name = await run_test_of(run.client, execution_id, is_optional=True)
            if new_name not in record.lists and new_name not in elsewhere:
                listed = await read_executions_once(run.client, new_name, page_limit=run.settings.api.page_limit)
                elsewhere[new_name] = frozenset(listed.executions)
        except SourceError as error:
            text = f"execution {execution_id} is missing from its list, and the API did not name its run test: {error}"
            record.find(Kind.LOOK_UP_FAILED, name, text)
            break
        if execution_id not in elsewhere.get(new_name, ()):
            also = "" if new_name == name else f" and belongs to {quoted(new_name)}, from whose list it is missing, too"
            missed = f"execution {execution_id} is missing from the list of executions, but still exists{also}"
            record.find(Kind.LIST_WRONG, name, f"{missed}. Therefore, nothing was marked as deleted")
            break
        missing -= {*gone, *elsewhere[new_name]}
    if answers.unknown:
        executions = counted(len(answers.unknown), "stored execution")
        reason = first_few([str(error) for error in answers.unknown.values()], shown=1)
        record.find(Kind.LOOK_UP_FAILED, name, f"{executions} missing from the list could not be looked up: {reason}")
    return decide(replace(answers, gone=gone))
