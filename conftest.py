"""What must hold before any test imports anything."""

from __future__ import annotations

import os

# Debian's etcd3 carries generated code that newer protobufs run in their Python implementation alone; the choice is
# made at the first import of protobuf, and the CRI's stubs are imported by tests too.
os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
