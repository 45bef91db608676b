"""What ``init`` asks and tests, and the settings and keys that it writes.

It writes all of its files or none, and never replaces one. It decides nothing about settings: each answer is tried by
reading the settings that it leads to, as an export would.
"""

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import typer

from etl.cli.console import as_json, print_hold, print_line, print_message, print_rate_limit_wait, print_result
from etl.cli.options import parse_day
from etl.cli.process import end, run_async
from etl.cli.show_source import print_checks, run_tests_as_toml
from etl.errors import ConfigurationError, DestinationError, ExitCode, InterruptedRunError
from etl.extract.executions import is_before
from etl.extract.plan import requests_to_fetch
from etl.extract.run_tests import discover_for
from etl.files.open import open_files
from etl.load.open import module_for
from etl.model.days import day_of
from etl.model.locations import IN_FILES, has_few_slashes, scheme_of
from etl.model.wording import counted, duration, quoted, shown
from etl.pipeline import job
from etl.pipeline.preflight import Subject, check, check_source, exit_code
from etl.settings import Api, Settings
from etl.settings.api_keys import KEYS_FILE, read_api_key
from etl.settings.messages import BASE_URL
from etl.settings.read import DEFAULT_PATH

_KEYS = {"FI_API_KEY": "API key (not shown)", "FI_SECRET_KEY": "Secret key (not shown)"}
"""The environment variable of each key, and the question for it."""


@dataclass(frozen=True, slots=True)
class InitAnswers:
    """What goes into a settings file: answers of the user, and defaults where none was given."""

    file: Path = Path(DEFAULT_PATH)
    """Where the settings file will be."""
    base_url: str = Api().base_url
    run_tests: Sequence[str] = "all"
    """Names, or ``"all"``."""
    path: str = "data"
    """Folder or URL of the dataset; a relative folder is in the working directory."""
    warehouse: str = "none"
    """URL of a warehouse, or ``"none"``; a relative path in it starts at the working directory."""
    since: date | None = None
    """The first day to export; None for everything."""

    @property
    def text(self) -> str:
        """The settings file. Without a warehouse, its line is a comment that shows how one would be set."""
        path = as_json(self._in_file(self.path))
        has_warehouse = self.warehouse != "none"
        url = as_json(self._in_file(self.warehouse if has_warehouse else "duckdb://metrics.duckdb"))
        # A string or list in JSON is one in TOML, too.
        return f"""\
# Settings of metrics-etl, written by `metrics-etl init`. docs/settings.md lists all settings.
# API keys never belong in this file. They come from FI_API_KEY and FI_SECRET_KEY.

# A list with the names of run tests, or "all" for every run test that the key can see
run_tests = {as_json(self.run_tests)}

[api]
base_url = {as_json(self.base_url)}

[export]
{"" if self.since else "# "}since = {self.since or "2026-01-31"} # skip executions created before this day

[destination]
path = {path} # relative to this file, or a bucket: "s3://BUCKET/FOLDER", "gs://BUCKET/FOLDER", "az://CONTAINER/FOLDER"

[warehouse]
{"" if has_warehouse else "# "}url = {url} # loaded after every run. For other warehouses, see docs/warehouses.md
"""

    def settings(self, *, needs_keys: bool = True) -> Settings:
        """The settings, as an export would read them from the file.

        Raises:
            ConfigurationError: an export would refuse them, or a package that they need is not installed.
        """
        settings = Settings.load(self.file, text=self.text, needs_keys=needs_keys)
        open_files(settings.destination.path, settings.destination.options)
        if settings.warehouse.url:
            module_for(settings.warehouse.url)
        return settings

    def _in_file(self, location: str) -> str:
        """The location as the settings file names it: a relative path starts at the folder of the file."""
        scheme = scheme_of(location)
        prefix = f"{scheme}://" if scheme in IN_FILES else ""
        path = location.removeprefix(prefix)
        if not path or path.startswith(("/", "~", "$")) or scheme_of(path) or has_few_slashes(path):
            return location
        return prefix + os.path.relpath(path, self.file.parent)


def set_up(given: Mapping[str, Any], *, is_asking: bool) -> ExitCode:
    """Write the settings and, if wanted, the keys; then run ``check``, and return its exit code.

    ``given`` are the fields of ``InitAnswers`` that options name: these are not asked for. Without ``is_asking``,
    defaults fill the rest, and the keys must be in the environment.

    Raises:
        ConfigurationError: an export would refuse the settings, or a file is in the way. Nothing was written.
        DestinationError: a file cannot be written. None was.
        InterruptedRunError: the user pressed Ctrl-C at a question. Nothing was written.
    """
    if url := given.get("base_url"):
        os.environ[BASE_URL] = url
    answers = InitAnswers(**given)
    missing = [name for name in _KEYS if not (os.environ.get(name) or os.environ.get(f"{name}_FILE"))]
    if os.path.lexists(answers.file):
        raise ConfigurationError(f"{answers.file} already exists and is never overwritten. Edit it, or move it away")
    if missing and KEYS_FILE.exists():
        raise ConfigurationError(f"{KEYS_FILE} exists, but is not loaded. Run '. ./{KEYS_FILE}' first, or move it away")
    answers.settings(needs_keys=False)
    answers = _test_source(answers, missing if is_asking else (), asks_address=is_asking and not url)
    if is_asking:
        answers = _ask_the_rest(answers, given)
    texts = {answers.file: (answers.text, 0o666)}
    question = f"Save the keys in {KEYS_FILE}, readable only by you?"
    if is_asking and missing and _ask(typer.confirm, question, default=True):
        keys = " ".join(f"{name}={shlex.quote(read_api_key(name).get_secret_value())}" for name in _KEYS)
        texts[KEYS_FILE] = (f"# Keep this file private. To load it: . ./{KEYS_FILE}\nexport {keys}\n", 0o600)
    write_new(texts)
    checks = run_async(check(answers.file, on_hold=print_rate_limit_wait))
    print_checks(checks)
    load_keys = f". ./{KEYS_FILE} && " if KEYS_FILE in texts else ""
    _print_next(answers.file, "check" if exit_code(checks) else "run", load_keys)
    return exit_code(checks)


def _test_source(answers: InitAnswers, keys: Collection[str], *, asks_address: bool) -> InitAnswers:
    """Ask for the address until the API answers, and for these keys until it accepts them.

    Any other problem with the source ends the command with what ``check`` would print.
    """
    if keys:
        print_message("Your keys are in the platform's dashboard, under Settings.")
    while True:
        if asks_address:
            answers = _ask_for("base_url", answers, "Address of the API")
        for name in keys:  # the environment is where settings look for them
            os.environ[name] = _ask(typer.prompt, _KEYS[name], hide_input=True)
        checks = run_async(check_source(answers.settings, print_rate_limit_wait))
        if not (code := exit_code(checks)):
            return answers
        print_checks(checks)
        is_unreachable = any(result.subject is Subject.SERVER and result.exit_code for result in checks)
        if not ((asks_address and is_unreachable) or (keys and code is ExitCode.KEY_REFUSED)):
            end(code)


def _ask_the_rest(answers: InitAnswers, given: Collection[str]) -> InitAnswers:
    """Ask for run tests, dataset and warehouse, unless an option has given them."""
    if "run_tests" not in given:
        discovered = run_async(discover_for(answers.settings(), print_rate_limit_wait))
        _, *lines, _ = run_tests_as_toml(discovered)
        print_result("\n".join(f"{number:>3}  {line.strip()}" for number, line in enumerate(lines, 1)))
        print_message(*(f"problem: {problem}" for problem in discovered.problems))
        question = "Run tests to export (numbers such as 1,3, or all)"
        answers = _ask_for("run_tests", answers, question, partial(_chosen, [*discovered.run_tests]))
    if "path" not in given:
        answers = _ask_for("path", answers, "Dataset (a folder, or a bucket such as s3://BUCKET/FOLDER)")
    if "since" not in given:
        _print_first_days(answers.settings())
        question = "First day to export (a day such as 2026-10-31 or 30d, or all)"
        answers = _ask_for("since", answers, question, lambda answer: None if answer == "all" else parse_day(answer))
    if "warehouse" not in given:
        answers = _ask_for("warehouse", answers, "Warehouse (a URL such as duckdb://metrics.duckdb, or none)")
    return answers


def _print_first_days(settings: Settings) -> None:
    """Print how many executions there are from some days on, and about how long a first export of them takes."""
    plan = run_async(job.plan(settings, notify=print_hold))
    rate = plan.requests_per_minute or job.STANDARD_REQUESTS_PER_MINUTE
    print_result(f"{'At' if plan.requests_per_minute else 'Assuming'} {rate} requests a minute, a first export takes:")
    for answer in ("all", "90d", "30d", "7d"):
        day = day_of(answer, datetime.now(UTC).date()) or date.min
        chosen = [item for item in plan.planned if not is_before(item.execution, day)]
        requests = requests_to_fetch(chosen, page_limit=settings.api.page_limit)
        seconds = sum(requests.values()) / rate * 60
        print_result(f"{answer:>4}  {counted(len(chosen), 'execution')}, about {duration(seconds)}")


def _chosen(names: Sequence[str], answer: str) -> Sequence[str]:
    """The names whose numbers, from 1, the answer lists, each once; or ``"all"``."""
    if answer == "all":
        return "all"
    numbered = {str(number): name for number, name in enumerate(names, 1)}
    numbers = answer.replace(",", " ").split()
    for number in numbers:
        if number not in numbered:
            raise ConfigurationError(f"{quoted(number)} is not a number from 1 to {len(names)}")
    return [numbered[number] for number in dict.fromkeys(numbers)]


def _ask_for(name: str, answers: InitAnswers, question: str, parse: Callable[[str], Any] = str) -> InitAnswers:
    """Ask for the field ``name`` until the settings accept it; returns the answers with this one."""

    def accepted(text: str) -> InitAnswers:
        try:
            changed = replace(answers, **{name: parse(text.strip())})
            changed.settings(needs_keys=False)
        except ConfigurationError as error:
            raise typer.BadParameter(shown(str(error))) from None
        return changed

    default = getattr(answers, name) or "all"
    return _ask(typer.prompt, question, default=default, value_proc=accepted)  # type: ignore[no-any-return]


def _ask(ask: Callable[..., Any], question: str, **options: Any) -> Any:
    """The answer to a question of typer. Ctrl-C raises, so that a terminal that hides what is typed shows it again.

    Raises:
        InterruptedRunError: the user pressed Ctrl-C, or closed the input.
    """
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return ask(question, err=True, **options)
    except typer.Abort:
        print_message("")
        raise InterruptedRunError("stopped before anything was written", exit_code=ExitCode.SIGINT) from None
    finally:
        signal.signal(signal.SIGINT, previous)


def write_new(texts: Mapping[Path, tuple[str, int]]) -> None:
    """Write new files, each with its text and mode, and print their names: all of them, whatever signal comes, or none.

    Raises:
        DestinationError: a file exists already, or cannot be written.
    """
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with ExitStack() as unblock, ExitStack() as undo:
        unblock.callback(signal.pthread_sigmask, signal.SIG_UNBLOCK, signals)
        for file, (text, mode) in texts.items():
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                undo.callback(file.unlink)
                with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                    opened.write(text)
            except OSError as exc:
                raise DestinationError(f"cannot write {file}: {exc.strerror}. Nothing was written") from None
        undo.pop_all()
    for file in texts:
        print_line("written", str(file))


def _print_next(file: Path, command: str, load_keys: str) -> None:
    """Print a line for cron, and what to type next.

    ``load_keys`` is the shell's code that loads the saved keys, with ``&&`` at its end; empty if none were saved.
    """
    own = Path(sys.argv[0]).absolute()
    program = [sys.executable, "-m", "etl"] if own.name == "__main__.py" else [str(own)]
    options = [] if str(file) == DEFAULT_PATH else ["--config", str(file)]
    if not load_keys:
        print_line("keys", "not saved. For cron, load keys from a file, or set FI_API_KEY_FILE and FI_SECRET_KEY_FILE")
    line = f"cd {shlex.quote(str(Path.cwd()))} && {load_keys}{shlex.join([*program, 'run', '--quiet', *options])}"
    print_line("cron", "0 2 * * * " + line.replace("%", r"\%"))  # to cron, a percent sign ends the command
    typed = ["metrics-etl"] if shutil.which("metrics-etl") == str(own) else program
    print_line("next", load_keys + shlex.join([*typed, command, *options]))
