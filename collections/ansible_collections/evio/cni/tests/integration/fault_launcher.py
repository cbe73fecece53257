# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the built plugin with a fault in one of its steps.

A step is anything that has an effect outside the process: a file is changed, a process is started or waited for, a
message is sent to the kernel, the OVSDB or the bridge. Usage: python3 -ISE fault_launcher.py LIBRARY KIND STEP LOG
FEW_PODS, the number of pods up to which an ADD has the order of its steps that is for few pods.
"""

from __future__ import annotations

import _thread
import importlib
import os
import posix
import signal
import stat
import sys
from collections.abc import Callable
from typing import Any

KINDS = ("refusal", "lost answer", "exception", "outage", "kill")
"""refusal: the step is not done and raises an error. lost answer: it is done and raises an error. exception: it is done
and raises an exception that nobody expects. outage: neither this step nor a later one is done, each raises an error.
kill: it is done, and the process is killed."""

_MODULES = ("cni.spec", "ipam.delegate", "kernel.netlink", "ovs.jsonrpc", "ovs.openflow")


class Faults:
    """Counts the steps from 1 on, writes their names to a log, and puts the fault into the given step (0: none)."""

    def __init__(self, kind: str, step: int, log: str) -> None:
        self._kind = kind
        self._step = step
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._count = 0

    def wrap(self, owner: Any, name: str, error: Callable[[], Exception], *, returns_handle: bool = False) -> None:
        """Make a function of a module or class a step; ``error`` makes the error of its fault.

        ``returns_handle``: the plugin needs the returned value to undo the step, so the answer can only be lost with
        the whole process.
        """
        done = getattr(owner, name)

        def step(*arguments: Any, **options: Any) -> Any:
            if name == "write" and not stat.S_ISREG(os.fstat(arguments[0]).st_mode):
                return done(*arguments, **options)
            self._count += 1
            os.write(self._log, f"{getattr(owner, '__name__', owner)}.{name}\n".encode())
            if self._count != self._step and not (self._kind == "outage" and self._count > self._step > 0):
                return done(*arguments, **options)
            if self._kind in ("refusal", "outage") or (returns_handle and self._kind != "kill"):
                raise error()
            done(*arguments, **options)
            if self._kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise error() if self._kind == "lost answer" else RuntimeError("something unforeseen")

        setattr(owner, name, step)


def main() -> None:
    """Run the plugin. Never returns."""
    library, kind, step, log, few_pods = sys.argv[1:]
    sys.path.insert(0, library)
    faults = Faults(kind, int(step), log)
    # Without threads, the steps have the same order in every run.
    _thread.start_new_thread = lambda function, arguments: function(*arguments)
    spec, delegate, netlink, jsonrpc, openflow = (importlib.import_module(f"evio_cni.{name}") for name in _MODULES)
    importlib.import_module("evio_cni.plugin.add_host_side").FEW_PODS = int(few_pods)
    for name in ("mkdir", "write", "unlink"):
        faults.wrap(posix, name, lambda: OSError(28, "No space left on device"))
    faults.wrap(posix, "posix_spawn", lambda: OSError(11, "Resource temporarily unavailable"), returns_handle=True)
    faults.wrap(delegate.IpamCall, "result", lambda: spec.CniError(spec.FAILED, "IPAM has failed"))
    faults.wrap(netlink, "_open", lambda: OSError(24, "Too many open files"))
    for name in ("change", "ask", "dump", "ioctl"):
        faults.wrap(netlink.NetlinkSocket, name, lambda: netlink.NetlinkError("the kernel", 105))
    for name in ("_send", "_result"):
        faults.wrap(jsonrpc.OvsdbClient, name, lambda: jsonrpc.OvsdbError("the OVSDB has gone"))
    for name in ("_send", "_answer"):
        faults.wrap(openflow.OpenFlow, name, lambda: openflow.OpenFlowError("the bridge has gone"))
    importlib.import_module("evio_program.main").main()


if __name__ == "__main__":
    main()
