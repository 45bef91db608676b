"""What every table keeps to."""

from rich.console import Console

from etl.cli.console import print_table


def test_name_takes_one_line_and_leaves_room_for_figures_in_80_columns() -> None:
    console = Console(width=80)
    rows = [("Ångström\n" * 9, 1234, "3 new\n1 gone")]
    with console.capture() as captured:
        print_table(console, ("run test", "calls", "state"), rows, words={"state"})
    title, *lines = captured.get().splitlines()

    assert title.split() == ["run", "test", "calls", "state"]
    assert [line.split()[-3:] for line in lines] == [["1,234", "3", "new"], ["1", "gone"]]
    assert lines[0].startswith(r"Ångström\nÅngström\nÅngs… ")
    assert max(map(len, lines)) <= 80
