"""A model of a disk that loses, when the power is cut, whatever was not forced to it, as POSIX allows it.

What a file holds is safe once the file was synced; that a name stands for a file, or stands for it no more, is safe
once the folder was. Of everything else a cut keeps some by chance, or nothing.
"""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.files.watched import Step


@dataclass(eq=False)
class File:
    content: bytes = b""
    safe: bytes = b""


@dataclass(eq=False)
class Folder:
    entries: "dict[str, File | Folder]" = field(default_factory=dict)
    safe: "dict[str, File | Folder]" = field(default_factory=dict)


class Disk:
    """Takes the steps of a run below a folder, in their order. What lies there at first is safe."""

    def __init__(self, folder: Path) -> None:
        self._root = _copy(folder)

    def take(self, step: Step) -> None:
        match step.name:
            case "create":
                folder, name = self._place(step.path)
                folder.entries.setdefault(name, File())
            case "mkdir":
                folder, name = self._place(step.path)
                folder.entries[name] = Folder()
            case "unlink":
                folder, name = self._place(step.path)
                del folder.entries[name]
            case "rename":
                folder, name = self._place(step.path)
                target, new_name = self._place(step.target)
                target.entries[new_name] = folder.entries.pop(name)
            case "write":
                self._file(step.path).content += step.data
            case "ftruncate":
                self._file(step.path).content = b""
            case "pwrite":
                self._file(step.path).content = step.data
            case "fsync":
                found = self._find(step.path)
                if isinstance(found, Folder):
                    found.safe = dict(found.entries)
                else:
                    found.safe = found.content

    def survivors(self, to: Path, rng: Random, *, luck: float) -> None:
        """Lay what a power cut now would leave into the folder; what is not safe is kept with this probability."""
        _lay(self._root, to, rng, luck)

    def _place(self, path: str) -> tuple[Folder, str]:
        folder, _, name = path.rpartition("/")
        found = self._find(folder or ".")
        assert isinstance(found, Folder), path
        return found, name

    def _find(self, path: str) -> File | Folder:
        found = self._root
        for name in Path(path).parts:
            assert isinstance(found, Folder), path
            found = found.entries[name]
        return found

    def _file(self, path: str) -> File:
        found = self._find(path)
        assert isinstance(found, File), path
        return found


def _copy(path: Path) -> File | Folder:
    if path.is_file():
        return File(path.read_bytes(), path.read_bytes())
    entries = {each.name: _copy(each) for each in path.iterdir()}
    return Folder(entries, dict(entries))


def _survivor(folder: Folder, name: str, rng: Random, luck: float) -> File | Folder | None:
    now, safe = folder.entries.get(name), folder.safe.get(name)
    return now if now is safe or rng.random() < luck else safe


def _lay(found: File | Folder | None, to: Path, rng: Random, luck: float) -> None:
    match found:
        case Folder():
            to.mkdir()
            for name in sorted(found.entries.keys() | found.safe.keys()):
                _lay(_survivor(found, name, rng, luck), to / name, rng, luck)
        case File() if found.content == found.safe:
            to.write_bytes(found.safe)
        case File():
            # Blocks that were never written hold anything; those that were may have arrived in part.
            keeps_all = rng.random() < luck
            to.write_bytes(found.content if keeps_all else found.safe + rng.randbytes(len(found.content) // 2))
