"""The names of what a dataset keeps next to its tables: everything under ``_state``.

A module that writes or reads one of these files takes its name from here, so that no two of them collide.
"""

STATE = "_state"
"""The folder of all others. A storage that has it holds a dataset."""
LOCK = f"{STATE}/lock"
"""What admits one writer, see ``lock`` and ``lease``."""
STAGING = f"{STATE}/staging"
"""The folder of files that are being written, before they get their final names."""
QUARANTINE = f"{STATE}/quarantine"
"""The folder to which damaged files are moved."""
LAST_RUN = f"{STATE}/last_run.json"
"""The record of the last run, attempt and loads, see ``dataset/last_run``."""
IDENTITY = f"{STATE}/dataset.json"
"""The dataset's id and the number of its layout, see ``dataset/parts``."""
INDEX = f"{STATE}/index.parquet"
"""A cache of what each part holds, see ``dataset/index``."""
COMPARED = f"{STATE}/compared.json"
"""When final executions were compared without a difference: a cache, see ``dataset/comparisons``."""
NOTIFIED = f"{STATE}/notified.json"
"""What the webhook has reported, see ``notify/webhook``."""
