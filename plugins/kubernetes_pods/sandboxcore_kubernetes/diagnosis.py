"""Why a pod is not ready, or was lost: one table of causes, each with what it means and what to do.

A cause is *certain* where waiting does not help. What an autoscaler, a registry or a neighbour's end may still solve is not:
it is shown while it lasts and becomes the error when time is up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from .quantities import parse_quantity

if TYPE_CHECKING:
    from .pods import ContainerState, PodState
    from .watches import PodEvent

__all__ = (
    "CAUSES",
    "Cause",
    "Row",
    "changed_since",
    "diagnose",
    "diagnose_owner",
    "ended_well",
    "has_no_account_yet",
    "is_used_up",
)

Logs = Literal["", "current", "previous"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """One reason why a pod is not ready, or is lost.

    Args:
        kind: A word for it (``ImagePull``, ``OOMKilled``, ``Unschedulable``, ...), a key of ``CAUSES``.
        service: The service that the pod stands for, else the pod.
        severity: ``error`` keeps the service from running, ``warning`` may pass by itself.
        certain: Waiting does not help: the environment may be given up.
        grace: Seconds that a certain cause must stand before it counts, for causes that a second later may be gone.
        message: One line, the cause first, with what the cluster says.
        hint: What to do.
        container: Where it is one container's.
        pod: Name of the pod.
        logs: Whether the container's last log lines tell more: ``current``, those ``previous`` to its restart, or none.
    """

    kind: str
    service: str
    severity: Literal["error", "warning"]
    certain: bool
    message: str
    hint: str = ""
    grace: float = 0.0
    container: str = ""
    pod: str = ""
    logs: Logs = ""


@dataclass(frozen=True, slots=True)
class Row:
    """What the table knows of a kind of cause. ``grace`` is seconds."""

    what: str
    certain: bool
    hint: str
    severity: Literal["error", "warning"] = "error"
    grace: float = 0.0
    logs: Logs = ""


#: Every kind of cause. The order is that of importance, where a pod has several.
CAUSES: Mapping[str, Row] = {
    "PodReplaced": Row(
        "the pod was replaced by another of the same name",
        True,
        "what it held is lost; find the environment again, or make a new one",
    ),
    "PodDeleted": Row("the pod was deleted while it was waited for", True, "somebody or something else removes pods here"),
    "Evicted": Row("the pod was evicted", True, "the node ran out of memory or disk: ask for resources, or use larger nodes"),
    "Preempted": Row(
        "the pod had to give way to a more important one", True, "give it a priority class, or the cluster more nodes"
    ),
    "NodeLost": Row("the pod's node is lost", True, "look at the node: `kubectl describe node`"),
    "PodFailed": Row("the pod failed", True, "`kubectl describe pod` tells more"),
    "OOMKilled": Row("the container used more memory than its limit", True, "raise its memory limit", logs="previous"),
    "InvalidImageName": Row("the image's name is not legal", True, "correct the service's image"),
    "ErrImageNeverPull": Row(
        "the image is not on the node, and must not be pulled", True, "load it into the node, or change the pull policy"
    ),
    "ImagePull": Row("the image can't be pulled", True, "correct the image's name or tag, or give the registry's credentials"),
    "ImagePullRetrying": Row(
        "the image can't be pulled for now",
        False,
        "the registry can't be reached or sends requests away: check the node's network",
    ),
    "ImageInspect": Row("the image on the node can't be read", True, "pull it again, under another tag", grace=10.0),
    "ContainerConfig": Row(
        "the container's configuration is incomplete",
        True,
        "create the Secret or ConfigMap, or correct its name or key",
        grace=4.0,
    ),
    "RunAsNonRoot": Row(
        "the container would run as root, which its settings forbid", True, "name a user by number, or allow root"
    ),
    "ContainerStart": Row(
        "the container's program can't be started", True, "correct its command, entrypoint or working directory"
    ),
    "ContainerCreate": Row("the container can't be created", True, "`kubectl describe pod` has the runtime's words", grace=10.0),
    "Hook": Row("a lifecycle hook failed", True, "correct the hook's command", grace=10.0, logs="current"),
    "ContainerFailed": Row("the container ended", True, "correct its command", logs="current"),
    "ContainerEnded": Row(
        "the container's command ended, though it should go on", True, "give it a command that does not end", logs="current"
    ),
    "CrashLoop": Row("the container crashes again and again", True, "its last log lines say why", logs="previous"),
    "ContainerRestarted": Row(
        "the container was restarted since the last command", True, "what ran in it and what it wrote is lost", logs="previous"
    ),
    "PodSecurity": Row("the cluster's pod security forbids the pod", True, "ask for less, or use a namespace that allows it"),
    "AdmissionDenied": Row(
        "the cluster refuses the pod", True, "an admission rule of the cluster says no; ask its administrator"
    ),
    "QuotaNever": Row("the pod asks for more than the namespace's quota is", True, "ask for less, or raise the quota"),
    "Quota": Row("the namespace's quota is used up", False, "wait for others to end, ask for less, or raise the quota"),
    "CreateFailed": Row("the pod can't be created", True, "`kubectl get events` has the cluster's words", grace=10.0),
    "AccountMissing": Row(
        "the namespace has no account for its pods yet", False, "the controller manager makes it; `kubectl get serviceaccounts`"
    ),
    "Mount": Row("a volume can't be mounted", True, "create what the volume refers to, or correct its name", grace=10.0),
    "MountRetrying": Row(
        "a volume can't be mounted for now", False, "`kubectl describe pod` and the storage driver's log tell more"
    ),
    "SandboxRuntime": Row("the node has no such runtime", True, "choose another runtime class", grace=4.0),
    "SandboxCreate": Row("the node can't set up the pod", False, "look at the node's network and runtime"),
    "SchedulingGated": Row(
        "the pod is held back by a scheduling gate", False, "something must open the gate", severity="warning"
    ),
    "Unschedulable": Row(
        "no node fits", False, "ask for less, add nodes, or correct the node selector and tolerations", severity="warning"
    ),
    "ProbeFailed": Row("the health check fails", False, "correct the check, or give the service more time", severity="warning"),
    "CrashedOnce": Row("the container crashed and starts again", False, "its last log lines say why", "warning", logs="previous"),
    "NodeNotReady": Row("the pod's node does not answer", False, "look at the node: `kubectl describe node`", severity="warning"),
}
_RANK = {kind: place for place, kind in enumerate(CAUSES)}

#: Waiting reason of a container (kubelet) to kind.
#: Source: https://github.com/kubernetes/kubernetes/blob/v1.34.4/pkg/kubelet/container/sync_result.go and images/types.go
WAITING: Mapping[str, str] = {
    "InvalidImageName": "InvalidImageName",
    "ErrImageNeverPull": "ErrImageNeverPull",
    "ErrImagePull": "ImagePull",
    "ImagePullBackOff": "ImagePull",
    "RegistryUnavailable": "ImagePullRetrying",
    "SignatureValidationFailed": "ImagePull",
    "ImageInspectError": "ImageInspect",
    "CreateContainerConfigError": "ContainerConfig",
    "CreateContainerError": "ContainerCreate",
    "RunContainerError": "ContainerCreate",
    "PreCreateHookError": "Hook",
    "PreStartHookError": "Hook",
    "PostStartHookError": "Hook",
    "CrashLoopBackOff": "CrashLoop",
}

#: What a registry says, or the way to it, where asking again may help.
_PULL_RETRY = re.compile(
    r"timeout|timed out|deadline exceeded|too many requests|toomanyrequests|rate limit|\b429\b|\b50[0234]\b|connection refused"
    r"|connection reset|no route to host|network is unreachable|temporary failure|server misbehaving|unexpected eof|tls handshake"
    r"|try again|x509",
    re.IGNORECASE,
)
#: Names that are never in the DNS (RFC 6761), so that no answer is an answer.
_NO_HOST = re.compile(r"^[^/]*\.invalid(:\d+)?/")
_NO_PROGRAM = re.compile(
    r"executable file not found|no such file or directory|permission denied|not a directory|exec format error|is a directory"
    r"|cannot find|chdir|cwd|no such user|unable to find user",
    re.IGNORECASE,
)
#: What kubelet says when the container runtime does not answer: it starts again.
_NO_ANSWER = re.compile(r"code = Unavailable|error while dialing", re.IGNORECASE)
_NO_OBJECT = re.compile(
    r"(configmap|secret|persistentvolumeclaim|references non-existent|object) .*(not found|not registered|key)", re.IGNORECASE
)
#: What the cluster itself puts into every namespace, a moment after it was made.
_GIVEN_OBJECT = re.compile(r'"(kube-root-ca|openshift-service-ca)\.crt"')
_GIVEN_ACCOUNT = re.compile(r'error looking up service account \S+/default: serviceaccount "default" not found')
#: How often a mount fails before what it lacks is missing for certain: kubelet tries the fifth time after 7.5 s, the sixth after
#: 15.5 s. A warning of fewer tries may be of a mount that has succeeded since, for nothing takes it back.
#: Source: https://github.com/kubernetes/kubernetes/blob/v1.34.4/pkg/util/goroutinemap/exponentialbackoff/exponential_backoff.go
_MOUNT_TRIES = 5
_NO_RUNTIME = re.compile(r"no runtime for|RuntimeHandler .* not supported|failed to get sandbox runtime", re.IGNORECASE)


def diagnose(pod: PodState, events: Sequence[PodEvent] = (), *, crashes: int = 3) -> tuple[Cause, ...]:
    """Tell what keeps a pod from being ready, the most certain first; nothing for one that merely needs time.

    Args:
        events: Warnings about this pod, oldest first.
        crashes: How often a container may end before that is taken for certain.
    """
    if pod.ready and not pod.deleted:
        return ()
    found = [*_pod_causes(pod), *_container_causes(pod, events, crashes), *_event_causes(pod, events)]
    return _sorted(found)


def diagnose_owner(name: str, service: str, events: Sequence[PodEvent]) -> tuple[Cause, ...]:
    """Tell why the object that should make pods (a StatefulSet, say) makes none, from the warnings about it."""
    # OpenSandbox's controller ends its warnings with the whole pod, and so with the values of its environment.
    messages = [event.message.partition(", pod: ")[0] for event in events if event.reason == "FailedCreate"]
    found = [_creation(message, service or name) for message in messages]
    return _sorted(found[-1:])


def changed_since(pod: PodState, uid: str, restarts: int) -> Cause | None:
    """Tell whether a pod is still what it was when it had this uid and number of restarts."""
    if uid and pod.uid != uid:
        return _cause("PodReplaced", pod, f"pod {pod.name}")
    main = pod.main
    if main is not None and main.restarts > restarts:
        return _cause("ContainerRestarted", pod, f"{_times(main.restarts)}{_end(main, last=True)}", main)
    return None


def _sorted(found: Sequence[Cause]) -> tuple[Cause, ...]:
    unique = {(cause.kind, cause.container): cause for cause in found}
    return tuple(sorted(unique.values(), key=lambda cause: (not cause.certain, _RANK[cause.kind])))


def _cause(kind: str, pod: PodState | None, detail: str, container: ContainerState | None = None, service: str = "") -> Cause:
    row = CAUSES[kind]
    name = container.name if container is not None else ""
    where = f"init container {name}: " if container is not None and container.init else ""
    return Cause(
        kind=kind,
        service=service or ((pod.service or pod.name) if pod is not None else ""),
        severity=row.severity,
        certain=row.certain,
        message=f"{where}{row.what}{': ' + one_line(detail) if detail else ''}",
        hint=row.hint,
        grace=row.grace,
        container=name,
        pod=pod.name if pod is not None else "",
        logs=row.logs,
    )


def ended_well(pod: PodState) -> Cause:
    """Say that a pod has ended by itself, where it was to go on."""
    return _cause("ContainerEnded", pod, "exit code 0", next((one for one in pod.containers if not one.init), None))


# --- the pod itself ---


def _pod_causes(pod: PodState) -> Iterator[Cause]:
    if pod.phase == "Failed":
        said = pod.message or pod.reason
        kind = {"Evicted": "Evicted", "Preempting": "Preempted", "NodeLost": "NodeLost", "NodeShutdown": "NodeLost"}.get(
            pod.reason
        )
        if kind is not None:
            yield _cause(kind, pod, said)
        elif pod.reason or not any(container.state == "terminated" for container in (*pod.containers, *pod.init_containers)):
            yield _cause("PodFailed", pod, said)
    for condition in _conditions(pod):
        kind, status, reason = condition["type"], condition["status"], condition.get("reason", "")
        said = condition.get("message", "")
        if kind == "PodScheduled" and status == "False":
            yield _cause("SchedulingGated", pod, said) if reason == "SchedulingGated" else _unschedulable(pod, said)
        elif kind == "DisruptionTarget" and status == "True" and pod.phase != "Failed":
            yield _cause("Preempted" if "Preempt" in reason else "Evicted", pod, said)
        elif kind == "Ready" and status == "Unknown":
            yield _cause("NodeNotReady", pod, f"node {pod.node}")
    if pod.deleted and pod.phase not in ("Failed", "Succeeded"):
        yield _cause("PodDeleted", pod, "")


def _conditions(pod: PodState) -> Sequence[Mapping[str, Any]]:
    return (pod.raw.get("status") or {}).get("conditions") or ()


# --- its containers ---


def _container_causes(pod: PodState, events: Sequence[PodEvent], crashes: int) -> Iterator[Cause]:
    for container in (*pod.init_containers, *pod.containers):
        if container.state == "waiting" and container.reason in WAITING:
            yield _waiting(pod, container, events, crashes)
        elif container.state == "terminated" and not (container.init and container.exit_code == 0):
            yield from _terminated(pod, container, crashes)
        elif container.state == "running" and container.restarts and not container.ready:
            yield _crashed(pod, container, crashes)


def _waiting(pod: PodState, container: ContainerState, events: Sequence[PodEvent], crashes: int) -> Cause:
    kind = WAITING[container.reason]
    said = container.message
    if kind == "CrashLoop":
        return _crashed(pod, container, crashes)
    if kind == "ImagePull":
        answer = _registry_answer(container, events)
        kind = "ImagePull" if _is_final(container, answer) else "ImagePullRetrying"
        said = f"{container.image}: {answer}" if answer else container.image
    elif _NO_ANSWER.search(said):
        kind = "SandboxCreate"
    elif kind == "ContainerConfig" and "runAsNonRoot" in said:
        kind = "RunAsNonRoot"
    elif kind == "ContainerCreate" and _NO_PROGRAM.search(said):
        kind = "ContainerStart"
    return _cause(kind, pod, said or container.reason, container)


def _is_final(container: ContainerState, answer: str) -> bool:
    """Tell whether pulling again gets the same answer; without one nobody knows."""
    if _NO_ANSWER.search(container.message):
        return False
    return bool(_NO_HOST.search(container.image)) or bool(answer and not _PULL_RETRY.search(answer))


def _registry_answer(container: ContainerState, events: Sequence[PodEvent]) -> str:
    """Leave what is the same in every message out of what kubelet and runtime say of a pull.

    Before Kubernetes 1.32 a container that waits for its next pull does not say why (kubernetes/kubernetes#127918); the
    warning about its last one does.
    """
    said = re.sub(r'^Back-off pulling image "[^"]*"(: (ErrImagePull|ImagePullBackOff))?(: )?', "", container.message)
    if not said:
        failed = re.compile(rf'Failed to pull image "{re.escape(container.image)}(:latest)?": ')
        answers = [event.message for event in events if event.reason == "Failed" and failed.match(event.message)]
        said = failed.sub("", answers[-1]) if answers else ""
    said = re.sub(r"rpc error: code = \w+ desc = ", "", said)
    return re.sub(r'^failed to pull and unpack image "[^"]*": ', "", said)


def _terminated(pod: PodState, container: ContainerState, crashes: int) -> Iterator[Cause]:
    restarts = _restart_policy(pod)
    comes_back = pod.phase not in ("Failed", "Succeeded") and (
        restarts == "Always" or (restarts == "OnFailure" and container.exit_code != 0)
    )
    if container.reason in ("StartError", "ContainerCannotRun"):
        kind = "ContainerStart" if _NO_PROGRAM.search(container.message) else "ContainerCreate"
        yield _cause(kind, pod, container.message, container)
    elif comes_back:
        yield _crashed(pod, container, crashes)
    elif container.reason == "OOMKilled":
        yield _with_logs(_cause("OOMKilled", pod, _end(container).strip("; "), container), "current")
    elif container.exit_code == 0:
        if pod.phase != "Succeeded" and not container.init and restarts == "Always":
            yield _cause("ContainerEnded", pod, "exit code 0", container)
    else:
        yield _cause("ContainerFailed", pod, _end(container).strip("; "), container)


def _crashed(pod: PodState, container: ContainerState, crashes: int) -> Cause:
    """Judge a container that ended and comes back: as it ended last, and how often."""
    ends = container.restarts + (container.state in ("terminated", "waiting"))
    now = container.state == "terminated"
    reason = container.reason if now else container.last_reason
    message = container.message if now else container.last_message
    code = container.exit_code if now else container.last_exit_code
    if reason in ("StartError", "ContainerCannotRun") and _NO_PROGRAM.search(message):
        return _cause("ContainerStart", pod, message, container)
    detail = f"{_times(ends, 'ended')}{_end(container, last=not now)}"
    logs: Logs = "current" if now or container.reason == "CrashLoopBackOff" else "previous"
    if reason == "OOMKilled":
        return _with_logs(_cause("OOMKilled", pod, detail, container), logs)
    if ends < crashes:
        return _with_logs(_cause("CrashedOnce", pod, detail, container), logs)
    return _with_logs(_cause("ContainerEnded" if code == 0 else "CrashLoop", pod, detail, container), logs)


def _with_logs(cause: Cause, logs: Logs) -> Cause:
    return replace(cause, logs=logs)


def _end(container: ContainerState, *, last: bool = False) -> str:
    reason, code = (container.last_reason, container.last_exit_code) if last else (container.reason, container.exit_code)
    message = container.last_message if last else container.message
    parts = [part for part in (reason, f"exit code {code}" if code is not None else "", message) if part and part != "Error"]
    return f"; {', '.join(parts)}" if parts else ""


def _times(number: int, word: str = "restarted") -> str:
    return f"{word} once" if number == 1 else f"{word} {number} times"


def _restart_policy(pod: PodState) -> str:
    return str((pod.raw.get("spec") or {}).get("restartPolicy") or "Always")


# --- what the cluster warned of ---


def _event_causes(pod: PodState, events: Sequence[PodEvent]) -> Iterator[Cause]:
    for event in events:
        maker = _EVENTS.get(event.reason)
        if maker is not None and (cause := maker(pod, event)) is not None:
            yield cause


def _mount(pod: PodState, event: PodEvent) -> Cause | None:
    """Judge a mount that failed; a container of any kind that runs, ran, or was tried has all of them."""
    containers = (*pod.init_containers, *pod.containers)
    if any(container.state in ("running", "terminated") or container.reason in WAITING for container in containers):
        return None
    missing = _NO_OBJECT.search(event.message) and not _GIVEN_OBJECT.search(event.message)
    if not missing or event.count < _MOUNT_TRIES:
        return _cause("MountRetrying", pod, event.message)
    # The tries were its grace: until the next one the warning is true, and later it may not be.
    return replace(_cause("Mount", pod, event.message), grace=0.0)


def _sandbox(pod: PodState, event: PodEvent) -> Cause | None:
    if pod.ip or any(container.state == "running" for container in pod.containers):
        return None
    return _cause("SandboxRuntime" if _NO_RUNTIME.search(event.message) else "SandboxCreate", pod, event.message)


def _probe(pod: PodState, event: PodEvent) -> Cause | None:
    container = next((each for each in pod.containers if each.state == "running" and not each.ready), None)
    return None if container is None else _with_logs(_cause("ProbeFailed", pod, event.message, container), "current")


def _not_scheduled(pod: PodState, event: PodEvent) -> Cause | None:
    """Judge the scheduler's warning until its condition is there, which says what is so now."""
    told = any(condition["type"] == "PodScheduled" for condition in _conditions(pod))
    return None if pod.node or told else _unschedulable(pod, event.message)


def _unschedulable(pod: PodState, said: str) -> Cause:
    """Judge what the scheduler says: a volume claim that is not there is no matter of nodes."""
    return _cause("Mount" if "persistentvolumeclaim" in said and "not found" in said else "Unschedulable", pod, said)


#: Reason of a warning about a pod to what it is the cause of.
_EVENTS: Mapping[str, Callable[[PodState, PodEvent], Cause | None]] = {
    "FailedMount": _mount,
    "FailedAttachVolume": _mount,
    "FailedMapVolume": _mount,
    "FailedCreatePodSandBox": _sandbox,
    "Unhealthy": _probe,
    "FailedScheduling": _not_scheduled,
}

_QUOTA = re.compile(r"exceeded quota: (?P<name>[^,]+), requested: (?P<asked>.*), used: (?P<used>.*), limited: (?P<limit>\S+)")


def has_no_account_yet(message: str) -> bool:
    """Tell whether the API server refused a pod of a namespace so new that it lacks the account which all are given."""
    return _GIVEN_ACCOUNT.search(message) is not None


def is_used_up(message: str) -> bool:
    """Tell whether the API server refused something for a quota that has room for it when others have ended."""
    quota = _QUOTA.search(message)
    return quota is not None and not _above(quota["asked"], quota["limit"])


def _creation(message: str, service: str) -> Cause:
    """Judge why a pod could not be created, by the API server's words."""
    if _QUOTA.search(message):
        kind = "Quota" if is_used_up(message) else "QuotaNever"
    elif "failed quota" in message or "must specify" in message:
        kind = "QuotaNever"
    elif "violates PodSecurity" in message or "unable to validate against any security context constraint" in message:
        kind = "PodSecurity"
    elif has_no_account_yet(message):
        kind = "AccountMissing"
    elif "denied the request" in message or "RuntimeClass" in message or "forbidden" in message or "is invalid" in message:
        kind = "AdmissionDenied"
    else:
        kind = "CreateFailed"
    return _cause(kind, None, message, service=service)


def _above(asked: str, limit: str) -> bool:
    """Tell whether what is asked for alone is more than the limit: ``cpu=2,memory=1Gi`` against the same words."""
    limits = dict(part.split("=", 1) for part in limit.split(",") if "=" in part)
    for name, value in (part.split("=", 1) for part in asked.split(",") if "=" in part):
        if name in limits and parse_quantity(value) > parse_quantity(limits[name]):
            return True
    return False


def one_line(text: str, limit: int = 600) -> str:
    """Fold white space, and shorten what is too long to be read."""
    folded = " ".join(text.split())
    return folded if len(folded) <= limit else f"{folded[:limit]}..."
