"""What the source says of a night that ended with 0: the rows that the dataset must hold, and what is unsure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from etl.sandbox import World
from tests.e2e.truth import Row, execution_rows
from tests.machine.dataset import Key, Rows, is_marked
from tests.machine.driver import History, Night
from tests.machine.memory import BEGUN, hidden
from tests.machine.source import FINISHED


@dataclass(frozen=True, slots=True)
class Truth:
    """The source as a night saw it, as far as it had one answer for the whole night."""

    world: World
    """The run tests that were exported, without the executions that are ``unsure``."""
    executions: dict[Key, Row]
    """The rows of all executions of this world."""
    compared: set[str]
    """Those that have finished and whose calls and evals must be exact."""
    unsure: set[str]
    """Executions that changed meanwhile, that the answers hid, or that still heal from an earlier night (law 8)."""

    @classmethod
    def of(cls, history: History, night: Night) -> "Truth":
        unsure = night.changed | hidden(history.source, night) | history.memory.healing.keys()
        unsure |= history.source.forgotten
        world = World("", [])
        for test in history.source.world.run_tests:
            if test.name in night.names:
                stable = [each for each in test.executions if each.execution_id not in unsure]
                world.run_tests.append(replace(test, executions=stable))
        executions = execution_rows(world)
        compared = {execution_id for (execution_id,), row in executions.items() if row["status"] in FINISHED}
        compared -= history.source.unseen
        compared -= night.before.in_state(*BEGUN) & night.after.in_state("settling")
        if night.struck:  # what could not be compared settles on, with the values of the night before
            compared -= night.before.in_state("settling")
        return cls(world, executions, compared, unsure)


def living_in(rows: Rows, names: Iterable[str]) -> set[str]:
    """The executions that are stored under these names and are not marked."""
    executions = rows.executions
    return {each for each in rows.called(names) if not is_marked(executions[each].row)}
