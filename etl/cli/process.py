"""How the command runs its process: for speed and little memory. A program that imports the library keeps its own ways."""

import asyncio
import gc
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def prepare() -> None:
    """Before heavy imports, which make no garbage: the garbage collector hardly looks at them."""
    gc.set_threshold(200_000, 20, 20)
    # Arrow's own allocator keeps what it was given, the system's gives it back; read when pyarrow is imported.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # Nothing here multiplies matrices, and numpy would start a thread for that on each processor.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Arrow's own ways to object stores are 6 MB that nothing here uses; pyarrow does without those that cannot be imported.
    for name in ("_azurefs", "_gcsfs", "_hdfs", "_s3fs"):
        sys.modules.setdefault(f"pyarrow.{name}", None)  # type: ignore[arg-type]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the work as ``asyncio.run`` does, on uvloop's event loop where it is installed (extra ``fast``).

    What was imported before lives as long as the process: the garbage collector looks at it no more, not even in the end.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # less often than usual, since what a run makes lives until its commit
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        pass
    else:
        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)
