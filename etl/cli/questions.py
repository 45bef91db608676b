"""What ``init`` asks and tests, and the settings and keys that it writes: all of them or none, and never over a file."""

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import typer

from etl.cli.console import as_json, print_line, print_message, print_rate_limit_wait, print_result
from etl.cli.process import end, run_async
from etl.cli.show_source import print_checks, run_tests_as_toml
from etl.errors import ConfigurationError, DestinationError, ExitCode, InterruptedRunError
from etl.extract.run_tests import discover_for
from etl.files.open import open_files
from etl.load.open import module_for
from etl.model.locations import IN_FILES, has_few_slashes, scheme_of
from etl.model.wording import quoted, shown
from etl.pipeline.preflight import Subject, check, check_source, exit_code
from etl.settings import Api, Settings
from etl.settings.api_keys import read_api_key
from etl.settings.messages import BASE_URL
from etl.settings.read import DEFAULT_PATH

_TEXT = """\
# Settings of metrics-etl, as `metrics-etl init` writes them. Every other setting: docs/settings.md
# Keys never belong here: they come from FI_API_KEY and FI_SECRET_KEY.

# Names of run tests in a list, or "all" for every run test that the key can see
run_tests = {}

[api]
base_url = {}

[destination]
path = {} # relative to this file; or a bucket: "s3://BUCKET/FOLDER", "gs://BUCKET/FOLDER", "az://CONTAINER/FOLDER"

[warehouse]
{} # loaded after every run; other warehouses: docs/warehouses.md
"""
_KEYS = {"FI_API_KEY": "API key (not shown)", "FI_SECRET_KEY": "Secret key (not shown)"}
_KEYS_FILE = Path("keys.env")


@dataclass(frozen=True, slots=True)
class InitAnswers:
    """What goes into a settings file; relative places are from the working directory."""

    file: Path = Path(DEFAULT_PATH)
    base_url: str = Api().base_url
    run_tests: Sequence[str] = "all"
    path: str = "data"
    warehouse: str = "none"

    @property
    def text(self) -> str:
        """The settings file."""
        is_none = self.warehouse == "none"
        places = (self.path, "duckdb://metrics.duckdb" if is_none else self.warehouse)
        path, url = (as_json(self._from_file(each)) for each in places)
        # A string or list in JSON is one in TOML, too.
        return _TEXT.format(
            as_json(self.run_tests), as_json(self.base_url), path, f"{'# ' if is_none else ''}url = {url}"
        )

    def settings(self, *, needs_keys: bool = True) -> Settings:
        """The settings; ConfigurationError if an export would refuse them, or a package for them is missing."""
        settings = Settings.load(self.file, text=self.text, needs_keys=needs_keys)
        open_files(settings.destination.path, settings.destination.options)
        if settings.warehouse.url:
            module_for(settings.warehouse.url)
        return settings

    def _from_file(self, location: str) -> str:
        scheme = f"{found}://" if (found := scheme_of(location)) in IN_FILES else ""
        path = location.removeprefix(scheme)
        if path.startswith(("/", "~", "$")) or scheme_of(path) or has_few_slashes(path):
            return location
        return scheme + os.path.relpath(path, self.file.parent) if path else location


def set_up(given: Mapping[str, Any], *, is_asking: bool) -> ExitCode:
    """Write settings from what is given, or nothing if an export would refuse them; returns the exit code of ``check``."""
    if url := given.get("base_url"):
        os.environ[BASE_URL] = url
    answers = InitAnswers(**given)
    missing = [name for name in _KEYS if not (os.environ.get(name) or os.environ.get(f"{name}_FILE"))]
    if os.path.lexists(answers.file):
        raise ConfigurationError(f"{answers.file} already exists and is never overwritten: edit it, or move it away")
    if missing and _KEYS_FILE.exists():
        raise ConfigurationError(
            f"{_KEYS_FILE} exists, but was not loaded: type . ./{_KEYS_FILE} first, or move it away"
        )
    answers.settings(needs_keys=False)
    answers = _test_source(answers, missing if is_asking else (), asks_address=is_asking and not url)
    answers = _ask_the_rest(answers, given) if is_asking else answers
    texts = {answers.file: (answers.text, 0o666)}
    question = f"Save the keys in {_KEYS_FILE}, which only you can read?"
    if is_asking and missing and _ask(typer.confirm, question, default=True):
        keys = " ".join(f"{name}={shlex.quote(read_api_key(name).get_secret_value())}" for name in _KEYS)
        texts[_KEYS_FILE] = (f"# Keep this file private. To load it: . ./{_KEYS_FILE}\nexport {keys}\n", 0o600)
    write_new(texts)
    checks = run_async(check(answers.file, on_hold=print_rate_limit_wait))
    print_checks(checks)
    load = f". ./{_KEYS_FILE} && " if _KEYS_FILE in texts else ""
    _print_next(answers.file, "check" if exit_code(checks) else "run", load)
    return exit_code(checks)


def _test_source(answers: InitAnswers, keys: Collection[str], *, asks_address: bool) -> InitAnswers:
    """Ask for the address until the API answers, and for the keys until it accepts them. Any other problem ends the command."""
    while True:
        if asks_address:
            answers = _ask_for("base_url", answers, "Address of the API")
        for name in keys:  # everything else looks for them in the environment
            os.environ[name] = _ask(typer.prompt, _KEYS[name], hide_input=True)
        checks = run_async(check_source(answers.settings, print_rate_limit_wait))
        if not (code := exit_code(checks)):
            return answers
        print_checks(checks)
        is_elsewhere = any(each.subject is Subject.SERVER and each.exit_code for each in checks)
        if not ((asks_address and is_elsewhere) or (keys and code is ExitCode.KEY_REFUSED)):
            end(code)


def _ask_the_rest(answers: InitAnswers, given: Collection[str]) -> InitAnswers:
    if "run_tests" not in given:
        found = run_async(discover_for(answers.settings(), print_rate_limit_wait))
        lines = [line.strip() for line in run_tests_as_toml(found)][1:-1]
        print_result("\n".join(f"{number:>3}  {line}" for number, line in enumerate(lines, 1)))
        for problem in found.problems:
            print_message(f"problem: {problem}")
        question = "Run tests to export: numbers such as 1,3, or all"
        answers = _ask_for("run_tests", answers, question, partial(_chosen, [*found.run_tests]))
    if "path" not in given:
        answers = _ask_for("path", answers, "Dataset: a folder, or a bucket such as s3://BUCKET/FOLDER")
    if "warehouse" not in given:
        answers = _ask_for("warehouse", answers, "Warehouse: a URL such as duckdb://metrics.duckdb, or none")
    return answers


def _chosen(names: Sequence[str], numbers: str) -> Sequence[str]:
    numbered = {str(number): name for number, name in enumerate(names, 1)}
    chosen = numbers.replace(",", " ").split()
    if unknown := [each for each in chosen if each not in numbered and numbers != "all"]:
        raise ConfigurationError(f"{quoted(unknown[0])} is not a number from 1 to {len(names)}")
    return "all" if numbers == "all" else [numbered[each] for each in dict.fromkeys(chosen)]


def _ask_for(name: str, answers: InitAnswers, question: str, parse: Callable[[str], Any] = str) -> InitAnswers:
    """The answers with this one, which settings accept."""

    def accepted(text: str) -> InitAnswers:
        try:
            changed = replace(answers, **{name: parse(text.strip())})
            changed.settings(needs_keys=False)
        except ConfigurationError as error:
            raise typer.BadParameter(shown(str(error))) from None
        return changed

    return _ask(typer.prompt, question, default=getattr(answers, name), value_proc=accepted)  # type: ignore[no-any-return]


def _ask(ask: Callable[..., Any], question: str, **options: Any) -> Any:
    """The answer. Ctrl-C is caught here, so that a terminal that hides what is typed shows it again."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return ask(question, err=True, **options)
    except typer.Abort:
        print_message("")
        raise InterruptedRunError("stopped: nothing was written", exit_code=ExitCode.SIGINT) from None
    finally:
        signal.signal(signal.SIGINT, before)


def write_new(texts: Mapping[Path, tuple[str, int]]) -> None:
    """Write new files, each with its text and mode: all of them, whatever signal comes, or none."""
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with ExitStack() as undo:
        for file, (text, mode) in texts.items():
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                undo.callback(file.unlink)
                with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                    opened.write(text)
            except OSError as exc:
                raise DestinationError(f"{file}: {exc.strerror}: nothing was written") from None
        undo.pop_all()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    for file in texts:
        print_line("written", str(file))


def _print_next(file: Path, command: str, load: str) -> None:
    """A line for cron, and what to type; ``load`` is what loads the keys, if they were saved."""
    own = Path(sys.argv[0]).absolute()
    program = [sys.executable, "-m", "etl"] if own.name == "__main__.py" else [str(own)]
    options = [] if str(file) == DEFAULT_PATH else ["--config", str(file)]
    if not load:
        print_line("keys", "not saved: for cron, load them from a file, or set FI_API_KEY_FILE and FI_SECRET_KEY_FILE")
    line = f"cd {shlex.quote(str(Path.cwd()))} && {load}{shlex.join([*program, 'run', '--quiet', *options])}"
    print_line("cron", "0 2 * * * " + line.replace("%", r"\%"))  # to cron, a percent sign ends the command
    typed = ["metrics-etl"] if shutil.which("metrics-etl") == str(own) else program
    print_line("next", load + shlex.join([*typed, command, *options]))
