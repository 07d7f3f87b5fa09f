"""Which quant a pull takes when none is named: what suits the machine, and what is here already."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llama_mgr.errors import RemoteError
from llama_mgr.models.memory import Machine
from llama_mgr.models.pull import Puller
from llama_mgr.models.reference import HubRef
from tests.tools.hub_models import OWNER_REPO, claim_size, quants
from tests.tools.listener import Listener
from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_faults import Fault
from tests.tools.pulled_files import REF, put_there


def machine(free_bytes: int) -> Machine:
    return Machine(ram_bytes=1 << 40, ram_free_bytes=free_bytes)


def sizes(hub: LocalHub, place: Path) -> None:
    """Offer Q4_K_M with 40 GB and Q2_K with 10 GB, as far as the listing says, and a small IQ3_S."""
    hub.add(OWNER_REPO, quants("Q4_K_M", "Q2_K", "IQ3_S"))
    claim_size(hub, OWNER_REPO, "tiny-Q4_K_M.gguf", 40_000_000_000, place)
    claim_size(hub, OWNER_REPO, "tiny-Q2_K.gguf", 10_000_000_000, place)


def test_the_preferred_quant_that_does_not_fit_is_not_taken(
    hub: LocalHub, puller: Callable[..., Puller], place: Path, listener: Listener
) -> None:
    sizes(hub, place)
    assert puller(machine(8_000_000_000)).pull(REF).quant == "IQ3_S"
    assert any("Q4_K_M (37.3 GiB) does not fit into the memory" in line for line in listener.notes)
    assert listener.warnings == []


def test_when_nothing_fits_the_smallest_is_taken_with_a_warning(
    hub: LocalHub, puller: Callable[..., Puller], place: Path, listener: Listener
) -> None:
    sizes(hub, place)
    assert puller(machine(1000)).pull(REF).quant == "IQ3_S"
    assert any("does not fit" in line for line in listener.warnings)


def test_what_is_here_already_is_kept_to(hub: LocalHub, puller: Callable[..., Puller], listener: Listener) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M", "Q8_0"))
    puller().pull(HubRef("owner", "tiny-GGUF", quant="Q8_0"))
    again = puller().pull(REF)
    assert (again.quant, again.was_there) == ("Q8_0", True)
    assert any("here already" in line for line in listener.notes)


def test_what_was_begun_is_gone_on_with(hub: LocalHub, puller: Callable[..., Puller]) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M", "Q8_0"))
    hub.fault(Fault(cut_after=100_000), times=1)
    with pytest.raises(RemoteError):
        puller().pull(HubRef("owner", "tiny-GGUF", quant="Q8_0"))
    assert puller().pull(REF).quant == "Q8_0"


def test_a_file_of_others_was_not_begun_here(hub: LocalHub, puller: Callable[..., Puller], place: Path) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M", "Q8_0"))
    put_there(place / "tiny-Q8_0.gguf", b"GGUF mine", "import:/x/y.gguf")
    assert puller().pull(REF).quant == "Q4_K_M"
