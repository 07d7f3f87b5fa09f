"""Staging directories."""

from pathlib import Path

from llama_mgr import staging
from llama_mgr.paths import Home


def test_a_staging_directory_is_released_only_when_it_goes(home: Home) -> None:
    released = list[Path]()
    with staging.staging(home, "install") as live:
        assert staging.remove_staging(home, live, released.append) is False
    dead = home.staging_dir / "dead"
    (dead / "source").mkdir(parents=True)
    assert staging.remove_staging(home, dead, released.append) is True
    assert released == [dead]
    assert not dead.exists()
