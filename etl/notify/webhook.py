"""Tell people what a run found, by a webhook: each thing once until it goes away, and when all is in order again.

This package stands above ``pipeline`` and ``compare``: it is given how a run ended and what got worse, and decides what
of that is new. It owns ``_state/notified.json``, which holds what people know, and changes nothing else in a dataset.
What is sent has names and figures; where a finding passes on the words of others, its general meaning is sent in their
place.
"""

import asyncio
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import aiohttp
import backoff
import msgspec
from yarl import URL

from etl.compare.nightly import Remark, Worse
from etl.dataset.parts import read_document
from etl.errors import ExitCode, ExporterError, SourceUnavailableError, TransientError
from etl.extract.transport import reason_of
from etl.files.interface import Files
from etl.files.names import NOTIFIED
from etl.files.open import open_files
from etl.model.findings import Finding, Kind, alarms
from etl.model.values import fields_of
from etl.model.wording import shown
from etl.pipeline.summary import Summary
from etl.settings import Settings

_OF_THE_SOURCE = {Kind.NO_SUCH_RUN_TEST, Kind.LIST_UNPROVED, Kind.LIST_WRONG, Kind.NOT_FETCHED, Kind.ANSWERS_CHANGED}
_OWN_WORDS = _OF_THE_SOURCE | {Kind.QUARANTINED, Kind.LOST_ROWS}
"""The kinds of findings whose texts hold no words of a server, only names and figures."""
_MOST_LINES = 21
_WORSE, _REMARK = _OF_NIGHTS = "worse", "remark"
_Key = tuple[str, ...]
"""What identifies an item: kind and subject of a finding, or ``worse``, run test and what it is about."""
_Known = dict[str, frozenset[_Key]]
"""The content of ``_state/notified.json``: by the scope of a run, the keys of what people know from such runs."""
_Items = dict[_Key, Mapping[str, str]]
"""What is to be told, by key: each as the message's JSON has it."""


async def tell(
    settings: Settings, ended: Summary | Exception, read_worse: Callable[[Files], Sequence[Worse | Remark]]
) -> str | None:
    """Post what is new since the last message, once a run has ended; returns why that failed, or None.

    Nothing is posted of a run that was interrupted or found the dataset locked. What a message told is noted only when
    it arrived. After a run that failed or was narrowed to a part, only failures count as gone. Raises nothing.

    Settings that are new begin with what people know from runs with others: these may have been corrected.
    """
    failure = ended.failure if isinstance(ended, Summary) else ended
    code: ExitCode = getattr(ended, "exit_code", ExitCode.BUG)
    if code in (ExitCode.LOCK_HELD, ExitCode.SIGINT, ExitCode.SIGTERM):
        return None
    url = settings.notify.url or ""
    problem: Exception | None = None
    try:
        files = open_files(settings.destination.path, settings.destination.options)
        before = await asyncio.to_thread(read_document, files, NOTIFIED, _Known, note=str) or {}
        known = before.get(settings.scope, frozenset[_Key]().union(*before.values()))
        items: _Items = {(item["kind"], item["subject"]): item for item in _findings(ended, failure, code)}
        if not failure:
            try:
                items |= _worse(await asyncio.to_thread(read_worse, files), settings)
            except Exception as error:  # noqa: BLE001 alarms are sent all the same
                problem = error
        is_whole = not (failure or problem or settings.is_part)
        new = {key: item for key, item in items.items() if key not in known}
        is_well = is_whole and all(kind in _OF_NIGHTS for kind, *_ in items)
        is_well_again = is_well and any(kind not in _OF_NIGHTS for kind, *_ in known)
        if new or is_well_again:
            await _post(url, _message(settings.destination.path, code, new, is_well_again=is_well_again))
        # What this run could not see still stands, but for failures: that the run got so far ends them.
        outcomes = {exit_code.outcome for exit_code in ExitCode}
        unseen = {key for key in known - items.keys() if not is_whole and key[0] not in outcomes}
        now_known = frozenset(items.keys() | unseen)
        if now_known != before.get(settings.scope):
            document = msgspec.json.encode(before | {settings.scope: now_known})
            await asyncio.to_thread(files.publish, NOTIFIED, document)
    except Exception as error:  # noqa: BLE001 the run has ended, and nothing here changes how
        problem = error
    if problem is None:
        return None
    reason = problem if isinstance(problem, ExporterError) else reason_of(problem)
    return f"cannot notify {URL(url).host}: {reason}"


def _findings(ended: Summary | Exception, failure: Exception | None, code: ExitCode) -> Iterator[dict[str, str]]:
    """The failure of a run, and its alarms; but no alarms where the source was unavailable, which explains them."""
    if failure:
        yield {"kind": code.outcome, "subject": "", "text": code.meaning, "next_step": "metrics-etl status"}
    if isinstance(ended, Summary) and not isinstance(failure, SourceUnavailableError):
        not_loaded = [Finding(Kind.NOT_LOADED, "", str(ended.load_failure))] if ended.load_failure else []
        for finding in alarms([*ended.findings, *not_loaded]):
            text = finding.text if finding.kind in _OWN_WORDS else finding.kind.meaning
            yield {"kind": finding.kind, "subject": finding.subject, "text": text, "next_step": finding.next_step}


def _worse(found: Sequence[Worse | Remark], settings: Settings) -> _Items:
    """What the nights say of the run tests that are configured, or of several; of all where none is named."""
    names = {run_test.name for run_test in settings.run_tests}
    told: _Items = {}
    for each in found:
        if not names or each.run_test in {*names, ""}:
            # A remark on another day is another one.
            kind, day = (_WORSE, "") if isinstance(each, Worse) else (_REMARK, f" since {each.since}")
            item = fields_of(each, "run_test", "metric", "text") | {"since": f"{each.since}"}
            told[kind, each.run_test, f"{each.metric}{day}"] = item
    return told


def _message(dataset: str, code: ExitCode, new: _Items, *, is_well_again: bool) -> dict[str, Any]:
    """The message as JSON. Its text is escaped as Slack wants it: else a name could be a link, or call everybody."""
    lines = [f"metrics-etl, {shown(dataset)}: {code.outcome} (exit {code})"]
    if is_well_again:
        lines[0] += ": the export is in order again"
    for (kind, *_), item in new.items():
        parts = item.get("subject", item.get("run_test")), "worse" if kind == _WORSE else "", item["text"]
        line = shown(f"• {': '.join(filter(None, parts))}")
        lines.append(f"{line} → {item['next_step']}" if item.get("next_step") else line)
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES:,} more, which metrics-etl status shows"]
    return {
        "text": html.escape("\n".join(lines), quote=False),
        "dataset": dataset,
        "exit_code": int(code),
        "outcome": code.outcome,
        "findings": [item for (kind, *_), item in new.items() if kind not in _OF_NIGHTS],
        "worse": [item for (kind, *_), item in new.items() if kind in _OF_NIGHTS],
    }


@backoff.on_exception(backoff.constant, Exception, max_tries=2, jitter=None, logger=None)
async def _post(url: str, message: Mapping[str, Any]) -> None:
    """Send the message, in two tries.

    Raises:
        TransientError: the webhook did not accept it. Errors of the connection are the library's own.
    """
    session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=10))
    async with session, session.post(url, json=message, allow_redirects=False) as response:
        if response.status >= 300:
            raise TransientError(f"it answered {response.status}")
