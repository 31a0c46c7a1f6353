"""The table of mutants: backends that are broken in one way each, and the clauses by which the suite must notice.

A mutant is a plugin that puts a decorator around what the real backend gives. What a decorator leaves alone works as it did.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import mutant_executors as executors
import mutant_files as files
import mutant_processes as processes
import mutant_provisioners as provisioners

from sandboxcore import hookimpl
from sandboxcore.abc import Discoverer, Executor, FileStore, Provisioner

__all__ = ("MUTANTS", "Mutant")


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One way of being broken.

    Args:
        plugin: Makes the plugin that breaks the backend.
        breaks: Clauses of which a test must fail, each.
        touches: Further clauses whose tests may fail, because they use what is broken.
        beside: Clauses that are run too, and whose tests must pass.
    """

    plugin: Callable[[], object]
    breaks: tuple[str, ...]
    touches: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


class _ExecutorPlugin:
    def __init__(self, decorate: Callable[[Executor], Executor]) -> None:
        self._decorate = decorate

    @hookimpl(wrapper=True)
    def sandboxcore_executor(self) -> Generator[None, Executor | None, Executor | None]:
        inner = yield
        return None if inner is None else self._decorate(inner)


class _FilesPlugin:
    def __init__(self, decorate: Callable[[FileStore], FileStore]) -> None:
        self._decorate = decorate

    @hookimpl(wrapper=True)
    def sandboxcore_file_store(self) -> Generator[None, FileStore | None, FileStore | None]:
        inner = yield
        return None if inner is None else self._decorate(inner)


class _ProvisionerPlugin:
    def __init__(self, decorate: Callable[[Provisioner], Provisioner]) -> None:
        self._decorate = decorate

    @hookimpl(wrapper=True)
    def sandboxcore_provisioner(self) -> Generator[None, Provisioner | None, Provisioner | None]:
        inner = yield
        return None if inner is None else self._decorate(inner)


class _DiscovererPlugin:
    def __init__(self, decorate: Callable[[Discoverer], Discoverer]) -> None:
        self._decorate = decorate

    @hookimpl(wrapper=True)
    def sandboxcore_discoverer(self) -> Generator[None, Discoverer | None, Discoverer | None]:
        inner = yield
        return None if inner is None else self._decorate(inner)


def _of(plugin: Callable[[Any], object], beside: tuple[str, ...]) -> Callable[..., Mutant]:
    def mutant(decorate: Any, *breaks: str, touches: tuple[str, ...] = (), alone: bool = False) -> Mutant:
        others = () if alone else tuple(clause for clause in beside if clause not in (*breaks, *touches))
        return Mutant(plugin=lambda: plugin(decorate), breaks=breaks, touches=touches, beside=others)

    return mutant


_exec = _of(_ExecutorPlugin, ("EXEC-1", "EXEC-3", "EXEC-4", "EXEC-7", "EXEC-15", "EXEC-16"))
_process = _of(_ExecutorPlugin, ("EXEC-3", "EXEC-5", "EXEC-22"))
_files = _of(_FilesPlugin, ("FILE-4", "FILE-5", "FILE-6", "FILE-7"))
_provision = _of(_ProvisionerPlugin, ("PROV-5", "DISC-1"))
_discover = _of(_DiscovererPlugin, ("PROV-1",))

MUTANTS: dict[str, Mutant] = {
    "takes one word for a shell line": _exec(executors.OneWordIsALine, "EXEC-1"),
    "drops empty arguments": _exec(executors.NoEmptyArguments, "EXEC-1"),
    "leaves stdin open": _exec(executors.NoEndOfInput, "EXEC-2"),
    "cuts stdin short": _exec(executors.ShortInput, "EXEC-2"),
    "swaps the streams": _exec(executors.SwappedStreams, "EXEC-3"),
    "merges the streams": _exec(executors.MergedStreams, "EXEC-3", touches=("EXEC-1", "EXEC-4", "EXEC-7")),
    "decodes output": _exec(executors.DecodedOutput, "EXEC-4", touches=("EXEC-2",)),
    "translates newlines": _exec(executors.TranslatedNewlines, "EXEC-4"),
    "strips the last newline": _exec(
        executors.StrippedOutput, "EXEC-4", touches=("EXEC-1", "EXEC-3", "EXEC-5", "EXEC-15", "EXEC-16")
    ),
    "says 1 for a signal": _exec(executors.OneForSignal, "EXEC-5"),
    "believes what the program writes": _exec(executors.ForgedStatus, "EXEC-6"),
    "says 1 for a missing program": _exec(executors.OneForMissing, "EXEC-7", touches=("EXEC-1",)),
    "says 127 for what is not executable": _exec(executors.MissingForBoth, "EXEC-7"),
    "raises for a missing program": _exec(executors.RaisesForMissing, "EXEC-7", touches=("EXEC-1",)),
    "kills only the leader when time is up": _exec(executors.TimeoutKillsLeader, "EXEC-9", touches=("EXEC-10",)),
    "is late with its timeout": _exec(executors.LateTimeout, "EXEC-10"),
    "forgets the output when time is up": _exec(executors.ForgetfulTimeout, "EXEC-10", touches=("EXEC-9",)),
    "takes 124 and 137 for a timeout": _exec(executors.StatusIsTimeout, "EXEC-11"),
    "kills only the leader on cancelling": _exec(executors.CancelKillsLeader, "EXEC-12"),
    "waits until the pipe closes": _exec(executors.WaitsForPipe, "EXEC-13", touches=("EXEC-3", "EXEC-4", "EXEC-7")),
    "loses the last bytes": _exec(executors.LosesTheEnd, "EXEC-13", touches=("EXEC-2", "EXEC-14")),
    "truncates at the limit in silence": _exec(executors.SilentLimit, "EXEC-14"),
    "counts both streams against one limit": _exec(executors.SharedLimit, "EXEC-14"),
    "ignores cwd": _exec(executors.NoCwd, "EXEC-15"),
    "goes elsewhere when cwd is missing": _exec(executors.AnyCwd, "EXEC-15"),
    "ignores env": _exec(executors.NoEnv, "EXEC-16", touches=("EXEC-7",)),
    "replaces the environment": _exec(executors.OnlyEnv, "EXEC-16", touches=("EXEC-7",)),
    "ignores user": _exec(executors.NoUser, "EXEC-17", touches=("CAP-2",)),
    "tries again when it takes long": _exec(executors.RunsAgain, "EXEC-18", touches=("EXEC-19",), alone=True),
    "says that nothing started": _exec(executors.NeverStarted, "EXEC-19", touches=("EXEC-18",), alone=True),
    "gives output at the end only": _process(processes.LateOutput, "EXEC-20", touches=("EXEC-21",), alone=True),
    "never ends the input": _process(processes.NoEof, "EXEC-20", touches=("EXEC-2",)),
    "reads ahead without end": _process(processes.Hoarder, "EXEC-20"),
    "keeps signals to itself": _process(processes.NoSignals, "EXEC-21", touches=("EXEC-5",)),
    "kills only the leader": _process(processes.KillsLeader, "EXEC-21"),
    "never resizes": _process(processes.NoResize, "EXEC-22", touches=("EXEC-3",)),
    "writes text": _files(files.TextWriter, "FILE-1"),
    "keeps the file in memory": _files(files.WholeInMemory, "FILE-2", touches=("FILE-1",)),
    "writes in place": _files(files.WritesInPlace, "FILE-3", touches=("FILE-6",)),
    "commits what was given up": _files(files.AbortCommits, "FILE-3"),
    "makes no parents": _files(files.NoParents, "FILE-4"),
    "drops the mode": _files(files.DropsMode, "FILE-5"),
    "ignores the mode": _files(files.IgnoresMode, "FILE-5", touches=("FILE-6",)),
    "replaces links": _files(files.ReplacesLinks, "FILE-5", touches=("FILE-3",)),
    "raises without a number": _files(files.NoErrno, "FILE-6", touches=("FILE-3", "FILE-7")),
    "raises one class for all": _files(files.OneClass, "FILE-6", touches=("FILE-1", "FILE-3", "FILE-7")),
    "follows links when it removes": _files(files.FollowsLinks, "FILE-7"),
    "lists unsorted": _files(files.Unsorted, "FILE-7"),
    "always follows": _files(files.AlwaysFollows, "FILE-7", touches=("FILE-3", "FILE-5")),
    "returns before it is ready": _provision(provisioners.Early, "PROV-1", touches=("PROV-2", "PROV-3")),
    "takes any service for the default": _provision(provisioners.AnyDefault, "PROV-1", touches=("DISC-1",)),
    "fails without a cause": _provision(provisioners.NoCause, "PROV-2"),
    "shows the environment in its error": _provision(provisioners.TellsSecrets, "PROV-2"),
    "leaks when it fails": _provision(provisioners.LeaksOnFailure, "PROV-3", touches=("PROV-2",)),
    "leaks when it is cancelled": _provision(provisioners.LeaksOnCancel, "PROV-3"),
    "destroys once only": _provision(provisioners.DestroysOnce, "PROV-4"),
    "does not wait until it is gone": _provision(provisioners.DestroysLater, "PROV-4", touches=("PROV-3", "PROV-6", "EXEC-19")),
    "forgets the owner": _discover(provisioners.NoOwner, "PROV-5"),
    "forgets the lease": _provision(provisioners.NoRenewal, "PROV-6", "PROV-7"),
    "takes what is alive for expired": _discover(provisioners.AllExpired, "PROV-7", touches=("PROV-5", "PROV-6")),
    "never lets a lease end": _discover(provisioners.NeverExpired, "PROV-6", touches=("PROV-5", "PROV-7")),
    "finds every run's": _discover(provisioners.IgnoresRun, "DISC-1", touches=("PROV-3", "PROV-4", "PROV-5", "PROV-6")),
    "finds without labels": _discover(provisioners.NoLabels, "DISC-1", touches=("PROV-5",)),
    "finds what it can not reach": _discover(provisioners.WrongAddress, "DISC-2", touches=("DISC-1", "DISC-3")),
    "keeps no log": _discover(provisioners.EmptyLog, "DISC-3"),
    "passes over what it can't do": _provision(provisioners.Careless, "CAP-2"),
}
