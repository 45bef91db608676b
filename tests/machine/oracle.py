"""Judge a night by the ten laws: what the source was, what the dataset was, and what became of both.

The expectations stand in ``expected/``, law by law in the law's words; what earlier nights left open is in ``memory``.
Neither knows how the exporter works.
"""

import os
from collections.abc import Callable

from tests.machine.driver import History, Night
from tests.machine.expected.absence import marked_rows_stay, marks_are_true, nothing_is_lost, what_is_gone_is_marked
from tests.machine.expected.alarms import codes_are_true, light_is_true, no_dead_letter_is_left
from tests.machine.expected.lists import dataset_is_the_source
from tests.machine.expected.places import all_rows_have_the_name, nothing_moves
from tests.machine.expected.requests import requests_are_few
from tests.machine.expected.settling import final_stays_whole
from tests.machine.expected.vouchers import (
    calls_came_before_their_execution,
    each_digest_matches_its_rows,
    feed_tells_everything,
    index_says_what_the_files_hold,
)

IGNORED = {*os.environ.get("IGNORED_LAWS", "").split(",")}
"""Laws that are not judged, as "L7,L10": to see what else is broken while one is."""

LAWS: tuple[Callable[[History, Night], None], ...] = (
    nothing_is_lost,
    nothing_moves,
    marks_are_true,
    marked_rows_stay,
    calls_came_before_their_execution,
    index_says_what_the_files_hold,
    final_stays_whole,
    codes_are_true,
    feed_tells_everything,
    dataset_is_the_source,
    all_rows_have_the_name,
    no_dead_letter_is_left,
    what_is_gone_is_marked,
    each_digest_matches_its_rows,
    requests_are_few,
    light_is_true,
)
"""What is expected, most telling first: what is lost says more than what follows from it."""


def judge(history: History, night: Night) -> None:
    """All laws, after one night."""
    history.memory.begin(night)
    for law in LAWS:
        try:
            law(history, night)
        except AssertionError as error:
            if str(error).partition(":")[0] not in IGNORED:
                raise
    history.memory.end(history.source, night)
