"""Python packages that hold nothing, and an index of them on this disk."""

import zipfile
from pathlib import Path


def wheel(place: Path, name: str, version: str, tag: str = "py3-none-any", needs: tuple[str, ...] = ()) -> None:
    """Write the wheel of a package whose only module says its version."""
    place.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    requires = "".join(f"Requires-Dist: {line}\n" for line in needs)
    with zipfile.ZipFile(place / f"{name}-{version}-{tag}.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")


def index(tmp_path: Path) -> Path:
    """Return the root `simple` of an index whose projects are the directories of wheels in it."""
    root = tmp_path / "simple"
    for place in root.iterdir():
        links = "".join(f'<a href="{file.name}">{file.name}</a>' for file in place.glob("*.whl"))
        (place / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    return root
