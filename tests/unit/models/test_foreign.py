"""Models of other tools: their directories are recognised, their names are read, and nothing of theirs is changed."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_mgr.models.foreign import form_of, model_directory, usual_places
from llama_mgr.models.library import Catalog
from llama_mgr.models.model import Model
from llama_mgr.models.roots import Form, Roots
from llama_mgr.paths import Home
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import PROJECTOR, Remarks, catalog_of, keys, put, put_recorded, put_shards

COMMIT, OLD_COMMIT = "1" * 40, "2" * 40
MODEL = model_bytes()
IMAGE = "application/vnd.ollama.image."


def watched(home: Home, directory: Path, form: Form | None = None) -> Catalog:
    Roots(home, Remarks()).add(directory, form or form_of(directory))
    return catalog_of(home)


def the_one(catalog: Catalog) -> Model:
    (model,) = catalog.models
    return model


# -- each tool ---------------------------------------------------------------------------------------------------------


def lm_studio(root: Path) -> None:
    put(root / "publisher/Model-GGUF/Model-Q4_K_M.gguf", MODEL)


def hub_cache(root: Path, content: bytes = MODEL, commit: str = COMMIT, name: str = "r-Q4_K_M.gguf") -> Path:
    repository = root / "models--owner--Repo-GGUF"
    sha256 = hashlib.sha256(content).hexdigest()
    put(repository / "blobs" / sha256, content)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True, exist_ok=True)
    (snapshot / name).symlink_to(f"../../blobs/{sha256}")
    put(repository / "refs/main", COMMIT.encode())
    return snapshot / name


def flat_cache(root: Path) -> None:
    put(root / "owner_Repo-GGUF_r-Q4_K_M.gguf", MODEL)
    put(root / "manifest=owner=Repo-GGUF=latest.json", b"{}")


def ollama(root: Path, tag: str = "7b", content: bytes = MODEL, place: str = "ollama.example/library/qwen2.5") -> Path:
    sha256 = hashlib.sha256(content).hexdigest()
    layers = [
        {"mediaType": f"{IMAGE}model", "digest": f"sha256:{sha256}", "size": len(content)},
        {"mediaType": f"{IMAGE}template", "digest": f"sha256:{'0' * 64}", "size": 5},
    ]
    put(root / "manifests" / place / tag, json.dumps({"schemaVersion": 2, "layers": layers}).encode())
    return put(root / "blobs" / f"sha256-{sha256}", content)


FORMS: dict[Form, Callable[[Path], object]] = {
    "lm-studio": lm_studio,
    "hf-cache": hub_cache,
    "llama-cpp-cache": flat_cache,
    "ollama": ollama,
    "folder": lambda root: put(root / "sub/file-Q4_K_M.gguf", MODEL),
}
NAMES: dict[Form, str] = {
    "lm-studio": "publisher/Model-GGUF",
    "hf-cache": "owner/Repo-GGUF",
    "llama-cpp-cache": "owner/Repo-GGUF",
    "ollama": "library/qwen2.5-7b",
    "folder": "sub/file",
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_recognised_named_and_left_alone(home: Home, tmp_path: Path, form: Form) -> None:
    root = tmp_path / "theirs"
    FORMS[form](root)
    before = {path: path.lstat() for path in root.rglob("*")}
    assert form_of(root) == form
    model = the_one(watched(home, root))
    assert (model.name, model.quant, model.root.form) == (NAMES[form], "Q4_K_M", form)
    assert {path: path.lstat() for path in root.rglob("*")} == before


def test_an_empty_directory_is_a_plain_folder(tmp_path: Path) -> None:
    assert form_of(tmp_path) == "folder"
    assert form_of(tmp_path / "missing") == "folder"


def test_our_own_side_cars_are_not_those_of_llama_cpp(tmp_path: Path) -> None:
    put_recorded(tmp_path / "a/x.gguf")
    assert form_of(tmp_path / "a") == "folder"


def test_directories_above_are_understood(tmp_path: Path) -> None:
    ollama(tmp_path / ".ollama/models")
    lm_studio(tmp_path / ".lmstudio/models")
    hub_cache(tmp_path / ".cache/huggingface/hub")
    assert model_directory(tmp_path / ".ollama") == tmp_path / ".ollama/models"
    assert model_directory(tmp_path / ".lmstudio") == tmp_path / ".lmstudio/models"
    assert model_directory(tmp_path / ".cache/huggingface") == tmp_path / ".cache/huggingface/hub"
    assert model_directory(tmp_path / ".ollama/models") == tmp_path / ".ollama/models"


def test_the_usual_places_that_are_there(tmp_path: Path) -> None:
    for place in (
        ".lmstudio/models",
        ".cache/huggingface/hub",
        ".ollama/models",
        "mine/hub",
        "mine/llama",
        "mine/ollama",
    ):
        (tmp_path / place).mkdir(parents=True)

    def found(**environ: str) -> set[str]:
        places = usual_places(environ, tmp_path)
        return {str(place.relative_to(tmp_path)) for place in places if place.is_relative_to(tmp_path)}

    assert found() == {".lmstudio/models", ".cache/huggingface/hub", ".ollama/models"}
    assert found(HF_HUB_CACHE=str(tmp_path / "mine/hub")) >= {"mine/hub"}
    assert found(HF_HOME=str(tmp_path / "mine")) == {".lmstudio/models", ".ollama/models", "mine/hub"}
    assert found(LLAMA_CACHE=str(tmp_path / "mine/llama"), OLLAMA_MODELS=str(tmp_path / "mine/ollama")) >= {
        "mine/llama",
        "mine/ollama",
    }
    assert found(HF_HOME="relative", LLAMA_CACHE="", OLLAMA_MODELS="x\0y") == found()


# -- the Hugging Face cache --------------------------------------------------------------------------------------------


def test_the_name_of_a_blob_is_its_sha256(home: Home, tmp_path: Path) -> None:
    path = hub_cache(tmp_path / "hub")
    model = the_one(watched(home, tmp_path / "hub"))
    assert model.files == (path,)
    assert model.sha256 == hashlib.sha256(MODEL).hexdigest()


def test_the_snapshot_of_main_comes_first(home: Home, tmp_path: Path) -> None:
    current = hub_cache(tmp_path / "hub", MODEL)
    old = hub_cache(tmp_path / "hub", model_bytes(seed=1), OLD_COMMIT)
    same = hub_cache(tmp_path / "hub", MODEL, "3" * 40)
    catalog = watched(home, tmp_path / "hub")
    assert [(model.key, model.files[0]) for model in catalog.models] == [
        ("owner/Repo-GGUF/r-Q4_K_M.gguf", old),
        ("owner/Repo-GGUF:Q4_K_M", current),
    ]
    assert catalog.models[1].copies == (same,)


def test_the_cache_of_a_pull_that_goes_on(home: Home, tmp_path: Path) -> None:
    path = hub_cache(tmp_path / "hub")
    put(tmp_path / "hub/models--owner--Repo-GGUF/blobs/abc.incomplete", MODEL[:100])
    put(tmp_path / "hub/.locks/models--owner--Repo-GGUF/x.lock", b"")
    path.with_name("next.gguf").symlink_to("../../blobs/not-yet")
    catalog = watched(home, tmp_path / "hub")
    assert keys(catalog) == ["owner/Repo-GGUF:Q4_K_M"]
    assert [one.why for one in catalog.broken] == ["it is a link that leads nowhere"]


def test_a_split_model_with_its_projector_in_the_cache(home: Home, tmp_path: Path) -> None:
    for number in range(2):
        hub_cache(tmp_path / "hub", model_bytes(split=(number, 2)), name=f"r-Q4_K_M-{number + 1:05d}-of-00002.gguf")
    projector = hub_cache(tmp_path / "hub", PROJECTOR, name="mmproj-F16.gguf")
    model = the_one(watched(home, tmp_path / "hub"))
    assert len(model.files) == 2
    assert model.projector == projector


def test_a_hostile_cache_harms_nobody(home: Home, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    hub_cache(hub)
    os.mkfifo(hub / "models--owner--Repo-GGUF/refs/other")
    repository = hub / "models--..--.."
    put(repository / "snapshots/a/x.gguf", model_bytes(seed=1))
    put(repository / "snapshots/b/x.gguf", model_bytes(seed=2))
    (repository / "refs").mkdir()
    os.mkfifo(repository / "refs/main")
    assert len(watched(home, hub).models) == 3


# -- llama.cpp's older cache -------------------------------------------------------------------------------------------


def test_names_from_urls_and_from_file_names(home: Home, tmp_path: Path) -> None:
    root = tmp_path / "llama.cpp"
    put(root / "o_r_a-Q4_K_M.gguf", model_bytes(seed=1))
    url = "https://hub.example/o/r/resolve/main/a-Q4_K_M.gguf"
    put(root / "o_r_a-Q4_K_M.gguf.json", json.dumps({"url": url, "etag": '"x"', "lastModified": ""}).encode())
    put(root / "plain-Q4_K_M.gguf", model_bytes(seed=2))
    put(root / "plain-Q4_K_M.gguf.etag", b'"y"')
    put(root / "bad.gguf", model_bytes(seed=3))
    put(root / "bad.gguf.json", b'{"url": "https://[bad/o/r/resolve/main/x.gguf"}')
    assert form_of(root) == "llama-cpp-cache"
    assert keys(watched(home, root)) == ["llama.cpp/bad:Q4_K_M", "llama.cpp/plain:Q4_K_M", "o/r:Q4_K_M"]


def test_both_layouts_in_one_directory(home: Home, tmp_path: Path) -> None:
    flat_cache(tmp_path / "cache")
    hub_cache(tmp_path / "cache", model_bytes(seed=1), name="newer-Q4_K_M.gguf")
    assert len(watched(home, tmp_path / "cache").models) == 2


def test_shards_and_projector_of_the_flat_cache(home: Home, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    put_shards(root, "o_r_x-Q4_K_M", 2)
    put(root / "o_r_mmproj-F16.gguf", PROJECTOR)
    put(root / "manifest=o=r=Q4_K_M.json", b"{}")
    model = the_one(watched(home, root))
    assert (model.name, len(model.files)) == ("o/r", 2)
    assert model.projector == root / "o_r_mmproj-F16.gguf"


# -- Ollama ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "tag", "name"),
    [
        ("ollama.example/library/llama3.2", "latest", "library/llama3.2"),
        ("ollama.example/library/llama3.2", "1b-instruct-q4_K_M", "library/llama3.2-1b-instruct"),
        ("ollama.example/somebody/tuned", "v2", "somebody/tuned-v2"),
        ("hf.co/bartowski/Repo-GGUF", "Q4_K_M", "bartowski/Repo-GGUF"),
        ("localhost:5000/lib/x", "latest", "lib/x"),
    ],
)
def test_names_of_ollama(home: Home, tmp_path: Path, place: str, tag: str, name: str) -> None:
    blob = ollama(tmp_path / "store", tag, place=place)
    model = the_one(watched(home, tmp_path / "store"))
    assert (model.name, model.quant, model.files) == (name, "Q4_K_M", (blob,))
    assert model.sha256 == hashlib.sha256(MODEL).hexdigest()


def test_two_tags_of_one_blob_are_one_model(home: Home, tmp_path: Path) -> None:
    for tag in ("latest", "7b"):
        ollama(tmp_path / "store", tag)
    model = the_one(watched(home, tmp_path / "store"))
    assert model.copies == ()


def test_links_in_a_circle_stop_nobody(home: Home, tmp_path: Path) -> None:
    ollama(tmp_path / "store")
    for place in ("loop", "ollama.example/library/qwen2.5/loop"):
        (tmp_path / "store/manifests" / place).symlink_to("loop")
    put(tmp_path / "lm/publisher/model/x.gguf", model_bytes(seed=1))
    for place in ("loop", "publisher/loop", "publisher/model/loop.gguf"):
        (tmp_path / "lm" / place).symlink_to(Path(place).name)
    hub = tmp_path / "hub/models--o--r"
    put(hub / "snapshots" / COMMIT / "y.gguf", model_bytes(seed=2))
    (hub / "snapshots/loop").symlink_to("loop")
    (hub / "refs").symlink_to("refs")
    for directory in ("store", "lm", "hub"):
        catalog = watched(home, tmp_path / directory)
    assert len(catalog.models) == 3
    assert sorted(one.path.name for one in catalog.broken) == ["loop", "loop.gguf"]
    assert catalog.holding(tmp_path / "lm/publisher/model/loop.gguf") is None


def test_more_manifests_than_anybody_has_are_not_read(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tag in ("a", "b", "c"):
        ollama(tmp_path / "store", tag)
    monkeypatch.setattr("llama_mgr.models.ollama._MANIFESTS_LIMIT", 2)
    Roots(home, Remarks()).add(tmp_path / "store", "ollama")
    remarks = Remarks()
    catalog = catalog_of(home, remarks)
    assert len(catalog.models) + len(catalog.duplicates) == 2
    assert "more than 2 manifests" in remarks.warnings[0]


@pytest.mark.parametrize("damage", [None, PROJECTOR[:-9], b"x" * len(PROJECTOR)], ids=["gone", "cut", "other bytes"])
def test_a_projector_of_ollama_that_is_not_whole_is_none(home: Home, tmp_path: Path, damage: bytes | None) -> None:
    root = tmp_path / "store"
    ollama(root)
    manifest = root / "manifests/ollama.example/library/qwen2.5/7b"
    document = json.loads(manifest.read_text())
    document["layers"].append(
        {"mediaType": f"{IMAGE}projector", "digest": f"sha256:{'a' * 64}", "size": len(PROJECTOR)}
    )
    manifest.write_text(json.dumps(document))
    blob = root / "blobs" / f"sha256-{'a' * 64}"
    if damage is not None:
        put(blob, damage)
    catalog = watched(home, root)
    model = the_one(catalog)
    assert (model.projector, model.projector_bytes, "vision" in model.capabilities) == (None, 0, False)
    assert [one.path for one in catalog.broken] == [blob]


def test_a_projector_of_ollama(home: Home, tmp_path: Path) -> None:
    root = tmp_path / "store"
    blob = ollama(root)
    projector = put(root / "blobs" / f"sha256-{hashlib.sha256(PROJECTOR).hexdigest()}", PROJECTOR)
    manifest = root / "manifests/ollama.example/library/qwen2.5/7b"
    document = json.loads(manifest.read_text())
    digest = f"sha256:{projector.name.removeprefix('sha256-')}"
    document["layers"].append({"mediaType": f"{IMAGE}projector", "digest": digest, "size": len(PROJECTOR)})
    manifest.write_text(json.dumps(document))
    model = the_one(watched(home, root))
    assert (model.files, model.projector, model.projector_bytes) == ((blob,), projector, len(PROJECTOR))
    assert "vision" in model.capabilities


def layer(digest: str, size: Any = None) -> bytes:  # noqa: ANN401 (also wrong types)
    size = len(MODEL) if size is None else size
    return json.dumps({"layers": [{"mediaType": f"{IMAGE}model", "digest": digest, "size": size}]}).encode()


GOOD = hashlib.sha256(MODEL).hexdigest()
HOSTILE: dict[str, tuple[bytes, str]] = {
    "not-json": (b"\xff{", "no manifest"),
    "empty": (b"", "no manifest"),
    "list": (b"[]", "no manifest"),
    "deep": (b'{"unknown": ' + b"[" * 100_000, "no manifest"),
    "no-layers": (b"{}", "no manifest"),
    "up-and-away": (layer("sha256:../../../../etc/passwd"), "is no sha256"),
    "absolute": (layer("/etc/passwd"), "is no sha256"),
    "short": (layer("sha256:abc"), "is no sha256"),
    "upper-case": (layer(f"sha256:{GOOD.upper()}"), "is no sha256"),
    "newline": (layer(f"sha256:{GOOD}\n"), "is no sha256"),
    "other-size": (layer(f"sha256:{GOOD}", 5), "its manifest says 5 bytes"),
    "negative": (layer(f"sha256:{GOOD}", -1), "its manifest says -1 bytes"),
    "huge": (layer(f"sha256:{GOOD}", 2**80), "its manifest says 1,208,925"),
    "text-as-size": (layer(f"sha256:{GOOD}", "5"), "no manifest"),
    "gone": (layer(f"sha256:{'0' * 64}"), "No such file"),
    "too-large": (b" " * 2_000_000, "more than the limit"),
}


@pytest.mark.parametrize(("content", "why"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_manifest_names_nothing(home: Home, tmp_path: Path, content: bytes, why: str) -> None:
    root = tmp_path / "store"
    ollama(root)
    put(root / "manifests/ollama.example/library/evil/latest", content)
    catalog = watched(home, root)
    assert keys(catalog) == ["library/qwen2.5-7b:Q4_K_M"]
    assert [one.why for one in catalog.broken if why in one.why], catalog.broken


def test_models_without_a_gguf_are_left_out(home: Home, tmp_path: Path) -> None:
    root = tmp_path / "store"
    ollama(root)
    remote = {"layers": [{"mediaType": f"{IMAGE}license", "digest": f"sha256:{'0' * 64}", "size": 1}]}
    put(root / "manifests/ollama.example/library/cloud/latest", json.dumps(remote).encode())
    put(root / "manifests/stray", b"x")
    put(root / "manifests/a/b/c/d/e", b"x")
    catalog = watched(home, root)
    assert (len(catalog.models), catalog.broken) == (1, ())
