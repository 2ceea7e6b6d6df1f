"""The server: opens its door, says where that is, and goes on until it is told to end."""

from __future__ import annotations

import asyncio
import logging
import mimetypes
import os
import socket
import threading
import webbrowser
from pathlib import Path
from types import FrameType

import uvicorn

from .._support.atomic import claimed
from .._support.console import show
from ..errors import ConfigError
from .app import make_app
from .guard import Guard
from .runner import Runner, Settings
from .store import LOCK, Store

logger = logging.getLogger(__name__)

# Connections at a time; more are told to come again.
_MOST_CONNECTIONS = 300
_SHUTDOWN_SECONDS = 2


def data_folder() -> Path:
    """Return the folder of songs and results: of ``UMX_NP_HOME``, or of this user."""
    home = os.environ.get("UMX_NP_HOME")
    if home:
        return Path(os.path.expanduser(home)) / "serve"
    import platformdirs

    return Path(platformdirs.user_data_dir("umx_np")) / "serve"


def serve(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    folder: Path | None = None,
    browser: bool = True,
) -> None:
    """Serve the page until an interrupt or SIGTERM.

    Parameters
    ----------
    settings : Settings
        Limits, and where to compute.
    host : str
        Address to listen on.
    port : int
        Its port; 0 takes any that is free.
    folder : Path or None
        Of songs and results; None is `data_folder`.
    browser : bool
        Open the page.

    Raises
    ------
    ConfigError
        If the port is taken, another server uses the folder, or it holds something else.
    OSError
        If the folder cannot be used.
    """
    # Some systems have registered others, with which browsers refuse to run a script.
    mimetypes.add_type("text/javascript", ".js")
    folder = data_folder() if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with claimed(folder / LOCK, wait=False) as is_ours:
        if not is_ours:
            raise ConfigError(
                f"folder={str(folder)!r} is used by another server; end that one, or give another "
                "folder with --folder"
            )
        with _listen(host, port) as door:
            asyncio.run(_serve(door, host, Store(folder), settings, browser))


async def _serve(
    door: socket.socket, host: str, store: Store, settings: Settings, browser: bool
) -> None:
    runner = Runner(store, settings)
    port = door.getsockname()[1]
    guard = Guard(make_app(runner), host, port)
    config = uvicorn.Config(
        guard,
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    # Where it listens to all, this machine has one address, and for others its name.
    near = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    names = [near, socket.gethostname()] if host in ("0.0.0.0", "::") else [near]
    for name in names:
        show(f"http://{name}:{port}/?token={guard.token}")
    if browser:
        # The other address would be seen by all users of this machine.
        address = f"http://{near}:{port}/?once={guard.once}"
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    await _Server(config, runner).serve(sockets=[door])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, runner: Runner) -> None:
        super().__init__(config)
        self._runner = runner

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        # Who follows what changes would else be waited for.
        self._runner.closing = True
        asyncio.get_event_loop().call_soon_threadsafe(self._runner.notify)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share the port
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host, port))
        door.listen(128)
    except OSError as error:
        door.close()
        raise ConfigError(
            f"port={port} of host={host!r} cannot be opened: {error.strerror or error}; give "
            "another one, or --port 0 for any that is free"
        ) from error
    return door
