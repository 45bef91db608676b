"""Laws 1 to 3.

1. Whole or absent. A file gets its final name when it is complete and durable, never before.
   ``Reader`` reads each file that a run published, also one that was replaced since: it must be whole. Durability needs
   a disk: see ``tests/mutants/clauses.toml``.
2. The execution row comes last. Its digest covers its calls and evals, so these are written first, and so are errors.
3. The rows are the truth. What is stored is what the files hold. If a digest does not match its rows, that execution is
   fetched again.
"""

from etl.dataset.index import Index, read_index, update_index
from etl.dataset.parts import Dataset
from etl.files.names import INDEX
from tests.machine.dataset import is_vouched_for
from tests.machine.driver import ROOT, SHOWN, History, Night
from tests.machine.in_process import MemoryFiles


def execution_rows_came_last(_history: History, night: Night) -> None:
    """At whatever step a run is killed: an execution's row is published when its calls, evals and errors are there."""
    assert not night.unvouched, f"L2: the row of {night.unvouched[0]} came before what it vouches for"


def each_digest_matches_its_rows(_history: History, night: Night) -> None:
    """After exit 0: whatever did not match was fetched again, as law 3 says."""
    if night.is_complete:
        broken = [each for each in night.in_scope & night.after.of.keys() if not is_vouched_for(night.after.of[each])]
        assert not broken, f"L2: {broken[0]} vouches for calls that are not there"


def index_says_what_the_files_hold(history: History, night: Night) -> None:
    """What the index says of files in these versions is what these files say, whoever wrote them."""
    if history.nights % SHOWN or INDEX not in night.versions_after:
        return
    known, files = read_index(MemoryFiles(ROOT)), MemoryFiles(ROOT)
    for part, found in update_index(Dataset(files), Index(), []).parts.items():
        before = known.parts.get(part)
        if before is not None and before.versions == found.versions:
            assert before.counts == found.counts, f"L3: the index counts other rows of {part}"
            assert before.rows.equals(found.rows), f"L3: the index says something else of {part}"


def feed_tells_everything(history: History, night: Night) -> None:
    """Whoever replaces the executions that have a newer ``exported_at`` has what the dataset has."""
    if night.summary is not None and night.summary.failure is None:
        differs = history.memory.follower.differs(night.after, said=bool(history.memory.hurt))
        assert not differs, f"feed: {differs[0]} is another one than the feed tells"
