"""The way into a sandbox of the server: a session of execd in pipe mode, in which the guest speaks.

execd runs one shell line a session (``POST /pty``) once a WebSocket is connected (``/pty/ID/ws?pty=0``): binary messages with a
first byte, 0 for standard input, 1 and 2 for output and errors, and 3 for what was written before we listened. What it has no
message for, the end of standard input, the guest does not need.
Source: components/execd/pkg/web/controller/pty_ws.go and pkg/runtime/pty_session.go of OpenSandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore.abc import Channel
from sandboxcore.errors import GuestUnavailableError, SandboxUnavailableError
from sandboxcore.guest import guest_binary
from sandboxcore_kubernetes import _websocket as ws
from sandboxcore_kubernetes.streams import ChannelStream, Layout

from ._server_errors import is_missing, server_error

if TYPE_CHECKING:
    import aiohttp

    from ._server_connection import ServerConnection

__all__ = ("ExecdChannel",)

_REPLAY = 3
_OFFSET_BYTES = 8
#: execd reads a frame into a buffer of its size, and passes it on with one write.
_PIPE = Layout(protocols=(), send=0, receive=1, error=254, text=2, frame_bytes=256 * 1024)
#: Where the guest is put: the first folder that takes it and lets programs run.
_FOLDERS = ("/opt/opensandbox", "/tmp", "/var/tmp", "/root")
_MISSING = "sandboxcore-no-guest"
#: What a program is made for, by the number in its head. Source: elf(5), ``e_machine``.
_MACHINES = {0x3E: "x86_64", 0xB7: "aarch64"}
_HEAD_BYTES = 20


class _PipeStream(ChannelStream):
    """The session's WebSocket as a byte stream; what was written before we listened is standard output, too."""

    def _on_data(self, channel: int, data: memoryview) -> None:
        if channel == _REPLAY:
            skip = self._skip.setdefault(_REPLAY, _OFFSET_BYTES)
            taken = min(skip, len(data))
            self._skip[_REPLAY] = skip - taken
            channel, data = _PIPE.receive, data[taken:]
        super()._on_data(channel, data)


class ExecdChannel(Channel):
    """Runs programs in a sandbox through its execd, with the stream as their stdin and stdout.

    Args:
        sandbox_id: The server's.
        connection: The session's.
        own: The connection is nobody else's, and is closed with this.
    """

    #: execd ends a connection that says nothing for 60 seconds; its own pings are answered, proxies may want more.
    keepalive = 20.0

    def __init__(self, sandbox_id: str, connection: ServerConnection, *, own: bool = False) -> None:
        self._id = sandbox_id
        self._own = own
        self._connection = connection
        self._uploaded = False
        self._sessions: dict[str, tuple[str, dict[str, str]]] = {}
        self._forgetting: set[asyncio.Task[None]] = set()
        #: Name of the guest's file, which differs by machine: it is not known before the sandbox is.
        self._name = ""
        self.guest_path = f"{_FOLDERS[0]}/.sandboxcore-guest"

    async def open(self, argv: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Open a stream.

        Raises:
            SandboxUnavailableError: With ``started="no"``.
            GuestUnavailableError: The sandbox is gone, or takes no guest.
        """
        if not self._uploaded:
            await self.prepare()
        try:
            return await self._open(self._line(argv), protocol)
        except SandboxUnavailableError:
            self._connection.forget_execd(self._id)  # it may have another address by now
            raise

    def _line(self, argv: Sequence[str]) -> str:
        """Write the shell line: the guest from wherever it could be put."""
        if argv[0] != self.guest_path:
            return "exec " + shlex.join(argv) + " 2>/dev/null"
        rest = shlex.join(argv[1:])
        tries = "; ".join(
            f"test -x {folder}/{self._name} && exec {folder}/{self._name} {rest} 2>/dev/null" for folder in _FOLDERS
        )
        return f"{tries}; printf '\\nSANDBOXCORE FAIL {_MISSING}\\n'"

    # -- the guest

    async def prepare(self) -> None:
        """Put the guest for its machine into the sandbox, through execd's files.

        Raises:
            GuestUnavailableError: The sandbox is gone, there is no guest for its machine, or no folder takes it; the message says
                what was tried.
            SandboxUnavailableError: execd can't be reached.
        """
        from opensandbox.models.filesystem import WriteEntry

        tried = []
        try:
            async with self._connection.sandbox(self._id) as sandbox:
                self.machine = await self._machine(sandbox)
                data = guest_binary(self.machine).read_bytes()
                self._name = f".sandboxcore-guest-{hashlib.sha256(data).hexdigest()[:12]}"
                for folder in _FOLDERS:
                    path = f"{folder}/{self._name}"
                    part = f"{path}.{id(self):x}"
                    try:
                        if await self._is_there(sandbox, path, len(data)):
                            break
                        await sandbox.files.write_files([WriteEntry(path=part, data=data, mode=755)])
                        await self._move(sandbox, part, path)
                        break
                    except Exception as error:
                        if is_missing(error) or not hasattr(error, "status_code"):
                            raise
                        tried.append(f"{folder}: {server_error(error, 'write').message}")
                else:
                    raise GuestUnavailableError(f"the guest can't be put into the sandbox: {'; '.join(tried)}")
        except Exception as error:
            raise self._lost(error) from error
        self._uploaded = True

    async def _machine(self, sandbox: Any) -> str:
        """Read from the head of execd itself what the sandbox's machine is: an image need not have ``uname``."""
        head = await sandbox.files.read_bytes("/proc/self/exe", range_header=f"bytes=0-{_HEAD_BYTES - 1}")
        number = int.from_bytes(head[18:_HEAD_BYTES], "little")
        return _MACHINES.get(number, f"number {number}")

    async def _is_there(self, sandbox: Any, path: str, size: int) -> bool:
        from opensandbox.models.filesystem import DirectoryListEntry

        with contextlib.suppress(Exception):
            entries = await sandbox.files.list_directory(DirectoryListEntry(path=path.rpartition("/")[0]))
            return any(entry.path == path and entry.size == size for entry in entries)
        return False

    async def _move(self, sandbox: Any, part: str, path: str) -> None:
        from opensandbox.models.filesystem import MoveEntry

        try:
            await sandbox.files.move_files([MoveEntry(src=part, dest=path)])
        except Exception:  # another process was quicker
            await sandbox.files.delete_files([part])

    def _lost(self, error: Exception) -> SandboxUnavailableError:
        if isinstance(error, SandboxUnavailableError):
            return error
        found = server_error(error, f"reach sandbox {self._id}")
        if is_missing(error):
            return GuestUnavailableError(found.message, hint="the sandbox is gone")
        return SandboxUnavailableError(found.message, started="no", hint=found.hint)

    # -- streams

    async def _open(self, line: str, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        try:
            base, headers = await self._connection.execd(self._id)
            session = await self._connection.http()
            options = self._connection.request_options
            async with session.post(f"{base}/pty", json={"command": line}, headers=headers, **options) as answer:
                if answer.status >= 400:
                    raise self._refused(answer.status, await answer.text())
                number = (await answer.json())["session_id"]
        except SandboxUnavailableError:
            raise
        except Exception as error:
            raise self._lost(error) from error
        self._sessions[number] = (base, headers)
        stream = _PipeStream(
            _PIPE,
            protocol,
            self._connection.read_buffer,
            self._connection.streams,
            lambda ended: self._ended(ended, number),
            lambda: None,
        )
        try:
            response = await _upgrade(session, f"{base}/pty/{number}/ws?pty=0", headers, options)
            if response.status != 101:
                text = (await response.read()).decode(errors="replace")
                response.close()
                raise self._refused(response.status, text)
            stream.attach(response, "")
        except BaseException as error:
            self._forget(number)
            if isinstance(error, SandboxUnavailableError) or not isinstance(error, Exception):
                raise
            raise self._lost(error) from error
        return stream

    def _refused(self, status: int, text: str) -> SandboxUnavailableError:
        message = f"execd of sandbox {self._id} answers {status}: {' '.join(text.split())[:300]}"
        if status in (404, 410):
            return GuestUnavailableError(message, hint="the sandbox is gone, or its execd knows no sessions (1.0.7 and later do)")
        return SandboxUnavailableError(message, started="no")

    def _ended(self, stream: ChannelStream, number: str) -> BaseException | None:
        self._forget(number)
        return stream.error

    def _forget(self, number: str) -> None:
        """Have execd end a session, in the background: it keeps those that nobody listens to, with all that runs in them."""
        known = self._sessions.pop(number, None)
        if known is None:
            return
        base, headers = known

        async def forget() -> None:
            import aiohttp

            with contextlib.suppress(Exception):
                session = await self._connection.http()
                options = {"timeout": aiohttp.ClientTimeout(total=5.0), **self._connection.request_options}
                async with session.delete(f"{base}/pty/{number}", headers=headers, **options):
                    pass

        task = asyncio.get_running_loop().create_task(forget())
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    async def aclose(self) -> None:
        """End the sessions, and wait until they are."""
        for number in tuple(self._sessions):
            self._forget(number)
        if self._forgetting:
            await asyncio.wait(set(self._forgetting), timeout=5.0)
        self._connection.forget_execd(self._id)
        if self._own:
            await self._connection.aclose()


async def _upgrade(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str], options: Mapping[str, Any]
) -> aiohttp.ClientResponse:
    import aiohttp

    asked = {
        **headers,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": ws.new_key(),
    }
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=15.0)
    async with asyncio.timeout(30.0):
        return await session.get(url, headers=asked, timeout=timeout, read_until_eof=False, allow_redirects=False, **options)
