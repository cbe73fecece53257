"""Install pip as pypa's get-pip.py does, which ansible-test would download for its virtual environments.

Python's ensurepip installs a pip, which then installs the version that ansible-test asks for from the configured
package index. So the linters need no other server.
"""

import os
import re
import subprocess
import sys

# ensurepip changes the environment variables of pip, so pip gets those from before.
_environment = {name: value for name, value in os.environ.items() if name != "GET_PIP"}
_requirements = [argument for argument in sys.argv[1:] if re.match(r"(pip|setuptools|wheel)\b", argument)]

import ensurepip  # noqa: E402

ensurepip.bootstrap()
if _requirements:
    sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "--quiet", *_requirements], env=_environment))
