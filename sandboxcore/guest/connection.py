"""One client of one guest: many commands over one stream, and over as many streams as it takes.

There is no task and no thread a command: a command is an entry in a dict, and its caller waits for a future. When the
stream breaks while commands run, one task opens another and both sides tell each other what they have. So each command is
started once and no byte is lost or doubled; only the death of the guest itself leaves an outcome unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ..errors import GuestUnavailableError, SandboxUnavailableError
from . import protocol
from ._bootstrap import SOCKETS, enter
from .command import Command
from .link import Link
from .protocol import End, FrameType, Phase, ProtocolError, Refusal, Welcome, Why

if TYPE_CHECKING:
    from ..abc import Channel

__all__ = ("Connection",)

_HANDSHAKE = 10.0
_SHORT_HANDSHAKE = 2.0
_IDLE = 60.0
_BACKOFF = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_CLOSING = 3.0
_FAREWELL = 1.0
_RETRY = 0.5
_REUNION = 5.0


class Connection:
    """The commands of one client in one sandbox.

    Args:
        channel: The way in.
        lease: Seconds that the guest keeps commands whose client is away.
        patience: Seconds that a broken link is tried again while commands wait, at most ``lease``.
    """

    def __init__(self, channel: Channel, *, lease: float = 300.0, patience: float = 60.0) -> None:
        self._channel = channel
        self._lease = lease
        self._patience = min(patience, lease)
        self._client_id = os.urandom(16)
        self._generation = 0
        self._next_id = 0
        self._commands: dict[int, Command] = {}
        self._feeding: deque[Command] | None = None  # those with standard input to send, in turn
        self._link: Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._boot_id: bytes | None = None
        self._closed = False
        self._may_be_short = True
        self._idle: asyncio.TimerHandle | None = None
        self._keepalive: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._handlers: dict[int, Callable[[int, memoryview], None]] = {
            FrameType.OUTPUT: self._on_output,
            FrameType.EXIT: self._on_exit,
            FrameType.STARTED: self._on_started,
            FrameType.STDIN_ACK: self._on_stdin_ack,
            FrameType.FAILED: self._on_failed,
            FrameType.PONG: self._on_pong,
            FrameType.REFUSED: self._on_refused,
        }

    @property
    def connected(self) -> bool:
        """Whether a guest has welcomed this client on the present link."""
        return self._link is not None

    async def connect(self) -> None:
        """Make sure that the guest answers.

        Raises:
            SandboxUnavailableError: It does not, with ``started="no"``.
        """
        if self._closed:
            raise SandboxUnavailableError("the sandbox's connection is closed", started="no")
        if self._link is None:
            if self._opening is None:
                self._opening = self._loop.create_task(self._open())
            await asyncio.shield(self._opening)

    def submit(self, make_frame: Callable[[int], bytes], *, is_file: bool = False, live: bool = False) -> Command:
        """Take a command in and send it as soon as there is a link."""
        self._next_id += 1
        command = Command(self._next_id, make_frame(self._next_id), is_file=is_file, live=live)
        if len(command.frame) > protocol.MAX_FRAME:  # more than any kernel takes; the guest would end the link
            phase, number = (Phase.FILE, errno.ENAMETOOLONG) if is_file else (Phase.EXEC, errno.E2BIG)
            command.finish(End(Why.ITSELF, errno=number, phase=phase))
            return command
        self._commands[command.id] = command
        link = self._link
        if link is not None:
            command.sent = True
            link.write(command.frame)
        elif self._closed:
            self._drop(command, SandboxUnavailableError("the sandbox's connection is closed", started="no"))
        elif self._opening is None:
            self._reopen()
        return command

    def push_stdin(self, command: Command) -> None:
        """Send what the window and the link allow of the command's standard input, in turn with the other commands."""
        if command.feeding or not command.sent or self._link is None:
            return
        if self._feeding is None:
            self._feeding = deque()
        command.feeding = True
        self._feeding.append(command)
        self._feed()

    def _feed(self) -> None:
        link, feeding = self._link, self._feeding
        while feeding and link is not None and not link.paused:
            command = feeding.popleft()
            alone = len(self._commands) == 1
            parts = [] if command.done.done() or command.kill_wanted else command.next_stdin(link.file_piece, alone=alone)
            command.feeding = bool(parts)
            if parts:
                feeding.append(command)
                for part in parts:
                    link.write(part)

    def send(self, frame: bytes) -> None:
        """Send a frame that a broken link may lose (an acknowledgement)."""
        if self._link is not None and frame:
            self._link.write(frame)

    def send_surely(self, command: Command, frame: bytes) -> None:
        """Send a command a frame, where there is no link on the next; one that is under way when a link breaks may be lost."""
        if self._link is not None and command.sent:
            self._link.write(frame)
        else:
            command.held.append(frame)

    def kill(self, command: Command) -> None:
        """Kill a command and all that it started, on this link or the next."""
        if command.done.done() or command.kill_wanted:
            return
        command.kill_wanted = True
        if not command.sent:
            self._drop(command, SandboxUnavailableError("the command was cancelled before it was sent", started="no"))
        else:
            self.send(protocol.signal(command.id, 9, tree=True))

    def abandon(self, command: Command) -> None:
        """Kill a command in whose result nobody is interested any more."""
        command.drop_output()
        if command.done.cancelled():  # with the task that waited for it; the end is still to come
            command.done = self._loop.create_future()
        self.kill(command)

    async def until_started(self, command: Command) -> None:
        """Wait until a command runs, or has ended without; cancelling kills it."""
        try:
            while not command.started and not command.done.done():
                await command.changed()
        except asyncio.CancelledError:
            self.abandon(command)
            raise

    async def see_off(self, command: Command) -> None:
        """Kill a command whose caller was cancelled, and wait (bounded) until it can have no further effect."""
        self.abandon(command)
        if self._link is not None:
            done, _ = await asyncio.wait([command.done], timeout=_FAREWELL)
            for future in done:
                future.exception()  # nobody else will look at it

    def cut(self) -> None:
        """Break the present link, as a network does. For tests and demonstrations of what happens then."""
        if self._link is not None and self._link.transport is not None:
            self._link.transport.abort()

    async def aclose(self) -> None:
        """Kill what still runs, wait (bounded) until it is gone, and close the link. Idempotent."""
        for command in list(self._commands.values()):
            self.abandon(command)
        waiting = [command.done for command in self._commands.values()]
        if waiting and not self._closed:
            await asyncio.wait(waiting, timeout=_CLOSING)
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            with contextlib.suppress(asyncio.CancelledError, SandboxUnavailableError):
                await self._opening
        self._fail_all("the sandbox's connection was closed")
        for timer in (self._idle, self._keepalive):
            if timer is not None:
                timer.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.close()
        await self._channel.aclose()

    # --- links ---

    def _reopen(self) -> None:
        self._opening = self._loop.create_task(self._open())
        self._opening.add_done_callback(_retrieve)

    async def _open(self) -> None:
        """Open a link and be welcomed; with commands in flight try again until patience runs out."""
        began = self._loop.time()
        try:
            for attempt in range(1 << 30):
                try:
                    await self._open_once()
                    if self._link is not None:
                        return
                    raise SandboxUnavailableError("the stream to the sandbox's guest broke", started="no")
                except SandboxUnavailableError as error:
                    pause = _BACKOFF[min(attempt, len(_BACKOFF) - 1)]
                    if isinstance(error, GuestUnavailableError) or self._loop.time() + pause > began + self._allowance():
                        raise
                await asyncio.sleep(pause)
        except BaseException as error:
            hint = error.hint if isinstance(error, SandboxUnavailableError) else None
            self._fail_all(str(error) or "the sandbox's connection was closed", hint)
            raise
        finally:
            self._opening = None

    def _allowance(self) -> float:
        """Seconds that opening may be tried: long for commands that run, short where nothing is at stake yet."""
        if any(command.sent for command in self._commands.values()):
            return self._patience
        return min(self._patience, _RETRY if self._boot_id is None else _REUNION)

    async def _open_once(self) -> None:
        if self._boot_id is None:
            await self._open_first()
        elif not await self._open_short(self._boot_id):
            await self._meet(self._enter, _HANDSHAKE + (0 if self._channel.lands_in == "guest" else 50), self._adopt)

    async def _open_first(self) -> None:
        """Reach the guest, and take the shorter way to it where there is one; nothing was sent yet that could get lost."""
        welcomes: list[Welcome] = []
        seconds = _HANDSHAKE + (0 if self._channel.lands_in == "guest" else 50)
        link = await self._meet(self._enter, seconds, lambda _, welcome: welcomes.append(welcome))
        try:
            if await self._open_short(welcomes[0].boot_id):
                link.abort()
                return
        except BaseException:
            link.abort()
            raise
        if link.transport is None:
            raise SandboxUnavailableError("the stream to the sandbox's guest broke", started="no")
        self._adopt(link, welcomes[0])

    async def _open_short(self, boot_id: bytes) -> bool:
        """Reach a guest that was reached before by the channel's shorter way; False where that does not lead to it."""
        found = False

        async def way(link: Link) -> None:
            nonlocal found
            if await self._channel.shortcut(SOCKETS, link) is None:
                raise SandboxUnavailableError("there is no shorter way", started="no")
            found = True

        def take(link: Link, welcome: Welcome) -> None:
            if welcome.boot_id == boot_id:
                self._adopt(link, welcome)

        if not self._may_be_short:
            return False
        try:
            link = await self._meet(way, _SHORT_HANDSHAKE, take)
        except SandboxUnavailableError:
            self._may_be_short = not found
            return False
        if self._link is not link:
            link.abort()
            self._may_be_short = False
        return self._may_be_short

    async def _enter(self, link: Link) -> None:
        await enter(self._channel, link)

    async def _meet(
        self, way: Callable[[Link], Awaitable[None]], seconds: float, on_welcome: Callable[[Link, Welcome], None]
    ) -> Link:
        """Open a link and be welcomed on it."""
        welcomed: asyncio.Future[None] = self._loop.create_future()

        def greeted(welcome: Welcome) -> None:
            # At once, not when the future's waiter runs: the frames right behind this one are for the commands.
            on_welcome(link, welcome)
            welcomed.set_result(None)

        link = Link(_greeting(welcomed, greeted), _lost_before(welcomed))
        try:
            async with asyncio.timeout(seconds):
                await way(link)
                self._generation += 1
                link.begin_frames()
                resume = [(c.id, c.received[0], c.received[1]) for c in self._commands.values() if c.sent]
                link.write(protocol.hello(self._client_id, self._generation, round(self._lease * 1000), resume))
                await welcomed
        except TimeoutError:
            if welcomed.done() and not welcomed.cancelled() and welcomed.exception() is None:
                return link
            link.abort()
            raise SandboxUnavailableError("the sandbox's guest did not answer in time", started="no") from None
        except OSError as error:
            link.abort()
            raise SandboxUnavailableError(f"no stream to the sandbox's guest: {error}", started="no") from error
        except BaseException:
            link.abort()
            raise
        return link

    def _adopt(self, link: Link, welcome: Welcome) -> None:
        link.rebind(self._on_frame, self._on_lost)
        link.on_resume = self._feed
        self._link = link
        self._feeding = None
        same_guest = self._boot_id in (None, welcome.boot_id)
        self._boot_id = welcome.boot_id
        for command in list(self._commands.values()):
            command.feeding = False
            self._resume(command, welcome, same_guest)
        self._rest()
        self._watch_idle()
        if self._channel.keepalive is not None:
            self._beat(self._channel.keepalive)

    def _resume(self, command: Command, welcome: Welcome, same_guest: bool) -> None:
        """Go on with a command on a new link; run it only where it provably has not run."""
        if same_guest and command.id in welcome.commands:
            command.resume_stdin(welcome.commands[command.id])
            if command.kill_wanted:
                self.send(protocol.signal(command.id, 9, tree=True))
        elif not command.sent or (same_guest and command.id > welcome.highest):
            if command.kill_wanted:
                self._drop(command, SandboxUnavailableError("the command was cancelled before it was sent", started="no"))
                return
            command.sent = True
            command.resume_stdin(0)
            self.send(command.frame)
        else:
            self._drop(command, _lost_guest(command, same_guest))
            return
        held, command.held = command.held, []
        for frame in held:
            self.send(frame)
        self.push_stdin(command)

    def _on_lost(self, link: Link, error: BaseException | None) -> None:
        if link is not self._link:
            return
        self._link = None
        if self._keepalive is not None:
            self._keepalive.cancel()
        if self._commands and not self._closed and self._opening is None:  # an opening under way looks itself
            self._reopen()

    def _watch_idle(self) -> None:
        if self._idle is None:
            self._idle = self._loop.call_later(_IDLE, self._close_idle)

    def _close_idle(self) -> None:
        self._idle = None
        link = self._link
        if link is None:
            return
        if self._commands or self._loop.time() - link.heard < _IDLE:
            self._watch_idle()
            return
        self._link = None
        link.close()

    def _beat(self, interval: float) -> None:
        """Keep proxies from closing the stream, and notice when the other end has vanished."""
        link = self._link
        if link is None:
            return
        if self._loop.time() - link.heard > 3 * interval and link.transport is not None:
            link.transport.abort()
            return
        link.write(protocol.ping(self._generation))
        self._rest()
        self._keepalive = self._loop.call_later(interval, self._beat, interval)

    # --- ends ---

    def _drop(self, command: Command, error: SandboxUnavailableError) -> None:
        self._commands.pop(command.id, None)
        self._rest()
        command.fail(error)

    def _fail_all(self, message: str, hint: str | None = None) -> None:
        for command in list(self._commands.values()):
            self._drop(command, SandboxUnavailableError(message, started=command.has_started, hint=hint))

    def _end(self, command: Command, end: End) -> None:
        del self._commands[command.id]
        if self._link is not None:
            self._link.write_later(protocol.exit_ack(command.id))  # a call of the kernel less for each of many commands
        self._rest()
        command.finish(end)

    def _rest(self) -> None:
        if not self._commands:
            self._feeding = None
            if self._link is not None:
                self._link.rest()

    # --- frames ---

    def _on_frame(self, kind: int, command_id: int, payload: memoryview) -> None:
        handler = self._handlers.get(kind)
        if handler is None:
            raise ProtocolError(f"a frame of unknown type {kind}")
        handler(command_id, payload)

    def _on_output(self, command_id: int, payload: memoryview) -> None:
        stream, offset, data = protocol.parse_output(payload)
        command = self._commands.get(command_id)
        if command is not None and command.take_output(stream, offset, data):
            self.send(command.acknowledge(stream, command.received[stream]))

    def _on_started(self, command_id: int, payload: memoryview) -> None:
        pid = protocol.parse_number(payload, 4)
        command = self._commands.get(command_id)
        if command is not None:
            command.started, command.pid = True, pid
            command.wake()

    def _on_stdin_ack(self, command_id: int, payload: memoryview) -> None:
        offset = protocol.parse_number(payload, 8)
        command = self._commands.get(command_id)
        if command is not None:
            command.stdin_taken(offset)
            self.push_stdin(command)

    def _on_exit(self, command_id: int, payload: memoryview) -> None:
        end, _totals = protocol.parse_exit(payload)
        command = self._commands.get(command_id)
        if command is not None:
            command.started = True
            self._end(command, end)

    def _on_failed(self, command_id: int, payload: memoryview) -> None:
        end = protocol.parse_failed(payload)
        command = self._commands.get(command_id)
        if command is not None:
            self._end(command, end)

    def _on_pong(self, command_id: int, payload: memoryview) -> None:
        protocol.parse_number(payload, 8)

    def _on_refused(self, command_id: int, payload: memoryview) -> None:
        _, text = protocol.parse_refused(payload)
        raise ProtocolError(f"the guest refuses: {text}")


def _lost_guest(command: Command, same_guest: bool) -> SandboxUnavailableError:
    if same_guest:
        what = "the guest has given up the command because its client was away for longer than the lease"
    else:
        what = "the sandbox's guest was restarted while the command was in flight"
    return SandboxUnavailableError(what, started=command.has_started)


def _greeting(welcomed: asyncio.Future[None], on_welcome: Callable[[Welcome], None]) -> Callable[[int, int, memoryview], None]:
    def on_frame(kind: int, command_id: int, payload: memoryview) -> None:
        if welcomed.done():
            return
        if kind == FrameType.WELCOME:
            on_welcome(protocol.parse_welcome(payload))
        elif kind == FrameType.REFUSED:
            welcomed.set_exception(_refusal(*protocol.parse_refused(payload)))
        else:
            raise ProtocolError(f"a frame of type {kind} before WELCOME")

    return on_frame


def _refusal(reason: int, text: str) -> SandboxUnavailableError:
    message = f"the sandbox's guest refuses this client: {text}"
    if reason in (Refusal.VERSION, Refusal.PEER):
        return GuestUnavailableError(message)
    return SandboxUnavailableError(message, started="no")


def _lost_before(welcomed: asyncio.Future[None]) -> Callable[[Link, BaseException | None], None]:
    def on_lost(link: Link, error: BaseException | None) -> None:
        if not welcomed.done():
            reason = f": {error}" if error else ""
            broke = SandboxUnavailableError(f"the stream to the sandbox's guest broke{reason}", started="no")
            welcomed.set_exception(error if isinstance(error, SandboxUnavailableError) else broke)
            welcomed.exception()

    return on_lost


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at the outcome: the commands that waited have been told already."""
    if not task.cancelled():
        task.exception()
