"""What `instance list` and `instance show` print."""

from typing import TYPE_CHECKING, Any

from llama_mgr.cli.console import Output
from llama_mgr.errors import LlamaMgrError
from llama_mgr.paths import Home
from llama_mgr.text import size_words

if TYPE_CHECKING:
    from llama_mgr.build.record import BuildRecord
    from llama_mgr.instances.instance import Instance

LIST_COLUMNS = ("", "name", "version", "commit", "recipe", "devices", "size", "made", "generations")
_SHOWN_COMMIT = 12


def instance_rows(home: Home) -> list[dict[str, Any]]:
    """Return one document for each instance, damaged ones included, as `instance list --json` prints them."""
    from llama_mgr.instances.choice import default_name
    from llama_mgr.instances.instance import Instances

    instances = Instances(home)
    rows = []
    default = _or_none(lambda: default_name(home))
    for name in instances.names():
        try:
            row = _row(home, instances.find(name))
        except LlamaMgrError as error:
            row = {"damage": error.message}
        rows.append({"name": name, "default": name == default, "damage": None, **row})
    return rows


def list_row(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of one row of `instance list`."""
    mark = "*" if row["default"] else ""
    if "version" not in row:
        return (mark, row["name"], "damaged", "", "", "", "", "", "")
    if row["linked"]:
        return (mark, row["name"], "linked", "", "", row["linked"], "", row["made_at"][:10], "")
    return (
        mark,
        row["name"],
        row["version"],
        row["commit"].rpartition(":")[2][:_SHOWN_COMMIT],
        "+".join([row["recipe"], *row["parts"]]),
        ", ".join(row["devices"] or row["backends"]),
        "" if row["size_bytes"] is None else size_words(row["size_bytes"]),
        row["made_at"][:10],
        str(row["generations"]),
    )


def instance_document(home: Home, instance: "Instance") -> dict[str, Any]:
    """Return everything that is known of an instance, as `instance show --json` prints it."""
    import msgspec

    from llama_mgr.instances.choice import default_name
    from llama_mgr.instances.instance import Instances

    document: dict[str, Any] = {
        "name": instance.name,
        "default": _or_none(lambda: default_name(home)) == instance.name,
        **_row(home, instance),
        "path": str(Instances(home).prefix(instance)),
        "history": [msgspec.to_builtins(generation) for generation in instance.generations],
    }
    if instance.linked is None:
        record = Instances(home).build_of(instance)
        document |= {
            "plan": msgspec.to_builtins(record.plan),
            "programs": record.programs,
            "converter": record.converter,
            "capabilities": msgspec.to_builtins(record.capabilities),
            "configure_argv": record.configure_argv,
            "tools": record.tools,
            "took_s": record.took_s,
        }
    return document


def print_instance(output: Output, document: dict[str, Any]) -> None:
    """Print an instance for people."""
    output.line(document["name"] + (" (default)" if document["default"] else ""), "bold")
    output.line(f"path:      {document['path']}")
    if document["linked"]:
        output.line("a build of your own; llama-mgr never changes it")
        return
    _print_build(output, document)
    output.line()
    output.table(
        ("", "version", "commit", "since", "build"),
        [
            ("*" if number == 0 else "", one["version"], one["commit"][:_SHOWN_COMMIT], one["since"], one["build_id"])
            for number, one in enumerate(document["history"])
        ],
    )


def _print_build(output: Output, document: dict[str, Any]) -> None:
    plan, able = document["plan"], document["capabilities"]
    loaders = len(able.get("loader_architectures", []))
    converters = len(able.get("converter_architectures", []))
    output.line(f"version:   {plan['version']} ({plan['commit']}), build number {plan['build_number']}")
    output.line(f"source:    {plan['source_kind']} from {plan['location']}")
    output.line(f"recipe:    {'+'.join([plan['recipe'], *plan['parts']])}")
    output.line(f"size:      {size_words(document['size_bytes'])}, made {document['made_at']}")
    output.line(f"programs:  {', '.join(sorted(document['programs'].values()))}")
    output.line(f"backends:  {', '.join(document['backends']) or 'none known'}")
    if document["devices"]:
        output.line(f"devices:   {', '.join(document['devices'])}")
    output.line(f"quants:    {', '.join(one['name'] for one in able.get('quant_types', []))}")
    output.line(f"models:    loads {loaders} architectures, converts {converters}")
    output.line()
    output.table(("define", "value"), sorted(plan["defines"].items()))


def _row(home: Home, instance: "Instance") -> dict[str, Any]:
    from llama_mgr.build.record import Builds

    row: dict[str, Any] = {
        "version": "",
        "commit": "",
        "recipe": "",
        "parts": [],
        "backends": [],
        "devices": [],
        "size_bytes": None,
        "made_at": instance.made_at,
        "generations": len(instance.generations),
        "linked": instance.linked,
        "build_id": None,
    }
    if instance.linked is not None:
        return row
    now = instance.current
    row |= {"version": now.version, "commit": now.commit, "build_id": now.build_id}
    row |= {"recipe": now.wanted.recipe, "parts": now.wanted.parts}
    try:
        row |= _build_facts(Builds(home).find(now.build_id))
    except LlamaMgrError as error:
        row["damage"] = error.message
    return row


def _build_facts(record: "BuildRecord") -> dict[str, Any]:
    able = record.capabilities
    return {
        "recipe": record.plan.recipe,
        "parts": record.plan.parts,
        "backends": able.backends,
        "devices": [device.name for device in able.devices],
        "size_bytes": record.size_bytes,
        "made_at": record.made_at,
    }


def _or_none(read: "Any") -> Any:  # noqa: ANN401 (whatever it reads)
    try:
        return read()
    except LlamaMgrError:
        return None
