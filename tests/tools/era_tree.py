"""Excerpts of llama.cpp's trees (`tests/contract/eras/*.tree`): the options and words that recipes ask for, no more.

A file has sections `== path`; the lines below one are what of that file matters.
"""

from pathlib import Path

ERAS_DIR = Path(__file__).resolve().parent.parent / "contract" / "eras"


class EraTree:
    """A Tree whose files are the sections of one excerpt."""

    def __init__(self, name: str) -> None:
        """Read the excerpt `name`: `b3600`, `fork-ik`."""
        self.name = name
        self._files: dict[str, str] = {}
        for section in f"\n{(ERAS_DIR / f'{name}.tree').read_text()}".split("\n== ")[1:]:
            path, _, text = section.partition("\n")
            self._files[path] = text

    @property
    def build_number(self) -> int:
        """The number in its name; a fork has none."""
        return int(self.name[1:]) if self.name[1:].isdigit() else 0

    def read(self, path: str) -> str | None:
        """Return the text of a section."""
        return self._files.get(path)

    def has(self, path: str) -> bool:
        """Tell whether there is a section `path`, or one below it."""
        return any(name == path or name.startswith(f"{path.rstrip('/')}/") for name in self._files)


def era_names() -> list[str]:
    """Return the names of all excerpts."""
    return sorted(path.stem for path in ERAS_DIR.glob("*.tree"))
