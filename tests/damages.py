"""What befalls the files and folders of a dataset: damage, and permissions that are taken away."""

import os
from contextlib import contextmanager

NOBODY = 65534


@contextmanager
def closed(folder):
    """The folder may not be entered, not even by tests that were started by root."""
    is_root = os.geteuid() == 0
    mode = folder.stat().st_mode
    folder.chmod(0)
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(mode)


def empty(data):
    del data
    return b""


def truncated(data):
    return data[: len(data) // 2]


def garbage(data):
    return b"PAR1" + bytes(len(data)) + b"PAR1"


def text(data):
    del data
    return b"call_execution_id,status\n"


def with_a_column_name_that_is_not_text(data):
    return data.replace(b"execution_id", b"e\xff\xff\xff\xfftion_id")


DAMAGES = [empty, truncated, garbage, text, with_a_column_name_that_is_not_text]
