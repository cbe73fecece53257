"""Stands in for pypa's get-pip.py, which ansible-test would download to start its virtual environments with.

Python's own ensurepip brings a pip; that one then installs what ansible-test asks for, from the package index that pip
is configured for. So the gates need no other server.
"""

import os
import re
import subprocess
import sys

# ensurepip changes the environment, and the configuration of pip with it.
_environment = {name: value for name, value in os.environ.items() if name != "GET_PIP"}
_wanted = [argument for argument in sys.argv[1:] if re.match(r"(pip|setuptools|wheel)\b", argument)]

import ensurepip  # noqa: E402

ensurepip.bootstrap()
if _wanted:
    sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "--quiet", *_wanted], env=_environment))
