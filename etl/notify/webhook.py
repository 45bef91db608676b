"""Tell people what a run found, by a webhook: each thing once until it goes away, and then that all is well again.

What is sent has names and figures. Where a finding passes on the words of others, its general meaning is sent in their place.
"""

import asyncio
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import aiohttp
import backoff
import msgspec
from yarl import URL

from etl.compare.nightly import Worse
from etl.dataset.parts import read_document
from etl.errors import ExitCode, ExporterError, SourceUnavailableError, TransientError
from etl.extract.transport import reason_of
from etl.files.interface import Files
from etl.files.names import NOTIFIED
from etl.files.open import open_files
from etl.model.findings import Finding, Kind, alarms
from etl.model.wording import shown
from etl.pipeline.summary import OUTCOMES, Summary
from etl.settings import Settings

_OWN_WORDS = {
    *(Kind.NO_SUCH_RUN_TEST, Kind.LIST_UNPROVED, Kind.LIST_WRONG, Kind.NOT_FETCHED),
    *(Kind.ANSWERS_CHANGED, Kind.QUARANTINED, Kind.LOST_ROWS),
}
_MOST_LINES = 21
_Keys = dict[str, frozenset[tuple[str, ...]]]
_Items = dict[tuple[str, ...], Mapping[str, str]]


async def tell(
    settings: Settings, ended: Summary | Exception, read_worse: Callable[[Files], Sequence[Worse]]
) -> str | None:
    """Tell what is new of a run that ended so; returns why that failed, if it did. Raises nothing.

    Only failures count as gone after a run that failed or was narrowed; and while nothing arrives there, nothing does.
    """
    failure = ended.failure if isinstance(ended, Summary) else ended
    code: ExitCode = getattr(ended, "exit_code", ExitCode.BUG)
    if code in (ExitCode.LOCK_HELD, ExitCode.SIGINT, ExitCode.SIGTERM):
        return None
    url, path, scope = settings.notify.url or "", settings.destination.path, settings.scope
    problem: Exception | None = None
    try:
        files = open_files(path, settings.destination.options)
        by_scope = await asyncio.to_thread(read_document, files, NOTIFIED, _Keys, note=str) or {}
        now: _Items = {(each["kind"], each["subject"]): each for each in _findings(ended, failure, code)}
        try:
            mine = {each.name for each in settings.run_tests}
            for each in () if failure else await asyncio.to_thread(read_worse, files):
                if not mine or each.run_test in mine:
                    now["worse", each.run_test, each.metric] = each.as_json()
        except Exception as error:  # noqa: BLE001 alarms are sent all the same
            problem = error
        is_whole, before = not (failure or problem or settings.is_part), by_scope.get(scope, frozenset())
        kept = {key for key in before if key in now or not (is_whole or key[0] in OUTCOMES.values())}
        new = {key: each for key, each in now.items() if key not in before}
        if new or (is_whole and not now and any(each[0] != "worse" for each in before)):
            await _post(url, _message(path, code, new))
        if (after := frozenset(kept | new.keys())) != before:
            await asyncio.to_thread(files.publish, NOTIFIED, msgspec.json.encode(by_scope | {scope: after}))
    except Exception as error:  # noqa: BLE001 the run has ended, and nothing here changes how
        problem = error
    why = problem if isinstance(problem, ExporterError) else reason_of(problem) if problem else ""
    return f"cannot notify {URL(url).host}: {why}" if problem else None


def _findings(ended: Summary | Exception, failure: Exception | None, code: ExitCode) -> Iterator[dict[str, str]]:
    if failure:
        yield {"kind": OUTCOMES[code], "subject": "", "text": code.meaning, "next_step": "metrics-etl status"}
    if isinstance(ended, Summary) and not isinstance(failure, SourceUnavailableError):
        for each in alarms([*ended.findings, *([Finding(Kind.NOT_LOADED, "", "")] if ended.load_failure else [])]):
            text = each.text if each.kind in _OWN_WORDS else each.kind.meaning
            yield {"kind": each.kind, "subject": each.subject, "text": text, "next_step": each.next_step}


def _message(dataset: str, code: ExitCode, new: _Items) -> dict[str, Any]:
    """The text escaped as Slack wants it: else a name could be a link, or call everybody."""
    lines = [f"metrics-etl, {shown(dataset)}: {OUTCOMES[code]} (exit {code})" + ("" if new else ": all is well again")]
    for each in new.values():
        about = filter(None, (each.get("subject", each.get("run_test")), each["text"]))
        lines.append(" → ".join(filter(None, (shown(f"• {': '.join(about)}"), each.get("next_step")))))
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES:,} more: metrics-etl status"]
    return {
        "text": html.escape("\n".join(lines), quote=False),
        "dataset": dataset,
        "exit_code": int(code),
        "outcome": OUTCOMES[code],
        "findings": [each for key, each in new.items() if key[0] != "worse"],
        "worse": [each for key, each in new.items() if key[0] == "worse"],
    }


@backoff.on_exception(backoff.constant, Exception, max_tries=2, jitter=None, logger=None)
async def _post(url: str, message: Mapping[str, Any]) -> None:
    """Send it, in two tries; TransientError, or the library's own, if it did not arrive."""
    session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=10))
    async with session, session.post(url, json=message, allow_redirects=False) as response:
        if response.status >= 300:
            raise TransientError(f"it answered {response.status}")
