"""An exact state of a source that was written down once and is wanted again: by a lock file, or to repair a build."""

import dataclasses
from dataclasses import dataclass

import msgspec

from llama_mgr.build.builder import Prepared
from llama_mgr.build.version import parsed_version
from llama_mgr.errors import IntegrityError
from llama_mgr.instances.instance import WantedBuild


@dataclass(frozen=True)
class Pin:
    """A version's label and the commit that it stood for."""

    version: str
    commit: str
    """40 hex digits, `snapshot:<sha256>` or `tree:<sha256>`, as in `Source.commit`."""
    mend: str
    """What to do when the version stands for another commit now."""
    meaning: str = ""
    """What that does, in words, where `mend` is a bare command."""

    def applied_to(self, wanted: WantedBuild) -> WantedBuild:
        """Return `wanted` so that locating its source finds this commit, whatever its branch or `latest` is now."""
        if parsed_version(wanted.version).kind == "path":
            return wanted
        if self.commit.startswith("snapshot:"):
            return msgspec.structs.replace(wanted, version=self.version, branch=None, repo_url=None, source="snapshot")
        # A recipe may look at the tag, so tags are asked for by name and compared by `checked`.
        is_tag = parsed_version(self.version).kind in {"build", "release"}
        return msgspec.structs.replace(
            wanted, version=self.version if is_tag else self.commit, branch=None, source="git"
        )

    def checked(self, prepared: Prepared) -> Prepared:
        """Return `prepared` under the label of this pin.

        Raises:
            IntegrityError: the source is another commit now: a tag was moved, or the local tree was changed.
        """
        if prepared.source.commit != self.commit:
            why = f"it is {prepared.source.commit[:21]} now, not {self.commit[:21]}"
            if self.meaning:
                why = f"{why}; {self.meaning}"
            raise IntegrityError("cannot find the recorded commit of", self.version, why, hint=self.mend)
        return dataclasses.replace(
            prepared,
            source=dataclasses.replace(prepared.source, version=self.version),
            plan=msgspec.structs.replace(prepared.plan, version=self.version),
        )
