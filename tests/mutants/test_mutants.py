"""Every guard that keeps the promises is guarded itself: with one taken away, some test goes red."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutant:
    """A guard, the text that is it, what stands there without it, and the tests that are to notice."""

    guard: str
    path: str
    text: str
    without: str
    tests: tuple[str, ...]


MUTANTS = [
    Mutant(
        "file is durable before it is renamed",
        "etl/load/files/local.py",
        "self._mode)\n                os.fsync(file.fileno())\n",
        "self._mode)\n",
        ("tests/load/files/test_local.py",),
    ),
    Mutant(
        "rename is durable before it counts",
        "etl/load/files/local.py",
        "                raise\n            fsync_folder(target.parent)\n",
        "                raise\n",
        ("tests/load/files/test_local.py",),
    ),
    Mutant(
        "new folder is durable before anything lies in it",
        "etl/load/files/local.py",
        "        fsync_folder(above)\n        self._durable.add(folder)\n",
        "        self._durable.add(folder)\n",
        ("tests/load/files/test_local.py",),
    ),
    Mutant(
        "staging file is nobody else's",
        "etl/load/files/local.py",
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW",
        "os.O_WRONLY | os.O_CREAT",
        ("tests/load/files/test_local.py",),
    ),
    Mutant(
        "links are refused",
        "etl/load/files/local.py",
        "            if stat.S_ISLNK(mode):\n",
        "            if False:\n",
        ("tests/load/files/test_local.py",),
    ),
    Mutant(
        "calls are durable before the executions that vouch for them",
        "etl/load/commit.py",
        "            held_now, touched = _commit_calls(dataset, part, mine, own_rows, replacement)\n"
        "            held |= held_now\n"
        "            states = _states(mine, known, held, settlement)\n"
        "            verified_at = _verified_at(mine, known, settlement.fetched_at)\n"
        "            dataset.commit_rows(schema.ERRORS, part, own_rows[schema.ERRORS.name], replacement)\n"
        "            unlisted = _unlisted_calls(mine, held, replacement)\n"
        "            executions = executions_frame(mine.values(), held, unlisted, states, verified_at, stamp)\n"
        "            own = to_arrow(executions.data, schema.EXECUTIONS)\n"
        "            changed = dataset.commit_rows(schema.EXECUTIONS, part, own, _renewing(replacement, touched)).changed\n",
        "            states = _states(mine, known, held, settlement)\n"
        "            verified_at = _verified_at(mine, known, settlement.fetched_at)\n"
        "            unlisted = _unlisted_calls(mine, held, replacement)\n"
        "            executions = executions_frame(mine.values(), held, unlisted, states, verified_at, stamp)\n"
        "            own = to_arrow(executions.data, schema.EXECUTIONS)\n"
        "            changed = dataset.commit_rows(schema.EXECUTIONS, part, own, replacement).changed\n"
        "            held |= _commit_calls(dataset, part, mine, own_rows, replacement)[0]\n"
        "            dataset.commit_rows(schema.ERRORS, part, own_rows[schema.ERRORS.name], replacement)\n",
        ("tests/load/test_commit.py",),
    ),
    Mutant(
        "call is kept only if its lists vouch for it",
        "etl/extract/settling.py",
        "            and vouches_for(",
        "            or vouches_for(",
        ("tests/pipeline/test_settling.py",),
    ),
    Mutant(
        "all that the detail shows is compared",
        "etl/transform/detail.py",
        "    return _hash(_covered(row, _parsed(row[_EXTRA]))) == _hash(_covered(stored, extra))",
        "    return row[0] == stored[0]",
        ("tests/transform/test_detail.py",),
    ),
    Mutant(
        "kept call without a row makes its execution incomplete",
        "etl/load/commit.py",
        "and (bundle.listed is None or held[execution_id].exported_calls == len(bundle.listed))",
        "",
        ("tests/load/test_commit.py",),
    ),
    Mutant(
        "execution row is renewed when calls or evals of it change",
        "etl/load/commit.py",
        "renewed={*replacement.renewed, *touched})",
        "renewed=replacement.renewed)",
        ("tests/load/test_commit.py",),
    ),
    Mutant(
        "execution row tells of calls that a killed run wrote",
        "etl/load/relocate.py",
        "        if late := times.keys() - dropped:\n",
        "        if late := set():\n",
        ("tests/load/test_relocate.py",),
    ),
    Mutant(
        "rows that move are of the run that moves them",
        "etl/load/relocate.py",
        'for column, value in {"run_test_name": name, **stamp.columns}.items():',
        'for column, value in {"run_test_name": name}.items():',
        ("tests/load/test_relocate.py",),
    ),
    Mutant(
        "of two copies that a move left the whole one stays",
        "etl/load/relocate.py",
        "return True, not stored.is_damaged, stored.exported_at",
        "return True, False, stored.exported_at",
        ("tests/load/test_relocate.py",),
    ),
    Mutant(
        "calls stand in one place before rows move and become younger",
        "etl/pipeline/apply.py",
        "    if found.moves:\n",
        "    if False:\n",
        ("tests/e2e/test_moving_calls.py",),
    ),
    Mutant(
        "digest of the stored calls is compared",
        "etl/model/lifecycle.py",
        "        return self.calls_digest == calls_digest\n",
        "        return True\n",
        ("tests/extract/test_plan.py",),
    ),
    Mutant(
        "a column keeps the name under which it is hashed",
        "etl/transform/rows.py",
        '_HASHED_AS = ("latency_customer_", "latency_customer_latency_metrics_")',
        '_HASHED_AS = ("", "")',
        ("tests/transform/test_frames.py",),
    ),
    Mutant(
        "encoded file is read again before it is published",
        "etl/load/parquet.py",
        "    if written.metadata.num_rows != len(rows) or not",
        "    if not",
        ("tests/load/test_parquet.py",),
    ),
    Mutant(
        "pages are checked when they are read",
        "etl/load/parquet.py",
        "self._file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)",
        "self._file = pq.ParquetFile(pa.BufferReader(data))",
        ("tests/load/test_parquet.py",),
    ),
    Mutant(
        "list is complete only when as many are alive as were counted",
        "etl/extract/listing.py",
        "len(listed) - len(unseen) + len(alive) == count",
        "len(listed) - len(unseen) + len(alive) <= count",
        ("tests/extract/test_listing_laws.py",),
    ),
    Mutant(
        "one page is read until nothing in it is news",
        "etl/extract/listing.py",
        "latest.is_whole_page and all(key in listed or key in known for key in latest.rows)",
        "latest.is_whole_page",
        ("tests/extract/test_listing_laws.py",),
    ),
    Mutant(
        "calls of many pages are counted after their metrics arrived",
        "etl/extract/calls.py",
        "else execution.alive == execution.count",
        "else True",
        ("tests/extract/test_calls.py", "tests/extract/test_listing_laws.py"),
    ),
    Mutant(
        "many calls that vanish at once are not believed",
        "etl/extract/calls.py",
        "        if execution.doubt is None:\n            return False\n        if is_first:",
        "        return False\n        if is_first:",
        ("tests/e2e/test_vanishing_calls.py",),
    ),
    Mutant(
        "call that no list names is asked for before its rows go",
        "etl/extract/calls.py",
        "            await self._confirm_deleted(execution, unlisted)\n",
        "            pass\n",
        ("tests/e2e/test_vanishing_calls.py",),
    ),
    Mutant(
        "data has settled by the source's clock",
        "etl/pipeline/apply.py",
        "fetched_at=run.by_source(run.started_at),",
        "fetched_at=run.started_at,",
        ("tests/e2e/test_wrong_clocks.py",),
    ),
    Mutant(
        "time that has not come yet is unknown",
        "etl/model/lifecycle.py",
        "at if at and at <= latest else None",
        "at",
        ("tests/e2e/test_wrong_clocks.py",),
    ),
    Mutant(
        "call whose metrics name another execution is not taken",
        "etl/extract/calls.py",
        "if metrics.execution_id == execution.execution_id:",
        "if True:",
        ("tests/e2e/test_moving_calls.py",),
    ),
    Mutant(
        "call that moved goes from where it was",
        "etl/load/doubled_calls.py",
        "if each not in (named or [newest])",
        "if False",
        ("tests/load/test_doubled_calls.py",),
    ),
    Mutant(
        "call that moved stays until its new execution has it",
        "etl/load/doubled_calls.py",
        "if execution_id in sources and owner in [each for _, each, _ in places.get(call_id, ())]:",
        "if execution_id in sources:",
        ("tests/load/test_doubled_calls.py",),
    ),
    Mutant(
        "execution that a call left is compared once more",
        "etl/load/doubled_calls.py",
        "ExportState.SETTLING if is_complete else row",
        "row",
        ("tests/load/test_doubled_calls.py",),
    ),
    Mutant(
        "evals that vanish from unchanged calls are not believed",
        "etl/extract/calls.py",
        "execution.doubt = few_evals or execution.doubt",
        "few_evals = None",
        ("tests/e2e/test_vanishing_calls.py",),
    ),
    Mutant(
        "many executions that vanish at once are not believed",
        "etl/extract/plan.py",
        "    return vanished > 0 and (vanished >= living",
        "    return False and (vanished >= living",
        ("tests/extract/test_plan.py",),
    ),
    Mutant(
        "answer that could be another one's is awaited on a connection of its own",
        "etl/extract/transport.py",
        "session, generation = self._own if on_own_connection else self._kept, len(self._retired)",
        "session, generation = self._kept, len(self._retired)",
        ("tests/extract/test_transport.py",),
    ),
    Mutant(
        "error on a connection that was used before is confirmed on another",
        "etl/extract/client.py",
        "except ExporterError as error:\n                    if not is_reused:\n",
        "except ExporterError as error:\n                    if True:\n",
        ("tests/extract/test_transport.py",),
    ),
    Mutant(
        "connection on which answers are off by one is not used again",
        "etl/extract/client.py",
        "            self._open_transport.renew(reused.generation)\n",
        "            pass\n",
        ("tests/extract/test_transport.py",),
    ),
    Mutant(
        "page of calls is of the execution that was asked for",
        "etl/extract/endpoints.py",
        'if result.get("execution_id", execution_id) != execution_id:',
        "if False:",
        ("tests/extract/test_transport.py",),
    ),
    Mutant(
        "no request is sent again in secret",
        "etl/extract/transport.py",
        "middlewares=(self._send_once,)",
        "middlewares=()",
        ("tests/extract/test_transport.py",),
    ),
    Mutant(
        "header cannot hold another one",
        "etl/extract/transport.py",
        'for character in "\\r\\n\\0"',
        'for character in ""',
        ("tests/extract/test_transport.py",),
    ),
    Mutant(
        "proxy is sent no key",
        "etl/extract/transport.py",
        "cookie_jar=aiohttp.DummyCookieJar(),",
        "cookie_jar=aiohttp.DummyCookieJar(), headers=headers,",
        ("tests/extract/test_proxy.py",),
    ),
    Mutant(
        "bodies are capped while they arrive",
        "etl/extract/bodies.py",
        "                    if size_bytes > self._max_bytes:\n",
        "                    if False:\n",
        ("tests/extract/test_client.py",),
    ),
    Mutant(
        "large bodies are read a few at a time",
        "etl/extract/bodies.py",
        "                    await self._take_place(deadline)\n",
        "",
        ("tests/extract/test_bodies.py",),
    ),
    Mutant(
        "request ends after its total time",
        "etl/extract/transport.py",
        "with Deadline(self._total_seconds) as deadline:",
        "with Deadline(1e9) as deadline:",
        ("tests/extract/test_transport.py",),
    ),
    Mutant(
        "fraction is no whole number",
        "etl/model/values.py",
        "        if not value.is_integer():\n            return MISFIT\n",
        "        if value - value != 0.0:\n            return MISFIT\n",
        ("tests/model/test_values.py",),
    ),
    Mutant(
        "one writer at a time",
        "etl/load/files/lock.py",
        "    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    try:\n        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "    try:\n        pass\n",
        ("tests/load/files/test_lock.py",),
    ),
    Mutant(
        "file that holds a key is its owner's alone",
        "etl/settings/api_keys.py",
        "return bool(stat.S_IMODE",
        "return False and bool(stat.S_IMODE",
        ("tests/settings/test_api_keys.py",),
    ),
    Mutant(
        "what has arrived of an execution is incomplete until all has",
        "etl/load/commit.py",
        "                and bundle.part_of is None\n",
        "",
        ("tests/e2e/test_giants.py",),
    ),
    Mutant(
        "a row that was altered in the warehouse is replaced",
        "etl/load/warehouse/statements.py",
        "CASE WHEN s.checksum IS NOT DISTINCT FROM h.checksum THEN s.digest END",
        "s.digest",
        ("tests/load/warehouse/test_load.py",),
    ),
    Mutant(
        "what the dataset lost stays in the warehouse",
        "etl/load/warehouse/load.py",
        "theirs.keys() - ours.keys() - left_alone",
        "theirs.keys() - ours.keys()",
        ("tests/load/warehouse/test_load.py",),
    ),
    Mutant(
        "what has vanished from the dataset stays in the warehouse",
        "etl/load/warehouse/load.py",
        "set[str]() if is_full or accept_deletions else vanished_executions(contents, loaded)",
        "set[str]()",
        ("tests/load/warehouse/test_load.py",),
    ),
    Mutant(
        "another dataset is not loaded over one that is there",
        "etl/load/warehouse/sql.py",
        "if dataset_id not in (None, found.dataset_id) and found.dataset_id != ANY_DATASET:",
        "if False:",
        ("tests/load/warehouse/test_load.py",),
    ),
    Mutant(
        "a load that dies leaves nothing behind",
        "etl/load/warehouse/sql.py",
        "            late = self._prepare(step.dataset_id)\n",
        "            late = self._prepare(step.dataset_id)\n            session.commit()\n",
        ("tests/load/warehouse/test_load.py",),
    ),
    Mutant(
        "all rows of an execution that changed are replaced",
        "etl/load/warehouse/statements.py",
        "for group, table in reversed(DATA):",
        "for group, table in reversed(DATA[1:]):",
        ("tests/load/warehouse/test_load.py",),
    ),
    Mutant(
        "a part whose files changed is read again",
        "etl/load/index.py",
        "return found is not None and found.versions is not None and found.versions == versions_of(entries)",
        "return found is not None",
        ("tests/load/test_index.py",),
    ),
    Mutant(
        "a part that changed a moment ago is not trusted",
        "etl/load/part_index.py",
        "if any(entry.is_fresh or not entry.version for entry in found):",
        "if False:",
        ("tests/load/test_index.py",),
    ),
    Mutant(
        "an execution keeps its part",
        "etl/load/places.py",
        "return [self._known(each) or self._give(each, last) for each in bundles]",
        "return [self._give(each, last) for each in bundles]",
        ("tests/load/test_places.py",),
    ),
    Mutant(
        "a run keeps to the folder in which it began",
        "etl/load/files/local.py",
        "if self._folder is not None and self._folder != _identity(self.root):",
        "if False:",
        ("tests/load/files/test_local.py",),
    ),
    Mutant(
        "what has arrived is saved although nothing more arrives",
        "etl/pipeline/buffer.py",
        "            if self._seconds_until_due() <= 0:\n",
        "            if False:\n",
        ("tests/pipeline/test_buffer.py",),
    ),
    Mutant(
        "nobody waits for hours",
        "etl/extract/gate.py",
        "if is_long or seconds > self.run_ends_at - self._now():",
        "if False:",
        ("tests/extract/test_gate.py",),
    ),
    Mutant(
        "object is replaced only if it is what was seen",
        "etl/load/files/objects.py",
        'mode: Any = "create" if seen is None else self._condition(path, seen)',
        'mode: Any = "overwrite"',
        ("tests/load/files/test_bucket.py",),
    ),
    Mutant(
        "lost lease stops the run before it writes",
        "etl/load/files/bucket.py",
        "            self._lease.require()\n",
        "            pass\n",
        ("tests/load/files/test_bucket.py",),
    ),
    Mutant(
        "lock that changes is held",
        "etl/load/files/lease.py",
        "if is_stopped() or self._objects.head(LOCK).version.e_tag != seen.e_tag:",
        "if is_stopped():",
        ("tests/load/files/test_lease.py",),
    ),
    Mutant(
        "store that ignores conditions is refused",
        "etl/load/files/lease.py",
        "    except ConflictError:\n        return\n",
        "    except ConflictError:\n        pass\n    return\n",
        ("tests/load/files/test_lease.py",),
    ),
    Mutant(
        "put whose answer was lost is known as one's own",
        "etl/load/files/objects.py",
        "if found is None or there != content:",
        "if True:",
        ("tests/load/files/test_objects.py",),
    ),
    Mutant(
        "limit is exceeded only beyond doubt",
        "etl/compare/statistics.py",
        "if surely > limit.amount:",
        "if value > limit.amount:",
        ("tests/compare/test_statistics.py",),
    ),
    Mutant(
        "verdict does not depend on the order of rows",
        "etl/compare/statistics.py",
        "order = np.lexsort((self.executions, self.values))",
        "order = np.arange(len(self.values))",
        ("tests/compare/test_statistics.py",),
    ),
    Mutant(
        "slow day counts as one, not as all of its calls",
        "etl/compare/statistics.py",
        "each.worth(likeness)",
        "each.worth(0.0)",
        ("tests/compare/test_statistics.py",),
    ),
    Mutant(
        "nothing is taken from a list that is not believed after a part was saved",
        "etl/extract/open_execution.py",
        "structs.replace(bundle, listed=()) if self.is_in_parts else bundle",
        "self.bundle() if self.is_in_parts else bundle",
        ("tests/e2e/test_vanishing_calls.py",),
    ),
    Mutant(
        "execution that is deleted after a part of it was saved is told",
        "etl/extract/calls.py",
        "            if not execution.is_in_parts:\n                return None\n",
        "            return None\n",
        ("tests/e2e/test_source_changes.py",),
    ),
    Mutant(
        "key of another workspace exports nothing",
        "etl/pipeline/left_behind.py",
        "    if is_foreign or await sees_none(run.client, living):\n",
        "    if False:\n",
        ("tests/e2e/test_deleted_run_tests.py",),
    ),
    Mutant(
        "what could not be looked up is looked up again",
        "etl/pipeline/left_behind.py",
        " | record.unanswered_before()",
        "",
        ("tests/e2e/test_source_changes.py",),
    ),
    Mutant(
        "file that a run has seen is not missing",
        "etl/load/files/contract.py",
        "        if seen is None or path not in seen:\n            raise\n",
        "        raise\n",
        ("tests/load/files/test_local.py", "tests/load/files/test_bucket.py"),
    ),
    Mutant(
        "content is that which is listed",
        "etl/load/files/bucket.py",
        "and found.size_bytes != known.size_bytes:",
        "and False:",
        ("tests/load/files/test_bucket.py",),
    ),
    Mutant(
        "whole object has come",
        "etl/load/files/objects.py",
        "if len(data) != found.size_bytes:",
        "if False:",
        ("tests/load/files/test_bucket.py",),
    ),
    Mutant(
        "older copy loads nothing over newer rows",
        "etl/load/warehouse/load.py",
        "if runs_left is not None and not is_full:",
        "if False:",
        ("tests/e2e/test_warehouse.py",),
    ),
    Mutant(
        "status is of one time",
        "etl/inspect/status.py",
        "        if who_exports(files) == before and not (before.is_exporting and is_missing):\n            break",
        "        break",
        ("tests/e2e/test_lost_nights.py",),
    ),
]


def pytest_in(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of the copy against the copy's code."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project's code and tests, to be spoiled."""
    for name in ("etl", "tests", "config", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.guard)
def test_every_guard_stands_where_it_is_looked_for(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text().count(mutant.text) == 1
    assert all((ROOT / test).exists() for test in mutant.tests)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "mutant",
    [pytest.param(each, id=each.guard, marks=() if "writer" in each.guard else pytest.mark.slow) for each in MUTANTS],
)
def test_without_the_guard_a_test_goes_red(mutant: Mutant, copy: Path) -> None:
    path = copy / mutant.path
    path.write_text(path.read_text().replace(mutant.text, mutant.without))

    result = pytest_in(copy, *mutant.tests)

    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout[-2000:]
    assert " failed" in result.stdout.splitlines()[-1], "it is not an error of collection"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_with_every_guard_the_same_tests_are_green(copy: Path) -> None:
    result = pytest_in(copy, *sorted({test for mutant in MUTANTS for test in mutant.tests}))

    assert result.returncode == pytest.ExitCode.OK, result.stdout[-2000:]
