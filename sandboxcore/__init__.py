"""Provision sandboxes, run commands in them and move files, on whatever backend there is.

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._markers import HOOK_API, hookimpl
    from .abc import (
        Channel,
        Discoverer,
        Executor,
        FileReader,
        FileStore,
        FileWriter,
        ProcessHandle,
        Provisioner,
        Strategy,
        Translator,
    )
    from .environment import Environment, Sandbox
    from .errors import (
        BackendNotFoundError,
        CapabilityError,
        EnvironmentNotFoundError,
        ExecTimeoutError,
        GuestUnavailableError,
        OutputLimitExceededError,
        PluginError,
        ProvisionError,
        ProvisionTimeoutError,
        SandboxError,
        SandboxFileError,
        SandboxFileExistsError,
        SandboxFileNotFoundError,
        SandboxIsADirectoryError,
        SandboxNotADirectoryError,
        SandboxPermissionError,
        SandboxUnavailableError,
        SandboxUserUnsupportedError,
        ServiceFailedError,
        ServiceNotFoundError,
        SpecError,
        UsageError,
    )
    from .plugins import PluginHost, PluginProblem, PluginRecord
    from .process import Process
    from .report import Loss, ReportEntry, TranslationReport
    from .session import ProvisionOutcome, Session
    from .spec import (
        BuildSpec,
        Dependency,
        EnvironmentSpec,
        FileSpec,
        Healthcheck,
        NetworkPolicy,
        NetworkSpec,
        PortSpec,
        Resources,
        RestartPolicy,
        ServiceSpec,
        VolumeMount,
        VolumeSpec,
    )
    from .values import (
        BackendInfo,
        Chunk,
        Claim,
        DoctorFinding,
        EnvironmentRef,
        Event,
        ExecRequest,
        ExecResult,
        FileInfo,
        SandboxRef,
        Selector,
        Translation,
    )

    __version__: str

__all__ = (
    "HOOK_API",
    "BackendInfo",
    "BackendNotFoundError",
    "BuildSpec",
    "CapabilityError",
    "Channel",
    "Chunk",
    "Claim",
    "Dependency",
    "Discoverer",
    "DoctorFinding",
    "Environment",
    "EnvironmentNotFoundError",
    "EnvironmentRef",
    "EnvironmentSpec",
    "Event",
    "ExecRequest",
    "ExecResult",
    "ExecTimeoutError",
    "Executor",
    "FileInfo",
    "FileReader",
    "FileSpec",
    "FileStore",
    "FileWriter",
    "GuestUnavailableError",
    "Healthcheck",
    "Loss",
    "NetworkPolicy",
    "NetworkSpec",
    "OutputLimitExceededError",
    "PluginError",
    "PluginHost",
    "PluginProblem",
    "PluginRecord",
    "PortSpec",
    "Process",
    "ProcessHandle",
    "ProvisionError",
    "ProvisionOutcome",
    "ProvisionTimeoutError",
    "Provisioner",
    "ReportEntry",
    "Resources",
    "RestartPolicy",
    "Sandbox",
    "SandboxError",
    "SandboxFileError",
    "SandboxFileExistsError",
    "SandboxFileNotFoundError",
    "SandboxIsADirectoryError",
    "SandboxNotADirectoryError",
    "SandboxPermissionError",
    "SandboxRef",
    "SandboxUnavailableError",
    "SandboxUserUnsupportedError",
    "Selector",
    "ServiceFailedError",
    "ServiceNotFoundError",
    "ServiceSpec",
    "Session",
    "SpecError",
    "Strategy",
    "Translation",
    "TranslationReport",
    "Translator",
    "UsageError",
    "VolumeMount",
    "VolumeSpec",
    "__version__",
    "hookimpl",
)

_NAMES = {
    "_markers": "HOOK_API hookimpl",
    "abc": "Channel Discoverer Executor FileReader FileStore FileWriter ProcessHandle Provisioner Strategy Translator",
    "environment": "Environment Sandbox",
    "errors": (
        "BackendNotFoundError CapabilityError EnvironmentNotFoundError ExecTimeoutError GuestUnavailableError "
        "OutputLimitExceededError PluginError ProvisionError ProvisionTimeoutError SandboxError SandboxFileError "
        "SandboxFileExistsError SandboxFileNotFoundError SandboxIsADirectoryError SandboxNotADirectoryError "
        "SandboxPermissionError SandboxUnavailableError SandboxUserUnsupportedError ServiceFailedError "
        "ServiceNotFoundError SpecError UsageError"
    ),
    "plugins": "PluginHost PluginProblem PluginRecord",
    "process": "Process",
    "report": "Loss ReportEntry TranslationReport",
    "session": "ProvisionOutcome Session",
    "spec": (
        "BuildSpec Dependency EnvironmentSpec FileSpec Healthcheck NetworkPolicy NetworkSpec PortSpec Resources "
        "RestartPolicy ServiceSpec VolumeMount VolumeSpec"
    ),
    "values": (
        "BackendInfo Chunk Claim DoctorFinding EnvironmentRef Event ExecRequest ExecResult FileInfo SandboxRef Selector "
        "Translation"
    ),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
_SUBMODULES = frozenset(
    ("abc", "environment", "errors", "hookspecs", "plugins", "process", "report", "session", "spec", "sync", "values")
)


def __getattr__(name: str) -> Any:
    """Load a public name, or a public module, when it is first used."""
    from importlib import import_module

    if name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    elif name in _SUBMODULES:
        return import_module(f".{name}", __name__)
    elif name == "__version__":
        from ._identity import installed_version

        value = installed_version()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
