"""A list of calls that says it is complete is complete, whatever happens on the server while it is read.

Of calls nobody can tell which are older than the reading. So the law speaks of the proving request: the last one that
asked for the count alone, or, where none did, the last read of the list.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from etl.errors import ServerFaultError
from etl.extract import crawl
from etl.extract.client import Client
from etl.extract.crawl import Crawl
from etl.extract.endpoints import Request, Slice
from etl.extract.listing import LargestPage
from etl.model.records import DETAIL, RUNS, CallMetrics, ExecutionBundle, ListedCall, Page
from tests.bundles import planned
from tests.extract.held import resumed, settling_of
from tests.extract.shifting_list import CAPS, HISTORY, LIMIT, WAIT, Server, is_500, rows
from tests.support import examples


@dataclass
class CallsClient:
    """Answers the crawl's requests out of the model, at once.

    Of ids that begin so, ``hidden`` calls exist and are never listed, ``silent`` ones get no answer, ``foreign`` ones
    are another execution's.
    """

    server: Server
    failing: frozenset[str] = frozenset()
    has_detail: bool = False
    has_entries: bool = True
    largest_page: LargestPage = field(default_factory=LargestPage)
    asked: Counter[str] = field(default_factory=Counter)

    async def get(self, request: Request[Any]) -> Any:
        query = dict(request.query)
        if request.path.startswith(DETAIL):
            return self.detail()
        if request.path == RUNS and "call_execution_id" in query:
            return self.entry(query["call_execution_id"])
        if request.path == RUNS:
            is_probe = query["page"] == "1" and not request.retries_500
            part = Slice(int(query["page"]), int(query["limit"]), is_probe=is_probe, is_trial=request.is_optional)
            found = self.server.page(part)
            listed = tuple(
                ListedCall(call_execution_id=name, payload={"status": "completed"}) for name in found.results
            )
            return structs.replace(found, results=listed)
        return self.metrics(query["call_execution_id"])

    def metrics(self, name: str) -> CallMetrics:
        self.asked[name] += 1
        if not name.startswith(("hidden", "silent", "foreign")):
            self.server.get(name)
        if name in self.failing or name.startswith("silent"):
            raise ServerFaultError(f"call {name}: 500", tries=6)
        execution_id = "another" if name.startswith("foreign") else "e"
        return CallMetrics(call_execution_id=name, execution_id=execution_id, status="completed", payload={})

    def detail(self) -> Page[ListedCall]:
        self.server.happen()
        if not self.has_detail:
            raise is_500(1)
        self.server.counted.append(self.server.alive)
        self.server.counted_alone = self.server.alive
        found = tuple(ListedCall(call_execution_id=name, payload={}) for name in self.server.ordered())
        return Page(total_pages=1, count=len(found), results=found)

    def entry(self, name: str) -> ListedCall:
        self.server.get(name)
        self.server.gets -= 1
        if name in self.server.bad and not self.has_entries:
            raise ServerFaultError(f"call {name}: 500", tries=6)
        return ListedCall(call_execution_id=name, payload={"eval_outputs": {"told by": "its entry"}})


def fetch(
    server: Server, client: CallsClient | None = None, stored: Sequence[str] = (), failed: Sequence[str] = ()
) -> ExecutionBundle:
    """The one execution's bundle, with the calls that were handed over before it was whole.

    With ``stored`` calls, of which ``marked`` ones are marked, the execution was left incomplete; some ``failed``.
    """
    bundles: list[ExecutionBundle] = []

    async def emit(bundle: ExecutionBundle) -> None:
        bundles.append(bundle)

    source = cast("Client", client or CallsClient(server))
    settling = settling_of(source, {key: key.startswith("marked") for key in stored}, failed=failed)
    plan = [resumed("e") if stored else planned("e")]
    asyncio.run(Crawl(source, iter(plan), emit, concurrency=1, page_limit=LIMIT, settling=settling).run())
    *parts, bundle = bundles
    assert all(part.part_of is not None for part in parts)
    assert bundle.part_of is None
    earlier = {call.metrics.call_execution_id: call for part in parts for call in part.calls}
    arrived = tuple(earlier[call_id] for call_id in sorted(bundle.kept & earlier.keys()))
    return structs.replace(bundle, calls=(*arrived, *bundle.calls), kept=bundle.kept - earlier.keys())


@pytest.fixture(autouse=True)
def few_calls_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived of an execution is handed over often."""
    monkeypatch.setattr(crawl, "_MOST_IN_HAND", 3)


def calls_server(size: int, ties: int, max_limit: int | None, history: list[int]) -> Server:
    # The execution has finished: where its calls fit one page none is created any more (see etl/extract/crawl.py).
    changes = ("touch", "delete") if max_limit is None else ("touch", "delete", "insert")
    return Server(rows(size, ties), history, changes, max_limit, is_atomic=True, is_bad_by_id=False)


def names_of(bits: int, size: int) -> frozenset[str]:
    return frozenset(f"old-{number}" for number in range(size) if bits >> number & 1)


def call_world(**changes: Any) -> dict[str, Any]:
    """An example: what is not given is empty."""
    usual: dict[str, Any] = {
        "size": 5, "ties": 1, "max_limit": None, "history": [], "failing": 0, "bad": 0, "has_detail": False,
        "has_entries": True, "stored": 0, "failed": 0, "unlisted": [],
    }  # fmt: skip
    return usual | changes


@settings(max_examples=examples(3000))
@given(
    size=st.integers(0, 20),
    ties=st.integers(1, 4),
    max_limit=CAPS,
    history=HISTORY,
    failing=st.just(0) | st.integers(0, 2**20 - 1),
    bad=st.just(0) | st.integers(0, 19).map(lambda bit: 1 << bit) | st.integers(0, 2**20 - 1),
    has_detail=st.booleans(),
    has_entries=st.booleans(),
    stored=st.just(0) | st.integers(0, 2**20 - 1),
    failed=st.just(0) | st.integers(0, 2**20 - 1),
    unlisted=st.lists(st.sampled_from(["gone", "gone", "foreign", "marked", "hidden", "silent"]), max_size=3),
)
# While page 2 is read, a call of page 3 is saved and jumps to page 1; one that was seen is deleted afterwards.
@example(**call_world(size=20, max_limit=7, history=[WAIT, 0, WAIT, WAIT, WAIT, 1]))
# Two calls are deleted while they are fetched: one before its turn, one after it had been given up.
@example(**call_world(history=[3, 3, 0, 0, 0, 1, 1], failing=16))
# Stored calls are missing from the list: of many pages too, one of them exists, and of one nobody can tell.
@example(**call_world(size=20, max_limit=7, stored=2**19, unlisted=["gone", "foreign", "marked"]))
@example(**call_world(unlisted=["gone", "hidden"]))
@example(**call_world(unlisted=["gone", "silent"]))
# A bad row slips through a list that goes on to count it, and one call is stored.
@example(**call_world(size=3, ties=3, max_limit=7, bad=2, stored=1))
# A call is created between the second reading of many pages and its count.
@example(**call_world(size=8, max_limit=7, history=[3, 3, 3, 3, 2], stored=1, has_entries=False))
def test_bundle_without_dead_letters_holds_what_its_proof_counted(
    size, ties, max_limit, history, failing, bad, has_detail, has_entries, stored, failed, unlisted
):
    """And no stored call is marked that exists, or may exist, and nothing is fetched without need."""
    server = calls_server(size, ties, max_limit, history)
    server.bad = names_of(bad, size)
    client = CallsClient(server, names_of(failing, size), has_detail=has_detail, has_entries=has_entries)
    ghosts = [f"{kind}-{number}" for number, kind in enumerate(unlisted)]
    held, letters = names_of(stored, size), names_of(failed, size)
    bundle = fetch(server, client, [*held, *ghosts], [*letters])
    fetched = {call.metrics.call_execution_id for call in bundle.calls}
    given_up = {letter.subject_id for letter in bundle.dead_letters}
    assert len(fetched) == len(bundle.calls)
    assert not fetched & given_up
    assert not bundle.deleted & (server.alive | fetched | bundle.kept)
    assert not [key for key in bundle.deleted if key.startswith(("marked", "hidden", "silent"))]
    assert max([client.asked[key] for key in ghosts], default=0) <= 1
    assert bundle.kept <= held - letters
    assert not [key for key in bundle.kept if client.asked[key]]
    if "e" in given_up and not bundle.listed:
        return  # the list could not be read, perhaps for the second time: nothing is claimed of it
    without_entry = {letter.subject_id for letter in bundle.dead_letters if letter.endpoint == RUNS}
    assert {call.call_execution_id for call in bundle.listed or ()} == (
        fetched | bundle.kept | given_up
    ) - without_entry
    if not given_up:
        assert {"hidden", "silent"}.isdisjoint(unlisted)
        assert {key for key in ghosts if not key.startswith("marked")} <= bundle.deleted
        assert held <= bundle.deleted | bundle.kept | fetched
        # A stored call that is kept may be deleted while pages are read: the next run compares it.
        assert not bundle.kept <= server.alive or server.counted_by_the_proof & server.alive <= fetched | bundle.kept


@pytest.mark.parametrize(
    ("size", "max_limit", "reads"), [(0, None, 1), (1, None, 1), (LIMIT, None, 1), (8, 7, 3), (20, 7, 4), (5, 1, 6)]
)
def test_quiet_calls_cost_their_pages_and_one_request_each_and_many_pages_a_count(size, max_limit, reads):
    server = calls_server(size, 1, max_limit, [])
    assert len(fetch(server).calls) == size
    assert (len(server.requests), server.gets) == (reads, size)
