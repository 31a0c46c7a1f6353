"""The helm program: found once, run without a terminal, its messages without the noise."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import ProvisionError, SandboxError, SandboxUnavailableError, SpecError, UsageError

from ._release import Release, read_release

if TYPE_CHECKING:
    from ._config import HelmConfig

__all__ = ("HELM_ERRORS", "Helm", "HelmFailedError", "helm_error", "parse_version")

OLDEST = (3, 13)
#: Variables that would point the program at something else than the client.
_NOT_HANDED_ON = re.compile(r"HELM_DEBUG|HELM_NAMESPACE|HELM_KUBE.*|KUBERNETES_MASTER")
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
#: Lines of helm's standard error that say nothing about the failure.
_NOISE = re.compile(
    r"^(WARNING: |Pulled: |Digest: |coalesce\.go|Use --debug flag|level=|time=|[IWE]\d{4} |walk\.go|helm\.go:|You can now)"
)
_PREFIX = re.compile(r"^(Error: |INSTALLATION FAILED: |UPGRADE FAILED: |UNINSTALL FAILED: )+")


def _unavailable(message: str, *, hint: str | None = None) -> SandboxError:
    return SandboxUnavailableError(message, started="no", hint=hint)


#: What helm says, to the core's error and a hint; the first row that matches counts, the last one always does.
HELM_ERRORS: tuple[tuple[str, Callable[..., SandboxError], str | None], ...] = (
    (r"response status code 40[13]", UsageError, "log in to the chart's registry: `helm registry login`"),
    (r"cluster unreachable|connection refused|no such host|i/o timeout|TLS handshake", _unavailable, None),
    (r"x509: ", UsageError, "trust the server's certificate authority: name its file in SSL_CERT_FILE"),
    (r"Unauthorized|must be logged in", UsageError, "log in to the cluster again, or check the context's user"),
    (r"forbidden", ProvisionError, "`sandboxcore doctor -b helm` lists the rights that are missing"),
    (r"values don't meet the specifications|values\.schema\.json", SpecError, "the lines name the keys of the values"),
    (r"no matches for kind|resource mapping not found", SpecError, "the cluster lacks that kind: install what defines it"),
    (r"cannot re-use a name|already exists|invalid ownership metadata", ProvisionError, "choose another release name"),
    (r"template: |parse error|error converting YAML|execution error|error validating data|cannot unmarshal", SpecError, None),
    (r"Chart\.yaml|chart .*not found|repo .*not found|path .* not found|no such file|failed to download|missing in charts/"
     r"|failed to fetch|could not find protocol|no cached repo|invalid_reference|improper constraint|response status code 404"
     r"|failed to perform \"Fetch|ould not locate a version", UsageError,
     "check chart, version and repository"),
    (r"", ProvisionError, None),
)  # fmt: skip


class HelmFailedError(Exception):
    """The program ended with another status than 0. ``text`` is what it said, without the noise."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def cleaned(stderr: str) -> str:
    """Take warnings, prefixes and debug hints out of what helm wrote."""
    lines = [line.rstrip() for line in stderr.splitlines() if line.strip() and not _NOISE.match(line)]
    return _PREFIX.sub("", "\n".join(lines).strip()) or "helm failed without saying why"


def helm_error(failure: HelmFailedError, doing: str) -> SandboxError:
    """Turn a failure of the program into the error that a caller expects.

    Args:
        doing: What was attempted; begins the message.
    """
    for pattern, make, hint in HELM_ERRORS:
        if re.search(pattern, failure.text):
            return make(f"{doing}: {failure.text}", hint=hint)
    raise AssertionError("the last row matches everything")


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Read ``v3.17.2+gabc``; None for what is no version."""
    found = _VERSION.match(text.strip())
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


class Helm:
    """One helm program and the cluster that it is pointed at.

    Args:
        context: Of the kubeconfig, where that is read: its current one may become another one at any time.
    """

    def __init__(self, config: HelmConfig, namespace: str, context: str | None = None) -> None:
        self._config = config
        self._namespace = namespace
        self._context = context
        self._version: asyncio.Future[tuple[int, int, int]] | None = None
        # Each holds some 70 MB and a quarter of a second of processor time.
        self._gate = asyncio.Semaphore(config.helm_at_once)
        #: Kinds of releases of which one was held against the server's schemas and installed.
        self._valid: set[str] = set()

    async def version(self) -> tuple[int, int, int]:
        """Find out which version it is, once.

        Raises:
            UsageError: There is none, it is too old, or it can't be run.
        """
        if self._version is None or (self._version.done() and (self._version.cancelled() or self._version.exception())):
            self._version = asyncio.ensure_future(self._ask_version())
        return await asyncio.shield(self._version)

    async def _ask_version(self) -> tuple[int, int, int]:
        try:
            text = await self._run(["version", "--template", "{{.Version}}"], None)
        except HelmFailedError as failure:
            raise UsageError(f"helm can't be run: {failure.text}") from None
        found = parse_version(text)
        if found is None or found[:2] < OLDEST:
            oldest = ".".join(str(part) for part in OLDEST)
            raise UsageError(
                f"helm {text.strip() or '(no version)'} is too old", hint=f"install helm {oldest} or later, or Helm 4"
            )
        return found

    async def dry_run(self, name: str, chart: str, values: Mapping[str, Any], *, labels: Mapping[str, str]) -> Release:
        """Render a release as the cluster would get it; nothing is created.

        Raises:
            HelmFailedError: With helm's own words.
        """
        argv = ["install", name, chart, "--dry-run=server", "-o", "json", *_labels(labels), *self._cluster(), "--values", "-"]
        async with self._gate:
            text = await self._run(argv, values)
        return read_release(json.loads(text))

    async def install(
        self,
        name: str,
        chart: str,
        values: Mapping[str, Any],
        *,
        labels: Mapping[str, str],
        description: str,
        kind: str,
        hooks: bool,
        timeout: float,
    ) -> Release:
        """Create a release's record and its objects, without waiting for any of them and without its hooks.

        Args:
            kind: Names what it has in common with others. Helm reads all of the server's schemas to validate a release, which
                is two fifths of its work: once one of a kind was valid and was installed, that is left out for the others.
            hooks: Run the hooks, and wait for everything between those before and those after: for charts with definitions of
                resources, whose objects can't be rendered before the definitions are there.
            timeout: Seconds for that.

        Raises:
            HelmFailedError: With helm's own words. Objects and a record may be there.
        """
        major = (await self.version())[0]
        argv = ["install", name, chart, "-o", "json", "--description", description, *_labels(labels), *self._cluster()]
        waiting = ["--wait=legacy" if major >= 4 else "--wait", "--timeout", f"{timeout:.0f}s"]
        argv += waiting if hooks else ["--no-hooks"]
        # Server-side apply takes another release's object over in silence; a plain create refuses.
        argv += ["--server-side=false"] if major >= 4 else []
        async with self._gate:
            argv += ["--disable-openapi-validation"] if kind in self._valid else []
            text = await self._run([*argv, "--values", "-"], values)
        self._valid.add(kind)
        return read_release(json.loads(text))

    async def pull(self, reference: str, folder: str, *, version: str | None, repo: str | None) -> None:
        """Download a packaged chart into a folder.

        Raises:
            HelmFailedError: With helm's own words.
        """
        argv = ["pull", reference, "--destination", folder]
        argv += ["--version", version] if version else []
        argv += ["--repo", repo] if repo else []
        await self._run(argv, None)

    def _cluster(self) -> list[str]:
        config = self._config
        argv = ["--namespace", self._namespace]
        argv += ["--kube-context", self._context] if self._context else []
        argv += ["--kube-as-user", config.impersonate_user] if config.impersonate_user else []
        for group in config.impersonate_groups:
            argv += ["--kube-as-group", group]
        return argv

    def _environ(self) -> dict[str, str]:
        environ = {name: value for name, value in os.environ.items() if not _NOT_HANDED_ON.fullmatch(name)}
        environ["HELM_DRIVER"] = "secret"
        # It lives for a tenth of a second: collecting less takes a tenth less of the processor, and some MB more.
        environ.setdefault("GOGC", "400")
        files = self._config.kubeconfig or environ.get("KUBECONFIG", "")
        if self._config.in_cluster:
            environ["KUBECONFIG"] = os.devnull  # then it takes the service account
        elif files:
            # The client expands these, the program does not.
            environ["KUBECONFIG"] = os.pathsep.join(os.path.expanduser(name) for name in files.split(os.pathsep) if name)
        if self._config.proxy:
            environ["HTTPS_PROXY"] = self._config.proxy
        return environ

    async def _run(self, argv: Sequence[str], values: Mapping[str, Any] | None) -> str:
        """Run it to its end. Values go through its standard input: no argument, no file that a killed process leaves."""
        program = shutil.which(self._config.helm)
        if program is None:
            raise UsageError(
                f"no program {self._config.helm!r} is on the PATH", hint="install Helm 3.13 or later, or set 'helm' to its path"
            )
        process = await asyncio.create_subprocess_exec(
            program,
            *argv,
            stdin=asyncio.subprocess.PIPE if values is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environ(),
            start_new_session=True,
        )
        try:
            data = json.dumps(values).encode() if values is not None else None
            out, err = await process.communicate(data)
        finally:
            await _end(process)
        if process.returncode != 0:
            raise HelmFailedError(cleaned(err.decode(errors="replace")))
        return out.decode()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what still runs and wait for it, also when the awaiting task was cancelled."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(asyncio.ensure_future(process.wait()))


def _labels(labels: Mapping[str, str]) -> list[str]:
    """Write labels for the command line; all of them are legal label values, so none can break out."""
    return ["--labels", ",".join(f"{name}={value}" for name, value in labels.items())] if labels else []
