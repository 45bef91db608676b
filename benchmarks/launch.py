"""Run one command, and write what the system says of it into a file: ``python -m benchmarks.launch FILE COMMAND …``.

A process starts with the peak memory of the one that started it: so this small one starts each that is measured.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main(file: Path, command: list[str]) -> int:
    """The exit code of the command."""
    started_at = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    figures = {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": time.monotonic() - started_at,
        "peak_mb": usage.ru_maxrss * 1024 / 1e6,
    }
    file.write_text(json.dumps(figures))
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
