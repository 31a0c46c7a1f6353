"""Inspect's idea of a sandbox, on sandboxcore's."""

from __future__ import annotations

import errno
import sys
from typing import Any, Literal, overload

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.log._samples import sample_active
from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxConnection,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxEnvironmentLimits,
    trace_action,
)
from pydantic import BaseModel
from rich.markup import escape
from sandboxcore.environment import Environment, Sandbox
from sandboxcore.errors import SandboxError, SandboxFileError, file_error
from sniffio import current_async_library
from typing_extensions import override

from . import _cleanup, _source
from ._config import SandboxcoreConfig, default_backend
from ._connection import connection_of
from ._errors import inspect_error
from ._session import Shared, Tenant, current_eval, logger

__all__ = ("SandboxcoreEnvironment",)

#: Backends whose sandboxes use up this machine.
_HERE = ("local", "docker")


class SandboxcoreEnvironment(SandboxEnvironment):
    """One service of a sample's environment."""

    def __init__(self, sandbox: Sandbox, environment: Environment, shared: Shared, user: str | None) -> None:
        super().__init__()
        self.sandbox = sandbox
        self.environment = environment
        self._shared = shared
        self._user = user

    # --- what is configured, and how ---

    @override
    @classmethod
    def config_files(cls) -> list[str]:
        return _source.config_files()

    @override
    @classmethod
    def is_docker_compatible(cls) -> bool:
        return True

    @override
    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> BaseModel:
        return SandboxcoreConfig.model_validate(config)

    @override
    @classmethod
    def default_concurrency(cls) -> int | None:
        from inspect_ai._util.cpu import effective_cpu_count

        return 2 * effective_cpu_count() if default_backend() in _HERE else None

    @override
    def default_polling_interval(self) -> float:
        return 0.2

    # --- tasks and samples ---

    @override
    @classmethod
    async def task_init_environment(cls, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]) -> dict[str, str]:
        current_eval().metadata.setdefault(config, metadata)
        return {}

    @override
    @classmethod
    async def task_init(cls, task_name: str, config: SandboxEnvironmentConfigType | None) -> None:
        if current_async_library() != "asyncio":
            raise PrerequisiteError("The sandbox provider sandboxcore needs asyncio; take away INSPECT_ASYNC_BACKEND.")
        running = current_eval()
        try:
            shared = await running.shared(config)
            await shared.announce(config, running.metadata.get(config, {}))
        except SandboxError as error:
            # Where this is the first task, Inspect calls no task_cleanup.
            await _cleanup.close(running.take_unused())
            raise PrerequisiteError(escape(_message(error))) from error

    @override
    @classmethod
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        shared = await current_eval().shared(config)
        wanted = _source.config_of(config)
        active = sample_active()
        sample, epoch = str(metadata.get("__sample_id__", "")), str(active.epoch if active is not None else 1)
        try:
            spec = (await shared.prepare(config, metadata)).spec
            if shared.session.backend == "helm":
                spec = _source.for_sample(spec, wanted, task_name, active.sample_uuid if active else None, metadata)
            spec = shared.labelled(spec, {"task": task_name, "sample": sample, "epoch": epoch})
            with trace_action(logger, "sandboxcore", f"provision for sample {sample}, epoch {epoch}"):
                environment = await shared.provision(spec)
        except SandboxError as error:
            if error.hint:
                error.add_note(f"hint: {error.hint}")
            raise
        shared.tenants[environment.id] = Tenant(environment, sample, epoch)
        jobs = {name for name, service in spec.services.items() if not service.exec_target}
        return {
            sandbox.name: cls(sandbox, environment, shared, wanted.user) for sandbox in environment if sandbox.name not in jobs
        }

    @override
    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        own = next(iter(environments.values())).as_type(cls)
        if not interrupted:
            await own._shared.destroy(own.environment)
        elif not isinstance(sys.exception(), Exception):
            # It was cancelled. What failed in its setup is kept to the end, where somebody may want to look into it.
            own._shared.destroy_soon(own.environment)

    @override
    @classmethod
    async def task_cleanup(cls, task_name: str, config: SandboxEnvironmentConfigType | None, cleanup: bool) -> None:
        open_ones = current_eval().take()
        await (_cleanup.close(open_ones) if cleanup else _cleanup.keep(open_ones))

    @override
    @classmethod
    async def cli_cleanup(cls, id: str | None) -> None:
        await _cleanup.clean_up(id)

    # --- commands and files ---

    @override
    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """Run a command, at most once, so ``timeout_retry`` is left aside; so is ``concurrency``: it takes no process here."""
        if any("\0" in word for word in (*cmd, cwd or "", user or "")):
            raise ValueError("embedded null byte")  # in the words that Inspect tells the model of
        try:
            result = await self.sandbox.exec(
                cmd,
                stdin=input,
                cwd=cwd,
                env=env,
                user=user or self._user,
                timeout=timeout or None,
                output_limit_bytes=SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE,
            )
        except SandboxFileError as error:  # of the working directory
            return ExecResult(False, 127 if isinstance(error, FileNotFoundError) else 126, "", f"{error.message}\n")
        except SandboxError as error:
            raise inspect_error(error) from error
        stdout, stderr = result.text(), result.error_text()
        if result.exit_code == 126 and stderr.startswith("sandboxcore: can't run ") and "ermission denied" in stderr:
            raise PermissionError(stderr.strip())
        return ExecResult(result.ok, result.exit_code, stdout, stderr)

    @override
    async def write_file(self, file: str, contents: str | bytes) -> None:
        try:
            await self.sandbox.write_file(file, contents, user=self._user)
        except SandboxError as error:
            raise inspect_error(error) from error

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    @override
    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        try:
            contents = await self._read(file, limit)
        except SandboxError as error:
            raise inspect_error(error) from error
        if len(contents) > limit:
            raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)
        return contents.decode() if text else contents

    async def _read(self, file: str, limit: int) -> bytes:
        """Read a file, or one byte more than the limit of a longer one."""
        contents = bytearray()
        async with await self.sandbox.open_read(file, user=self._user) as reader:
            # What its owner may not read is not read as root either; Inspect's own Docker provider does the same.
            if not (await self.sandbox.stat(file, user=self._user)).mode & 0o400:
                raise file_error(errno.EACCES, file)
            while len(contents) <= limit and (data := await reader.read(limit + 1 - len(contents))):
                contents += data
        return bytes(contents)

    @override
    async def connection(self, *, user: str | None = None) -> SandboxConnection:
        return connection_of(self.sandbox.ref, options=self._shared.record.options, user=user or self._user)


def _message(error: SandboxError) -> str:
    return f"{error}\nhint: {error.hint}" if error.hint else str(error)
