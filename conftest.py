"""Settings that must be in place before any test imports a module."""

from __future__ import annotations

import os

# Debian's etcd3 has generated code that newer protobufs accept only in their Python implementation. protobuf chooses
# its implementation when it is first imported, and tests may import the CRI's stubs before etcd3.
os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
