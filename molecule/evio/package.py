"""Build a stand-in for EdgeVPN.io's package, with the same files: unit, start script, controller, configuration."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TARGET = REPOSITORY / "build/evio-stand-in"
MODEL = REPOSITORY / "collections/ansible_collections/evio/cni/tests/unit/evio_controller_model.py"

# Each build is newer, so that a change of the stand-in gets to nodes of a lab that is up.
CONTROL = f"""\
Package: evio
Version: 24.0.0+{int(time.time())}
Architecture: all
Maintainer: The evio.cni authors
Depends: python3, iproute2, openvswitch-switch
Description: stand-in for EdgeVPN.io's controller in the lab
"""
# As in the real package: the controller runs in the background, and systemd calls the unit active even if it ends.
UNIT = """\
[Unit]
Description=EdgeVPN.io (stand-in)
After=network.target

[Service]
Type=oneshot
ExecStart=/opt/evio/evio-start
RemainAfterExit=true
Restart=no
TimeoutStopSec=30

[Install]
WantedBy=multi-user.target
"""
START = """\
#!/bin/sh
cd /opt/evio
venv/bin/python evio_controller.py -c /etc/opt/evio/config.json &
"""
VENV_PYTHON = """\
#!/bin/sh
exec /usr/bin/python3 -B "$@"
"""
POSTINST = """\
#!/bin/sh
systemctl daemon-reload
systemctl enable evio
"""
FILES = {
    "DEBIAN/control": (CONTROL, 0o644),
    "DEBIAN/conffiles": ("/etc/opt/evio/config.json\n", 0o644),
    "DEBIAN/postinst": (POSTINST, 0o755),
    "etc/systemd/system/evio.service": (UNIT, 0o644),
    "etc/opt/evio/config.json": ("{}\n", 0o644),
    "opt/evio/evio-start": (START, 0o755),
    "opt/evio/venv/bin/python": (VENV_PYTHON, 0o755),
    "opt/evio/evio_controller.py": (Path(__file__).with_name("controller.py").read_text(), 0o644),
    **{
        f"opt/evio/{name}": (Path(__file__).with_name(name).read_text(), 0o644)
        for name in ("openflow_listener.py", "stun.py", "tincan.py", "xmpp_stream.py")
    },
    "opt/evio/evio_controller_model.py": (MODEL.read_text(), 0o644),
}


def main() -> None:
    """Write build/evio-stand-in/evio.deb."""
    tree = TARGET / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for name, (content, mode) in FILES.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
    package = str(TARGET / "evio.deb")
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(tree), package], check=True)


if __name__ == "__main__":
    main()
