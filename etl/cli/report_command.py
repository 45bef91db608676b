"""``report``: one page to look at after a night, from the dataset alone."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.console import print_line
from etl.cli.options import Config, RunTests, Since, Verbose, output, parse_day, selection
from etl.cli.process import end, report_errors
from etl.errors import DestinationError, ExitCode
from etl.extras import needs_extra

if TYPE_CHECKING:
    from types import ModuleType

    from etl.report.gather import ReportContents
    from etl.settings.results import ReportSettings

Until = Annotated[
    date | None,
    selection(
        parser=parse_day,
        metavar="DATE",
        help="Only executions created on or before this day (UTC), in the same form as --since.",
    ),
]


def report(
    config: Config = None,
    *,
    run_tests: RunTests = None,
    since: Since = None,
    until: Until = None,
    page_file: Annotated[
        Path, output("--output", "-o", metavar="FILE", help="The HTML file to write.", show_default="report.html")
    ] = Path("report.html"),
    png: Annotated[
        Path | None,
        output(metavar="FOLDER", help="Also write the charts to this folder, one image per run test."),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Write an HTML page with charts and a summary of what got worse.

    Shows latency, cost, failures, evals and the worst calls of each run test. The page is one file without scripts, for a browser
    or an e-mail. Reads only the dataset and needs no key. Needs the "report" extra.

    Example: metrics-etl report --since 30d --output report.html
    """
    if since and until and since > until:
        raise typer.BadParameter(f"--since {since} is later than --until {until}")
    with report_errors(verbose=verbose):
        from etl.inspect.status_now import read_now
        from etl.report.gather import gather_contents

        page = page_module()
        settings, files, found = read_now(config)
        rate = settings.compare.false_alarms_per_year
        contents = gather_contents(files, found, run_tests, since, until, false_alarms_per_year=rate)
        write_report(page, contents, page_file, settings.report)
        if png:
            for key, picture in page.pictures(contents):
                _write(png / f"{key}.png", picture)
            print_line("pictures", str(png))
        end(ExitCode.COMPLETE, is_all_printed=False)


def write_report(
    page: "ModuleType", contents: "ReportContents", page_file: Path, links: "ReportSettings | None" = None
) -> None:
    """Write the page, and print where it is, how the dataset is, and what got worse; to stdout.

    Raises:
        DestinationError: it cannot be written.
    """
    _write(page_file, page.page(contents, links).encode())
    print_line("report", str(page_file))
    print_line("dataset", contents.verdict.text)
    print_line("worse", *(f"{each.name}: {worse.text}" for each, worse in page.headlines(contents.run_tests)))


def page_module() -> "ModuleType":
    """The module that makes the page, its packages imported.

    Raises:
        ConfigurationError: they are not installed.
    """
    try:
        from etl.report import page
    except ModuleNotFoundError as exc:
        raise needs_extra("metrics-etl report", "report", exc) from None
    return page


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as exc:
        raise DestinationError(f"{path}: {exc.strerror}: choose another place for the report") from None
