"""``report``: writes the page with charts, from the dataset alone.

What the page holds is made by the room ``report``; here are its options, its files, and what is printed about it.
"""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.console import print_line
from etl.cli.options import Config, RunTests, Since, Verbose, day, output
from etl.cli.process import end, report_errors
from etl.errors import DestinationError, ExitCode, needs_extra

if TYPE_CHECKING:
    from types import ModuleType

    from etl.report.gather import ReportContents
    from etl.settings.results import ReportSettings


def report(
    config: Config = None,
    *,
    run_tests: RunTests = None,
    since: Since = None,
    until: Annotated[
        date | None, day(help="Only executions created on or before this day (UTC), written as for --since.")
    ] = None,
    page_file: Annotated[
        Path, output("--output", "-o", metavar="FILE", help="The HTML file to write.", show_default="report.html")
    ] = Path("report.html"),
    png: Annotated[
        Path | None, output(metavar="FOLDER", help="Also write the charts to this folder, one image per run test.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Write an HTML page with charts and a summary of what got worse.

    Shows latency, cost, failures, evals and the worst calls of each run test. The page is one file without scripts, for
    a browser or an e-mail. Reads only the dataset and needs no key. Needs the "report" extra.

    Example: metrics-etl report --since 30d --output report.html
    """
    if since and until and since > until:
        raise typer.BadParameter(f"--since {since} is later than --until {until}")
    with report_errors(verbose=verbose):
        from etl.inspect.read_status import read_now
        from etl.report.gather import gather_contents

        page = page_module()
        settings, files, status = read_now(config)
        contents = gather_contents(files, status, run_tests, since, until, rules=settings.compare)
        write_report(page, contents, page_file, settings.report.links_for(settings.api.base_url))
        if png:
            for key, picture in page.pictures(contents):
                _write(png / f"{key}.png", picture)
            print_line("pictures", str(png))
        end(ExitCode.COMPLETE, is_result_printed=False)


def write_report(
    page: "ModuleType", contents: "ReportContents", page_file: Path, links: "ReportSettings | None" = None
) -> None:
    """Write the page, and print to stdout where it is, the verdict on the dataset, and what got worse.

    ``page`` is what ``page_module`` returns. With ``links``, calls on the page link to the platform.

    Raises:
        DestinationError: the page cannot be written.
    """
    _write(page_file, page.page(contents, links).encode())
    print_line("report", str(page_file))
    print_line("dataset", contents.verdict.text)
    headlines = page.headlines(contents.run_tests)
    print_line("worse", *(f"{run_test.name}: {worse.text}" for run_test, worse in headlines))
    print_line("notice", *(": ".join(filter(None, (each.run_test, each.text))) for each in contents.judged.remarks))


def page_module() -> "ModuleType":
    """The module ``etl.report.page``, whose packages are an extra.

    Raises:
        ConfigurationError: the extra is not installed.
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
        raise DestinationError(f"cannot write {path}: {exc.strerror}. Choose another place for the report") from None
