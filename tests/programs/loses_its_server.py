"""A "server" that ends in mid-run, and a run that would go on."""

import subprocess
import sys
import time
from types import SimpleNamespace

from cli.prefect_server import ends_with

server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
with ends_with(SimpleNamespace(process=server)):
    if sys.argv[1] == "killed":
        server.kill()
        time.sleep(30)
server.kill()
server.wait()
time.sleep(0.2)
print("over")
