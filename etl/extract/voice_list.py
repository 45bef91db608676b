"""The list of an execution's voice calls, which with its detail replaces the list of calls and their own metrics.

Owns when it is worth a request, and when a run stops asking for it. Two requests an execution then give every call's
whole row (``transform/voice.py``), and one call's own metrics confirm them (``crawl.py``). Where anything is wrong with
it, the calls are fetched one by one, as if there were no such list.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from etl.errors import RequestRefusedError, SourceError
from etl.extract.call_list import CallList, Details
from etl.extract.client import Client
from etl.extract.endpoints import Slice, list_voice_calls
from etl.extract.plan import Planned
from etl.model.records import ListedCall
from etl.transform.voice import joined, listed_call

_MOST_FAILURES = 3
"""After so many executions in a row that it was no use for, a run stops asking for it."""


@dataclass(slots=True, eq=False)
class VoiceLists:
    """The lists of voice calls that a run reads, as long as they are of use."""

    client: Client
    """Sends the requests."""
    failure: str = ""
    """Why they were of no use for an execution, the first time; empty if they always were."""
    is_over: bool = False
    """Whether no more are requested."""
    _failures_in_a_row: int = 0
    """For how many executions they were of no use since they were for one."""

    async def read(self, item: Planned, details: Details) -> CallList | None:
        """The list of the execution's calls as both lists show it; None if they are not all voice calls, or failed.

        It is proved (law 4): both lists have the same calls, and the detail as many as it counts.
        """
        if self.is_over or details.failure or not details.calls or _shows_chats(details):
            return None
        try:
            calls = await self._read(item, len(details.calls))
        except SourceError as error:
            self.is_over |= isinstance(error, RequestRefusedError) and error.status >= 300  # else it is too large
            self.note(str(error))
            return None
        if calls.keys() == details.calls.keys():
            both = {key: joined(detail, calls[key]) for key, detail in details.calls.items()}
            listed = {key: listed_call(detail, calls[key]) for key, detail in both.items()}
            return CallList(listed, details=Details(both))
        if calls:
            text = f"its list of voice calls has {len(calls)} calls, but its detail has {len(details.calls)}"
            self.note(f"for execution {item.execution.execution_id}, {text}")
        return None

    def note(self, failure: str) -> None:
        """Note why an execution's calls are fetched one by one; an empty text says that the lists were of use."""
        self.failure = self.failure or failure
        self._failures_in_a_row = self._failures_in_a_row + 1 if failure else 0
        self.is_over |= self._failures_in_a_row >= _MOST_FAILURES

    async def _read(self, item: Planned, count: int) -> Mapping[str, ListedCall]:
        """The voice calls of an execution of ``count`` calls; fewer if pages shift while they are read."""
        pace = self.client.pace
        calls: dict[str, ListedCall] = {}
        rows, number = pace.rows, 1
        while True:
            request = list_voice_calls(item.execution.execution_id, Slice(number, rows))
            page = await self.client.get(request.sent_for(item.purpose))
            calls |= {call.call_execution_id: call for call in page.results}
            if len(page.results) == pace.rows:
                pace.note_full_page()
            if page.count != count or not page.results or number >= page.total_pages:
                return calls
            number += 1


def _shows_chats(details: Details) -> bool:
    """Whether a call says that it is none by voice; a server that does not say what calls are is asked for the list."""
    return any(detail.payload.get("simulation_call_type", "voice") != "voice" for detail in details.calls.values())
