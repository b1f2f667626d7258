"""`layerflow ui`: a Prefect server with its UI, whose password the commands and the browser get without typing."""

import base64
import os
import socket
import sys
from pathlib import Path
from typing import Any

from cli import server
from layerflow.errors import ServerError

#: What pyproject.toml sets in a clone, for the commands and workers elsewhere that use the profile.
_CLIENT: dict[Any, Any] = {"PREFECT_CLIENT_MAX_RETRIES": 8, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": 30}


def serve_ui(port: int) -> None:
    """Become the server: this process goes on as it, until it is ended.

    Raises:
        ServerError: If the port is taken.
    """
    _ensure_free(port)
    password, profiles = _save_profile(port)
    print(f"UI        {_link(port, password, profiles)}")
    print(f"Commands  export PREFECT_PROFILE={server.PROFILE}", flush=True)
    command = [sys.executable, "-P", str(Path(server.__file__)), "--port", str(port)]
    os.execve(sys.executable, command, {**os.environ, **server.settings(port, password)})


def _ensure_free(port: int) -> None:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((server.HOST, port))
        except OSError as error:
            raise ServerError(
                f"--port must be a free port. Received: {port} ({error.strerror}); use the running server, or "
                "choose another port, as in `layerflow ui --port 4311`."
            ) from error


def _save_profile(port: int) -> tuple[str, Path]:
    """Keep address and password in Prefect's profiles, which only their owner may read; an earlier password stays."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, get_current_settings
    from prefect.settings.profiles import load_profiles, save_profiles

    settings, profiles = get_current_settings(), load_profiles()
    file = settings.profiles_path
    assert file
    known = profiles[server.PROFILE].settings if server.PROFILE in profiles.names else {}
    password = known.get(PREFECT_API_AUTH_STRING) or server.new_password()
    if settings.server.api.auth_string:  # the user has chosen one
        password = settings.server.api.auth_string.get_secret_value()
    profiles.update_profile(
        server.PROFILE,
        {PREFECT_API_URL: f"http://{server.HOST}:{port}/api", PREFECT_API_AUTH_STRING: password, **_CLIENT},
        source=file,
    )
    if file.exists():
        file.chmod(0o600)  # before the password is in it; a new file is made so
    save_profiles(profiles)
    return str(password), file


def _link(port: int, password: str, profiles: Path) -> str:
    """The address that signs a browser in; in a log, where others may read it, that of the UI alone."""
    address = f"http://{server.HOST}:{port}"
    if not sys.stdout.isatty():
        return f"{address} (user and password are in {profiles}, profile {server.PROFILE})"
    return f"{address}{server.SIGN_IN}#{base64.b64encode(password.encode()).decode()} (keep it to yourself)"
