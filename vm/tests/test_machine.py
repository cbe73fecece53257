"""What the virtual machine is told to run, and what is said where there is none. `make test-kernel` boots it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import machine
import pytest
from machine import FAILED, Machine, VirtualMachineError


def test_init_runs_the_command_with_its_arguments_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "a 'quoted' directory"
    directory.mkdir()
    monkeypatch.chdir(directory)
    script = machine._init(["printf", "%s|", "two words", "$HOME", "it's"])
    first, rest = script.split("\n", 1)
    assert first == "#!/bin/sh"
    # Up to the end of the function: what follows is for a booted kernel.
    definitions = rest[: rest.index("\n}\n") + 3]
    done = subprocess.run(
        ["sh", "-c", f"{definitions}\npwd; echo $VM_OUTPUT; run_command"],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "/\n/run/vm/output\ntwo words|$HOME|it's|"


def test_whole_init_is_a_shell_script() -> None:
    subprocess.run(["sh", "-n"], input=machine._init(["true"]), text=True, check=True)


def test_command_that_left_no_exit_status_is_told_with_the_consoles_end(tmp_path: Path) -> None:
    (tmp_path / "console").write_text("".join(f"line {number}\n" for number in range(100)) + "Kernel panic\n")
    with pytest.raises(VirtualMachineError, match=r"(?s)ended before the command.*line 99\nKernel panic") as raised:
        machine._read_status(tmp_path)
    assert raised.value.status == FAILED
    assert "line 80\n" not in str(raised.value)
    (tmp_path / "status").write_text("3\n")
    assert machine._read_status(tmp_path) == 3


def test_missing_kernel_is_told_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = tmp_path / "provider"
    provider.write_text("#!/bin/sh\nexit 1\n")
    provider.chmod(0o755)
    monkeypatch.setattr(machine, "PROVIDER", provider)
    with pytest.raises(VirtualMachineError, match="neither a kernel nor QEMU"):
        Machine().run(["true"], timeout=1)
