"""`--arch auto`: the recipe that suits this machine, and why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.build import discovery
from llama_mgr.build.found import Missing
from llama_mgr.build.host import Host
from llama_mgr.build.recipe import Recipes
from llama_mgr.build.toolchain import find_toolchain, install_line
from llama_mgr.paths import home_from
from llama_mgr.text import printable

FALLBACK = "cpu"
_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD"}  # PCI vendor ids


@dataclass(frozen=True)
class Choice:
    """A recipe, and the reason in words; where a better one lacks only its toolkit, what to install for it."""

    recipe: str
    why: str


@dataclass(frozen=True)
class Device:
    """A GPU that a recipe is for."""

    recipe: str
    name: str
    ready: bool
    """Its driver answers; False when only its presence on the bus is known."""


def choose_arch(environ: Mapping[str, str], host: Host, *, root: Path = Path("/")) -> Choice:
    """Return the recipe for the best GPU whose toolkit is complete, else `cpu`.

    Nothing is built or written; tools that list GPUs are run.

    Args:
        environ: PATH and the home, whose own recipes may shadow the shipped ones.
        host: this machine.
        root: where `/sys` lies.
    """
    if host.os == "darwin" and host.machine == "arm64":
        return Choice("metal", "this is a Mac with an Apple GPU")
    recipes = Recipes(home_from(dict(environ)))
    everywhere = {one.name for one in _missing(recipes, FALLBACK, environ, host)}
    remarks: list[str] = []
    for device in devices(environ, root):
        lacking = [one for one in _missing(recipes, device.recipe, environ, host) if one.name not in everywhere]
        if device.ready and not lacking:
            return Choice(device.recipe, "; ".join([f"{device.name} is here with all it needs", *remarks]))
        remarks.append(_remark(device, lacking, host))
    return Choice(FALLBACK, "; ".join(remarks) or "no GPU was found")


def _remark(device: Device, lacking: list[Missing], host: Host) -> str:
    names = [one.name for one in lacking] if device.ready else ["its driver", *(one.name for one in lacking)]
    install = install_line(lacking, host.package_manager)
    to_use = f" (to use it: {install})" if install else ""
    return f"{device.name} is here, but the recipe '{device.recipe}' lacks {', '.join(names)}{to_use}"


def _missing(recipes: Recipes, name: str, environ: Mapping[str, str], host: Host) -> list[Missing]:
    return find_toolchain(recipes.chain(name, []), None, host, environ, {}).missing


def devices(environ: Mapping[str, str], root: Path = Path("/")) -> Iterator[Device]:
    """Yield the GPUs here, in the order in which their recipes are preferred; a GPU may come once for each recipe."""
    on_bus = _vendors_on_bus(root)
    nvidia = _names(environ, r"^\s*(\S.*?)\s*$", "nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    if nvidia or "NVIDIA" in on_bus:
        yield Device("cuda", nvidia or "an NVIDIA GPU", ready=bool(nvidia))
    amd = _names(environ, r"^\s*Name:\s+(gfx(?!000)[0-9a-f]+)\s*$", "rocminfo") or _names(
        environ, r"^(gfx(?!000)[0-9a-f]+)", "rocm_agent_enumerator", "-t", "GPU"
    )
    if amd or "AMD" in on_bus:
        yield Device("rocm", f"the AMD GPU {amd}" if amd else "an AMD GPU", ready=bool(amd))
    vulkan = _vulkan_name(environ)
    if vulkan:
        yield Device("vulkan", vulkan, ready=True)


def _names(environ: Mapping[str, str], pattern: str, *command: str) -> str:
    said = discovery.answer(command, environ)
    return printable(discovery.first_match(pattern, said) or "", 60) if said else ""


def _vulkan_name(environ: Mapping[str, str]) -> str:
    """Return the first Vulkan device that is a GPU; software renderers report the type CPU."""
    kind = ""
    for line in (discovery.answer(["vulkaninfo", "--summary"], environ) or "").splitlines():
        name, _, value = (part.strip() for part in line.partition("="))
        if name == "deviceType":
            kind = value
        elif name == "deviceName" and kind.endswith("_GPU"):
            return printable(value, 60)
    return ""


def _vendors_on_bus(root: Path) -> set[str]:
    found = set()
    for file in root.glob("sys/class/drm/card*/device/vendor"):
        try:
            found.add(_VENDORS.get(file.read_text("ascii").strip(), ""))
        except (OSError, UnicodeDecodeError):
            continue
    return found
