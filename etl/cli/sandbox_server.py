"""The sandbox as a command: a made-up world, served on loopback. Only ``sandbox`` and ``demo`` import it."""

import asyncio
import random
from datetime import datetime, timedelta

from etl import sandbox
from etl.cli.console import print_message, print_result
from etl.cli.endings import stop_on_signals
from etl.errors import ConfigurationError

API_KEY = "sandbox-key"
SECRET_KEY = "sandbox-secret"  # noqa: S105 the sandbox has nothing to protect
_SETTLED = timedelta(days=2)


def make_world(rng: random.Random, friday: datetime, *, run_tests: int, executions: int, calls: int) -> sandbox.World:
    """A world in which everything ended at least two days before ``friday``; see ``latest_friday``."""
    return sandbox.make_world(
        rng,
        run_tests=run_tests,
        executions=executions,
        calls=calls,
        end=friday - _SETTLED,
        include_unfinished=False,
    )


def latest_friday(now: datetime) -> datetime:
    """15:00 UTC of the latest Friday: a world that ends there is the same all week, since times are drawn by hour and weekday."""
    friday = (now - timedelta(days=(now.weekday() - 4) % 7)).replace(hour=15, minute=0, second=0, microsecond=0)
    return friday if friday <= now else friday - timedelta(weeks=1)


async def serve(server: sandbox.Sandbox, *, port: int) -> None:
    """Print the settings for an export to stdout, and what runs to stderr; serve until a signal or a cancellation.

    Raises:
        ConfigurationError: the ``port`` of the server cannot be used.
    """
    try:
        await server.start()
    except OSError as exc:
        raise ConfigurationError(f"--port {port}: {exc.strerror}: choose another, or 0 for a free one") from None
    try:
        print_result(f"export FI_BASE_URL={server.base_url} FI_API_KEY={API_KEY} FI_SECRET_KEY={SECRET_KEY}")
        names = ", ".join(f'"{run_test.name}"' for run_test in server.world.run_tests)
        with stop_on_signals() as stop:
            print_result(f"run_tests = [{names}]")
            print_message(
                f"a simulated API runs at {server.base_url} until you press Ctrl-C; use the lines above in another terminal"
            )
            await asyncio.wait([stop])
    finally:
        await server.stop()
