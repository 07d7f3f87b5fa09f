"""The memory of this machine, as commands get it."""

from pathlib import Path

from llama_mgr.cli.context import Context
from llama_mgr.cli.machine import machine_of
from llama_mgr.models.memory import Machine
from tests.tools.fake_program import make_program

MIB = 1024**2


def test_the_real_machine(environ: dict[str, str]) -> None:
    machine = machine_of(Context(environ=environ))
    assert 0 < machine.ram_free_bytes <= machine.ram_bytes
    assert 0 <= machine.gpu_free_bytes <= machine.gpu_bytes


def test_a_machine_with_a_gpu(environ: dict[str, str], tmp_path: Path) -> None:
    make_program(tmp_path / "bin", "nvidia-smi", "24576, 1024")
    context = Context(environ={**environ, "PATH": f"{tmp_path / 'bin'}:{environ['PATH']}"})
    first, second, fresh = machine_of(context), machine_of(context), machine_of(context, fresh=True)
    assert [one.gpu_bytes for one in (first, second, fresh)] == [24576 * MIB] * 3
    assert (second.gpu_free_bytes, fresh.gpu_free_bytes) == (24576 * MIB, 1024 * MIB)
    assert isinstance(second, Machine)
    assert (context.home.cache_dir / "gpu-memory.json").is_file()
