"""A Prefect server that listens on this machine alone, asks for a password, and answers to its own name only.

Run as a script, this file is that server; ``PREFECT_SERVER_API_AUTH_STRING`` holds its user and password.
Prefect by itself asks for none, lets pages from anywhere call its API, and takes any ``Host`` header: a page that the
browser of this machine opens could start a run with a command of its own.
"""

import argparse
import os
import secrets
import signal
import sys
import threading
from pathlib import Path

HOST = "127.0.0.1"
#: The names of this machine that a browser may use; any other one is that of a page that was rebound to it.
NAMES = [HOST, "localhost"]
#: The profile in Prefect's ``profiles.toml`` that names the server of `layerflow ui` and its password.
PROFILE = "layerflow"
SIGN_IN = "/sign-in"

#: The password comes behind the #, which a browser sends to no server and no page of another origin can read.
_PAGE = """<!doctype html><title>layerflow</title><meta name="referrer" content="no-referrer"><script>
const given = location.hash.slice(1)
if (given) localStorage.setItem("prefect-password", given) // where both of Prefect's UIs keep it
location.replace("/")
</script>"""


def new_password() -> str:
    """A user and a random password, as Prefect writes them: ``layerflow:…``."""
    return f"layerflow:{secrets.token_urlsafe(32)}"


def settings(port: int, password: str) -> dict[str, str]:
    """Environment of a server on this port that only this password opens and only its own pages may call."""
    return {
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}:{port}" for name in NAMES),
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_UI_URL": f"http://{HOST}:{port}",  # of the links in notifications
        # As in pyproject.toml, which is not there outside a clone.
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "cli.leases",
    }


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--with-parent", action="store_true", help="end when stdin is closed")
    arguments = parser.parse_args()
    os.umask(0o077)  # the database holds logs, parameters and the addresses of webhooks
    if arguments.with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # has `cli.leases`, also where it is not installed
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse
    from starlette.routing import Route

    app = create_app(final=True)
    app.router.routes.insert(0, Route(SIGN_IN, lambda request: HTMLResponse(_PAGE)))  # before Prefect's "/"
    server = get_current_settings().server
    if server.database.connection_url:
        _close_to_others(server.database.connection_url.get_secret_value())
    uvicorn.run(
        # Around the app, not in it: its services call it in memory, under a name of their own.
        TrustedHostMiddleware(app, allowed_hosts=NAMES, www_redirect=False),
        host=HOST,
        port=arguments.port,
        timeout_keep_alive=server.api.keepalive_timeout,
        ws_ping_interval=server.api.websocket_ping_interval,
        ws_ping_timeout=server.api.websocket_ping_timeout,
        log_level=str(server.logging_level).lower(),
    )


def _close_to_others(database: str) -> None:
    """Take the rights of others from SQLite's files that are there; the umask is for new ones only."""
    from sqlalchemy import make_url

    url = make_url(database)
    if url.get_backend_name() == "sqlite" and url.database:
        file = Path(url.database)
        for each in file.parent.glob(f"{file.name}*"):  # with `-wal` and `-shm`
            if each.stat().st_uid == os.getuid():
                each.chmod(0o600)


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
