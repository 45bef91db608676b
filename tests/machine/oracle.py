"""Judge a night by the ten laws: what the source was, what the dataset was, and what became of both.

The expectations stand in ``expected/``, law by law in the law's words; what earlier nights left open is in ``memory``.
Neither knows how the exporter works.
"""

from collections.abc import Callable

from tests.machine.driver import History, Night
from tests.machine.expected import (
    absence,
    alarms,
    described,
    details,
    drift,
    lists,
    places,
    requests,
    settling,
    vouchers,
)

IGNORED = set[str]()
"""Laws that are not judged, as "L7,L10": to see what else is broken while one is."""

LAWS: tuple[Callable[[History, Night], None], ...] = (
    absence.nothing_is_lost,
    absence.what_is_forgotten_stays_so,
    places.nothing_moves,
    absence.marks_are_true,
    absence.a_wrong_list_marks_nothing,
    lists.unproved_lists_mark_nothing,
    absence.marked_rows_stay,
    vouchers.execution_rows_came_last,
    vouchers.index_says_what_the_files_hold,
    settling.final_stays_whole,
    settling.what_differs_settles,
    settling.first_exports_are_final,
    alarms.codes_are_true,
    drift.drift_is_told_rightly,
    drift.drift_costs_one_probe,
    alarms.findings_say_what_to_do,
    alarms.moves_are_told,
    vouchers.feed_tells_everything,
    lists.dataset_is_the_source,
    details.details_are_the_source,
    details.what_lacks_its_detail_settles,
    details.missing_details_are_told,
    described.descriptions_are_the_source_and_stay,
    lists.what_stood_still_is_there,
    lists.unproved_lists_are_exported,
    places.all_rows_have_the_name,
    places.a_clone_has_a_folder_of_its_own,
    alarms.no_dead_letter_is_left,
    absence.what_is_gone_is_marked,
    vouchers.each_digest_matches_its_rows,
    requests.requests_are_counted,
    requests.requests_are_within_the_limit,
    requests.requests_are_few,
    alarms.light_is_true,
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
