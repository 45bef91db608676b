"""Every guard that keeps the promises is guarded itself: with one taken away, some test goes red.

The guards that are a clause of one of the ten laws stand in ``clauses.toml``, law by law.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.test_structure import TESTED_ELSEWHERE, file_of_tests

ROOT = Path(__file__).parents[2]
MACHINE = "tests/machine"
"""A mutant's only killer: the random histories, see ``tests/mutants/run``."""


@dataclass(frozen=True)
class Mutant:
    """A guard: its text, what stands there without it, and the tests that notice if not those of its module."""

    guard: str
    path: str
    text: str
    without: str
    tests: tuple[str, ...] = ()

    @property
    def killers(self) -> tuple[str, ...]:
        return self.tests or (TESTED_ELSEWHERE.get(self.path) or file_of_tests(self.path),)


MUTANTS = [
    Mutant(
        "rename is durable before it counts",
        "etl/files/local.py",
        "                raise\n            fsync_folder(target.parent)\n",
        "                raise\n",
        ("tests/files/test_power_cut.py",),
    ),
    Mutant(
        "new folder is durable before anything lies in it",
        "etl/files/local.py",
        "        fsync_folder(above)\n        self._durable.add(folder)\n",
        "        self._durable.add(folder)\n",
        ("tests/files/test_power_cut.py",),
    ),
    Mutant(
        "staging file is nobody else's",
        "etl/files/local.py",
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW",
        "os.O_WRONLY | os.O_CREAT",
    ),
    Mutant(
        "links are refused",
        "etl/files/local.py",
        "            if child.is_symlink():\n",
        "            if False:\n",
    ),
    Mutant(
        "one call confirms what lists show of all",
        "etl/extract/open_execution.py",
        "if columns := differing(call, given[key]):",
        "if columns := []:",
        ("tests/extract/test_voice_list.py",),
    ),
    Mutant(
        "a run stops asking for a list that is of no use",
        "etl/extract/voice_list.py",
        "self.is_over |= self._failures_in_a_row >= _MOST_FAILURES",
        "pass",
    ),
    Mutant(
        "a call about which two lists do not agree is fetched",
        "etl/transform/voice.py",
        "        return detail\n",
        "        pass\n",
    ),
    Mutant(
        "a call with values of chats is no voice call",
        "etl/transform/detail.py",
        "is_of_voice = all(detail.payload[name] is None for name in _OF_CHATS)",
        "is_of_voice = True",
        ("tests/transform/test_voice.py",),
    ),
    Mutant(
        "late costs of stages are seen",
        "etl/transform/detail.py",
        "compared = _COMPARED | _STAGE_COLUMNS if has_stages else _COMPARED",
        "compared = _COMPARED",
        ("tests/extract/test_voice_list.py",),
    ),
    Mutant(
        "of a voice call nothing is read but what is exported",
        "etl/extract/endpoints.py",
        "payload={name: field_of(row, name) for name in FIELDS})",
        "payload=row)",
        ("tests/transform/test_voice.py",),
    ),
    Mutant(
        "no error quotes a list of whole calls",
        "etl/extract/answers.py",
        '"" if request.is_of_whole_calls else _excerpt(body)',
        "_excerpt(body)",
        ("tests/transform/test_voice.py",),
    ),
    Mutant(
        "all that the detail shows is compared",
        "etl/transform/detail.py",
        "    return {name for name, new, old in pairs if name in compared and json_text(new) != json_text(old)}",
        "    return set()",
    ),
    Mutant(
        "kept call without a row makes its execution incomplete",
        "etl/dataset/commit.py",
        "and (bundle.listed is None or held.exported_calls == len(bundle.listed))",
        "",
    ),
    Mutant(
        "execution row is renewed when calls or evals of it change",
        "etl/dataset/commit.py",
        "renewed={*replacement.renewed, *touched})",
        "renewed=replacement.renewed)",
        ("tests/dataset/test_commit.py", "tests/dataset/test_commit_laws.py"),
    ),
    Mutant(
        "a column keeps the name under which it is hashed",
        "etl/transform/row_hash.py",
        '_HASHED_AS = ("latency_customer_", "latency_customer_latency_metrics_")',
        '_HASHED_AS = ("", "")',
    ),
    Mutant(
        "rows that somebody else changed beside a run are hashed",
        "etl/dataset/index.py",
        "if not (known_version in versions and version == versions[-1]):",
        "if False:",
    ),
    Mutant(
        "what a run wrote follows what it found",
        "etl/dataset/parts.py",
        "            if changed is None or versions[-1:] != [before]:\n",
        "            if False:\n",
        ("tests/dataset/test_index.py", "tests/dataset/test_state.py"),
    ),
    Mutant(
        "digest is unknown while its rows are written",
        "etl/dataset/parts.py",
        '.update(dict.fromkeys(changed or (), ""))',
        "",
        ("tests/dataset/test_index.py",),
    ),
    Mutant(
        "encoded file is read again before it is published",
        "etl/dataset/parquet.py",
        "    if file.metadata.num_rows != len(rows) or not",
        "    if not",
    ),
    Mutant(
        "pages are checked when they are read",
        "etl/dataset/parquet.py",
        "file = pq.ParquetFile(source, page_checksum_verification=True)",
        "file = pq.ParquetFile(source)",
    ),
    Mutant(
        "data has settled by the source's clock",
        "etl/pipeline/apply.py",
        "    fetched_at = run.after_stamps()",
        "    fetched_at = run.started_at",
        ("tests/pipeline/test_wrong_clocks.py",),
    ),
    Mutant(
        "page of calls is of the execution that was asked for",
        "etl/extract/endpoints.py",
        'if result.get("execution_id", execution_id) != execution_id:',
        "if False:",
    ),
    Mutant(
        "no request is sent again in secret",
        "etl/extract/transport.py",
        "middlewares=(self._send,)",
        "middlewares=()",
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
        "etl/extract/transport.py",
        "            if len(body) > self._max_response_mb << 20:\n",
        "            if False:\n",
    ),
    Mutant(
        "request ends after its total time",
        "etl/extract/transport.py",
        "total=api.connect_timeout_seconds + _READ_TIMEOUTS_OF_A_REQUEST * api.read_timeout_seconds,",
        "total=1e9,",
    ),
    Mutant(
        "fraction is no whole number",
        "etl/model/values.py",
        "    elif kind is float and value.is_integer():\n",
        "    elif kind is float and value - value == 0.0:\n",
    ),
    Mutant(
        "file that holds a key is its owner's alone",
        "etl/settings/api_keys.py",
        "return bool(stat.S_IMODE",
        "return False and bool(stat.S_IMODE",
    ),
    Mutant(
        "what has arrived of an execution is incomplete until all has",
        "etl/dataset/commit.py",
        "        and bundle.part_of is None\n",
        "",
        ("tests/pipeline/test_giants.py",),
    ),
    Mutant(
        "an execution of which rows are gone from the warehouse is loaded again",
        "etl/load/statements.py",
        "OR s.row_counts = COALESCE(c.row_counts, {_NO_ROWS}) ",
        "OR TRUE ",
        ("tests/load/test_laws.py",),
    ),
    Mutant(
        "each table is counted by itself, so that a row less and a row more do not cancel out",
        "etl/load/statements.py",
        """{'COUNT(*)' if other is table else '0'} AS {other.name}" for _, other in DATA)""",
        """{'COUNT(*)' if other is DATA[0][1] else '0'} AS {other.name}" for _, other in DATA)""",
        ("tests/load/test_laws.py",),
    ),
    Mutant(
        "rows that arrived are counted before they are noted",
        "etl/load/statements.py",
        "CASE WHEN a.row_counts = COALESCE(c.row_counts, {_NO_ROWS}) THEN a.digest END",
        "a.digest",
        ("tests/load/test_postgresql.py",),
    ),
    Mutant(
        "a load is retried while what ended it passes by itself",
        "etl/load/synchronize.py",
        "until_it_passes(load_once, on_wait, on_retry)",
        "load_once()",
        ("tests/load/test_retries.py",),
    ),
    Mutant(
        "what the dataset lost stays in the warehouse",
        "etl/load/synchronize.py",
        'theirs.keys() - ours.keys() - (held_back if group.kind == "execution" else frozenset())',
        "theirs.keys() - ours.keys()",
    ),
    Mutant(
        "another dataset is not loaded over one that is there",
        "etl/load/synchronize.py",
        "if loaded.dataset_id not in (None, dataset_id):",
        "if False:",
    ),
    Mutant(
        "a load that dies leaves nothing behind",
        "etl/load/sql.py",
        "            for group, table in DATA:\n                session.append",
        "            session.commit()\n            for group, table in DATA:\n                session.append",
        ("tests/load/test_laws.py",),
    ),
    Mutant(
        "all rows of an execution that changed are replaced",
        "etl/load/statements.py",
        "for group, table in reversed(DATA):",
        "for group, table in reversed(DATA[1:]):",
    ),
    Mutant(
        "a part whose files changed is read again",
        "etl/dataset/index.py",
        "unknown = [(part, entries) for part, entries in parts if of_known.get(part, ()) != versions_of(entries)]",
        "unknown = [(part, entries) for part, entries in parts if part not in of_known]",
    ),
    Mutant(
        "a part that changed a moment ago is not trusted",
        "etl/dataset/part_index.py",
        "if any(entry.is_fresh or not entry.version for entry in entries.values()):",
        "if False:",
    ),
    Mutant(
        "what has arrived is saved although nothing more arrives",
        "etl/pipeline/buffer.py",
        "            if self._seconds_until_due() <= 0:\n",
        "            if False:\n",
    ),
    Mutant(
        "nobody waits for hours",
        "etl/extract/gate.py",
        "                self._refuse_long_wait(seconds)\n",
        "",
    ),
    Mutant(
        "object is replaced only if it is what was seen",
        "etl/files/objects.py",
        'mode: Any = "create" if seen is None else self._condition(path, seen)',
        'mode: Any = "overwrite"',
        ("tests/files/test_bucket.py",),
    ),
    Mutant(
        "lost lease stops the run before it writes",
        "etl/files/bucket.py",
        "            self._lease.require()\n",
        "            pass\n",
    ),
    Mutant(
        "store that ignores conditions is refused",
        "etl/files/lease.py",
        "    except ConflictError:\n        return\n",
        "    except ConflictError:\n        pass\n    return\n",
    ),
    Mutant(
        "put whose answer was lost is known as one's own",
        "etl/files/objects.py",
        "if content_now == content:",
        "if False:",
    ),
    Mutant(
        "what got worse is judged by nights before those that are shown",
        "etl/compare/nightly.py",
        "first = min([since, *(execution.started_at.date() for execution in _judged(living))])",
        "first = min([since, date.max])",
        ("tests/e2e/test_report.py",),
    ),
    Mutant(
        "limit is exceeded only beyond doubt",
        "etl/compare/statistics.py",
        "if worsening.low > limit.amount:",
        "if worsening.value > limit.amount:",
    ),
    Mutant(
        "verdict does not depend on the order of rows",
        "etl/compare/estimate.py",
        "order = np.lexsort((sample.executions, scenarios, sample.values))",
        "order = np.arange(len(sample.values))",
    ),
    Mutant(
        "slow day counts as one, not as all of its calls",
        "etl/compare/estimate.py",
        "executions < FEWEST_EXECUTIONS or observed <= expected",
        "True",
    ),
    Mutant(
        "scenario weighs the same on both sides",
        "etl/compare/estimate.py",
        "weights = (shares / count)[scenarios]",
        "weights = np.full(len(scenarios), 1 / len(scenarios))",
    ),
    Mutant(
        "limit is kept only by calls that would show twice as much",
        "etl/compare/statistics.py",
        "self.detects(limit) <= 2 * limit.amount",
        "True",
    ),
    Mutant(
        "call of a scenario that one side lacks is not compared",
        "etl/compare/estimate.py",
        "sample.scenarios[sample.scenarios >= 0]",
        "sample.scenarios",
    ),
    Mutant(
        "whole object has come",
        "etl/files/objects.py",
        "if len(data) != stored.size_bytes:",
        "if False:",
        ("tests/files/test_bucket.py",),
    ),
    Mutant(
        "call is kept only if its lists vouch for it, also beside answers that changed",
        "etl/extract/settling.py",
        "for key, names in differing.items() if names <= in_all}",
        "for key, names in differing.items()}",
        ("tests/pipeline/test_drift.py",),
    ),
    Mutant(
        "answers that changed back are found out by the metrics of a call",
        "etl/extract/settling.py",
        "if not lost[probe] <= find_losses(",
        "if False and not lost[probe] <= find_losses(",
        ("tests/pipeline/test_drift.py",),
    ),
    Mutant(
        "execution whose answers changed is not final",
        "etl/model/lifecycle.py",
        "and execution.execution_id not in settlement.drifted",
        "",
        (MACHINE,),
    ),
    Mutant(
        "value that the detail shows stands in for a null",
        "etl/transform/flatten.py",
        "rows = [(filled(call, row), misfits)",
        "rows = [(row, misfits)",
        (MACHINE,),
    ),
    Mutant(
        "value of a call that waits again is not that of the detail",
        "etl/transform/flatten.py",
        "return call.by_lists if call.by_lists.get(_STATUS) == row[_STATUS] else {}",
        "return call.by_lists",
        ("tests/pipeline/test_drift.py",),
    ),
    Mutant(
        "value that differs from the detail in every call is a loss",
        "etl/transform/drift.py",
        "is_other = answer.is_compared and value != shown and not self.is_json",
        "is_other = False",
        (MACHINE,),
    ),
    Mutant(
        "field that no detail names is a loss only where it was",
        "etl/transform/drift.py",
        "if not loss.is_absent or self._is_told(column)",
        "if not loss.is_absent or True or self._is_told(column)",
        ("tests/transform/test_drift.py",),
    ),
    Mutant(
        "one execution that has a column clears all others",
        "etl/transform/drift.py",
        "for column, losses in self._lost.items() if column not in self._has}",
        "for column, losses in self._lost.items()}",
        ("tests/transform/test_drift.py",),
    ),
    Mutant(
        "one execution is no alarm",
        "etl/transform/drift.py",
        "is_much = len(losses) > 1 and",
        "is_much =",
        ("tests/transform/test_drift.py",),
    ),
    Mutant(
        "what an alarm holds is left alone while it lasts",
        "etl/pipeline/apply.py",
        "healed = [name for name in probed if not record.answers_of(name).text(is_drift=True)]",
        "healed = [*held]",
        (MACHINE,),
    ),
    Mutant(
        "alarm is said again while nobody looks",
        "etl/pipeline/record.py",
        "if answers.was_alarm and not (has_looked or changed):",
        "if False:",
        ("tests/pipeline/test_drift.py",),
    ),
    Mutant(
        "words of a server stay out of what people are sent",
        "etl/notify/webhook.py",
        "finding.text if finding.kind in _OWN_WORDS else finding.kind.meaning",
        "finding.text",
    ),
    Mutant(
        "evals of a list that is refused are compared",
        "etl/extract/settling.py",
        " if vouches_for_evals(details[key], stored.evals.get(key, ()))",
        "",
        ("tests/pipeline/test_price.py",),
    ),
    Mutant(
        "turn count that the detail may make up is not believed",
        "etl/transform/detail.py",
        '    metrics = _metrics(detail, {})\n    del metrics.payload["chat_metrics"]["turn_count"]\n',
        "    metrics = _metrics(detail, {})\n",
    ),
    Mutant(
        "detail that is missing is a dead letter",
        "etl/extract/open_execution.py",
        "        missing = self.listed.calls.keys() - arrived.detailed - arrived.elsewhere\n",
        "        missing = set[str]()\n",
        (MACHINE,),
    ),
    Mutant(
        "what lacks its detail settles",
        "etl/model/lifecycle.py",
        "        and not arrival.lacks_detail\n",
        "",
        (MACHINE,),
    ),
    Mutant(
        "whatever is fetched shows what the detail says today",
        "etl/extract/settling.py",
        "(lacked or execution.listed.calls.keys() - kept):",
        "(candidates if item.route.keeps_fetched else {...}) - kept:",
        (MACHINE,),
    ),
    Mutant(
        "what the detail showed of an execution that has changed since does not count",
        "etl/extract/settling.py",
        "stored.deleted_at or stored.fingerprint != item.execution.fingerprint:",
        "stored.deleted_at:",
        (MACHINE,),
    ),
    Mutant(
        "detail is read to its end",
        "etl/extract/bad_rows.py",
        "        elif self._is_cut(page, position, size):\n",
        "        elif False:\n",
        (MACHINE,),
    ),
    Mutant(
        "what lacks nothing but its detail is not fetched again",
        "etl/extract/plan.py",
        "    return verified_at - ended_at >= policy.settle\n",
        "    return False\n",
        ("tests/extract/test_settling.py",),
    ),
    Mutant(
        "what was fetched without its detail counts as verified then",
        "etl/dataset/commit.py",
        "& listed.keys() | undetailed) - pieces",
        "& listed.keys()) - pieces",
        ("tests/extract/test_settling.py",),
    ),
    Mutant(
        "texts of a snapshot stay out",
        "etl/transform/detail.py",
        "if name in _OF_A_SNAPSHOT}",
        "if name}",
    ),
    Mutant(
        "what the detail alone has is amended, and not fetched",
        "etl/extract/settling.py",
        "differing = {key: names - SHOWN_COLUMNS for",
        "differing = {key: names for",
    ),
    Mutant(
        "metrics of the detail wait for their evals",
        "etl/extract/settling.py",
        "        execution.arrived.at_hand = given\n",
        "        execution.arrived.metrics |= given\n",
        ("tests/pipeline/test_lists_first.py",),
    ),
    Mutant(
        "call that its list still has is not marked",
        "etl/extract/open_execution.py",
        "self.gone |= self.not_found - calls.keys()",
        "self.gone |= self.not_found",
    ),
    Mutant(
        "no detail is requested where the API has none",
        "etl/extract/client.py",
        "self.lacks_details = True\n",
        "self.lacks_details = False\n",
    ),
    Mutant(
        "older copy loads nothing over newer rows",
        "etl/load/synchronize.py",
        "if runs_left is not None and not is_full:",
        "if False:",
        ("tests/pipeline/test_loads.py",),
    ),
    Mutant(
        "init replaces no file",
        "etl/cli/questions.py",
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL",
        "os.O_WRONLY | os.O_CREAT",
    ),
]

CLAUSES = tomllib.loads(Path(__file__).with_name("clauses.toml").read_text(encoding="utf-8"))["clause"]
MUTANTS += [
    Mutant(each["mutant"], each["path"], each["text"], each["without"], tuple(each.get("tests", [MACHINE])))
    for each in CLAUSES
]


def test_every_sentence_of_the_laws_has_a_clause() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    laws = re.split(r"\n\d+\. ", page.partition("\n## Ten laws\n")[2].partition("\n## ")[0])[1:]
    assert len(laws) == 10
    for number, law in enumerate(laws, 1):
        sentences = " ".join(law.split()).rstrip(".").split(". ")
        words = [each["words"] for each in CLAUSES if each["law"] == number]
        assert [each for each in words if each not in " ".join(law.split())] == []
        assert [each for each in sentences[1:] if not any(clause in each for clause in words)] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.guard)
def test_every_guard_stands_where_it_is_looked_for(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text().count(mutant.text) == 1
    assert all((ROOT / test).exists() for test in mutant.killers)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "mutant",
    [pytest.param(each, id=each.guard, marks=() if "writer" in each.guard else pytest.mark.slow) for each in MUTANTS],
)
def test_without_the_guard_a_test_goes_red(mutant: Mutant, tmp_path: Path) -> None:
    from tests.mutants.run import verdict_on  # noqa: PLC0415 it reads the list above

    verdict = verdict_on(mutant, tmp_path / "spoiled")
    assert verdict.is_killed, verdict.text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_with_every_guard_the_same_tests_are_green() -> None:
    from tests.mutants.run import pytest_in  # noqa: PLC0415 it reads the list above

    result = pytest_in(ROOT, *sorted({test for mutant in MUTANTS for test in mutant.killers} - {MACHINE}))
    assert result.returncode == pytest.ExitCode.OK, result.stdout[-2000:]
