"""From what a user typed to a model of the library."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_mgr.cli.context import Context
from llama_mgr.errors import BadReferenceError, UnknownModelError

if TYPE_CHECKING:
    from llama_mgr.models.library import Catalog
    from llama_mgr.models.model import Model
    from llama_mgr.models.reference import Reference


def path_in(text: str) -> Path | None:
    """Return the path that `text` is, when it has the form of one (`./x.gguf`, `f:x.gguf`), else None.

    Raises:
        BadReferenceError: it is empty, or a URL.
    """
    from llama_mgr.models.reference import FileRef

    reference = _reference(text)
    if not isinstance(reference, FileRef):
        return None
    return absolute_path(reference.path)


def absolute_path(path: Path) -> Path:
    """Return what a user typed as an absolute path; `~` is the user's home, and `~name` that of a user of this name."""
    try:
        return path.expanduser().absolute()
    except RuntimeError:  # there is no such user: it is a name like others
        return path.absolute()


def chosen_model(context: Context, text: str, catalog: "Catalog") -> "Model":
    """Return the model that `text` means: a key, a part of a name, an alias, or the path of one of its files.

    Raises:
        UnknownModelError: there is none; close ones are suggested.
        AmbiguousModelError: there are several; they are listed.
        BadReferenceError: it is empty, or a URL.
    """
    from llama_mgr.models.aliases import Aliases
    from llama_mgr.models.matching import matches, the_one

    path = path_in(text)
    if path is not None:
        return _holding(text, path, catalog)
    exact = with_key(text, [*catalog.models, *catalog.duplicates])
    if exact:
        return exact[0]
    try:
        return the_one(text, catalog.models, Aliases(context.home))
    except UnknownModelError:
        # A name that is only a second name of something.
        others = matches(text, catalog.duplicates)
        if len(others) == 1:
            return others[0]
        raise


def model_to_remove(context: Context, text: str, catalog: "Catalog") -> "Model":
    """Return the model that `chosen_model` finds, or our copy of it with the same key; an alias means its target only.

    Raises: as `chosen_model`; UnknownModelError also when an alias stands for what is not in the library.
    """
    from llama_mgr.models.aliases import Aliases
    from llama_mgr.models.matching import text_of_target

    every = [*catalog.models, *catalog.duplicates]
    target = None if with_key(text, every) else Aliases(context.home).expand(text)
    model = chosen_model(context, text_of_target(target) if target else text, catalog)
    if model.root.is_own:
        return model
    equal = [{one.files[0], *one.copies} for one in catalog.models]
    same = next((files for files in equal if model.files[0] in files), set())
    return next((one for one in with_key(model.key, every) if one.root.is_own and one.files[0] in same), model)


def with_key(text: str, models: Sequence["Model"]) -> list["Model"]:
    """Return the models whose key is `text`; case does not count."""
    from llama_mgr.names import canonical

    wanted = canonical(text)
    return [model for model in models if canonical(model.key) == wanted]


def _holding(text: str, path: Path, catalog: "Catalog") -> "Model":
    found = catalog.holding(path)
    if found is None:
        hint = "llama-mgr import takes it into the library" if path.exists() else "llama-mgr list"
        raise UnknownModelError("cannot find the model", text, "no model of the library has this file", hint=hint)
    return found


def _reference(text: str) -> "Reference | None":
    """Return the reference that `text` is, or None for names that no reference could have, such as `a (1)`."""
    from llama_mgr.models.reference import UrlRef, parse_reference

    try:
        reference = parse_reference(text)
    except BadReferenceError:
        if not text.strip() or "://" in text:
            raise
        return None
    if isinstance(reference, UrlRef):
        raise BadReferenceError(
            "cannot use as a model of the library", text, "it is a URL",
            hint="`llama-mgr pull URL --sha256 HEX` fetches it; then it has a name",
        )  # fmt: skip
    return reference
