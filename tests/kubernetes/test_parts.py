"""What needs no cluster: names, amounts, frames, tables."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import web
from sandboxcore_kubernetes import Cluster, ClusterConfig, PodEvent, diagnose
from sandboxcore_kubernetes import _websocket as ws
from sandboxcore_kubernetes.diagnosis import _EVENTS, CAUSES, WAITING, Cause, diagnose_owner
from sandboxcore_kubernetes.errors import CONNECTION_ERRORS, SANDBOX_ERRORS, ApiError, api_error, connection_error, sandbox_error
from sandboxcore_kubernetes.naming import dns_label, label_value, object_name
from sandboxcore_kubernetes.pods import PodState, pod_state
from sandboxcore_kubernetes.quantities import format_bytes, format_cpus, parse_quantity
from sandboxcore_kubernetes.readiness import failure
from sandboxcore_kubernetes.streams import ChannelStream, Layout
from sandboxcore_kubernetes.watching import Lines

from sandboxcore.errors import CapabilityError, ProvisionError, SandboxError, SandboxUnavailableError, UsageError

pytestmark = pytest.mark.tier("none")


# --- names and amounts ---


@pytest.mark.parametrize("name", ["web", "a-b", "x" * 63])
def test_a_legal_name_stays(name: str) -> None:
    assert dns_label(name) == name


@pytest.mark.parametrize("name", ["Web", "a_b", "-a", "a-", "", "ü", "x" * 64, "a.b", "a b"])
def test_any_name_becomes_legal(name: str) -> None:
    import re

    made = dns_label(name)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", made)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", object_name("env-1", name))
    assert len(object_name("env-1" * 9, name)) <= 52
    assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", label_value(name))


def test_two_names_never_meet() -> None:
    names = ["a_b", "a-b", "A_b", "a.b", "a b", "aB", "a" * 70, "a" * 71]
    for make in (dns_label, label_value, lambda name: object_name("env", name)):
        assert len({make(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", 0.5), ("1Gi", 2**30), ("2e3", 2000), ("2", 2), ("1k", 1000), ("3E", 3 * 10**18), ("1.5Mi", 1.5 * 2**20)],
)
def test_amounts_are_read(text: str, value: float) -> None:
    assert float(parse_quantity(text)) == value


def test_amounts_are_written() -> None:
    assert [format_cpus(each) for each in (2, 0.5, 0.0001, 0)] == ["2", "500m", "1m", "0"]
    assert [format_bytes(each) for each in (1 << 30, 1536 << 20, 1000, 0)] == ["1Gi", "1536Mi", "1000", "0"]
    with pytest.raises(ValueError, match="no amount"):
        parse_quantity("much")


# --- frames ---

#: What a stream is made of besides its layout, where nobody is above it.
STREAM: Any = (asyncio.Protocol(), bytearray(1), set(), lambda stream: None, lambda: None)


def _server_frame(opcode: int, payload: bytes, final: bool = True) -> bytes:
    head = bytes((0x80 * final | opcode,))
    size = len(payload)
    if size < 126:
        return head + bytes((size,)) + payload
    if size < 65536:
        return head + b"\x7e" + size.to_bytes(2, "big") + payload
    return head + b"\x7f" + size.to_bytes(8, "big") + payload


def test_frames_are_cut_wherever_the_bytes_are() -> None:
    """However the stream is cut, the same messages come out."""
    random.seed(7)
    payloads = [b"", b"x", bytes(125), bytes(126), random.randbytes(65535), random.randbytes(70000), b"\x01end"]
    stream = b"".join(_server_frame(ws.BINARY, payload) for payload in payloads)
    for _ in range(30):
        frames, messages, current, at = ws.Frames(), [], b"", 0
        while at < len(stream):
            size = random.choice((1, 2, 3, 7, 100, 5000, 100000))
            for opcode, piece, last in frames.feed(memoryview(stream[at : at + size])):
                assert opcode == ws.BINARY
                current += piece
                if last:
                    messages.append(current)
                    current = b""
            at += size
        assert messages == payloads


def test_a_message_of_several_frames_ends_with_the_last() -> None:
    stream = _server_frame(ws.BINARY, b"ab", final=False) + _server_frame(ws.PING, b"p") + _server_frame(0, b"cd")
    pieces = [(opcode, bytes(piece), last) for opcode, piece, last in ws.Frames().feed(memoryview(stream))]
    assert pieces == [(ws.BINARY, b"ab", False), (ws.PING, b"p", True), (0, b"cd", True)]


@pytest.mark.parametrize("head", [b"\xf2\x00", b"\x83\x00", b"\x82\x80abcd", b"\x89\x7e\x01\x00", b"\x09\x00"])
def test_what_no_server_may_send_is_refused(head: bytes) -> None:
    with pytest.raises(ws.FrameError):
        ws.Frames().feed(memoryview(head))


@pytest.mark.parametrize("mask", [None, ws._mask_slowly])
@pytest.mark.parametrize("size", [0, 1, 4, 125, 126, 65535, 65536, 300001])
def test_own_frames_are_masked(monkeypatch: pytest.MonkeyPatch, size: int, mask: Any) -> None:
    """What a server unmasks is what was sent, with the fast masking and with the other."""
    monkeypatch.setattr(ws, "_mask", mask)
    payload = random.randbytes(size)
    made = ws.frame(ws.BINARY, payload[: size // 2], payload[size // 2 :])
    length = {126: 2, 127: 8}.get(made[1] & 0x7F, 0)
    assert made[0] == 0x82
    assert made[1] & 0x80
    key, masked = made[2 + length : 6 + length], made[6 + length :]
    assert bytes(byte ^ key[at % 4] for at, byte in enumerate(masked)) == payload


@pytest.mark.parametrize(("frame_bytes", "sizes"), [(1 << 16, [1 << 16, 1 << 16, 1]), (1 << 18, [(1 << 17) + 1])])
async def test_a_layout_says_how_large_its_frames_are(frame_bytes: int, sizes: list[int]) -> None:
    stream = ChannelStream(Layout(protocols=(), send=7, receive=1, error=3, frame_bytes=frame_bytes), *STREAM)
    stream._below = below = Mock(asyncio.Transport)
    stream.write(bytes((1 << 17) + 1))
    written = [call.args[0] for call in below.write.call_args_list]
    lengths = [{126: 4, 127: 10}.get(made[1] & 0x7F, 2) + 4 for made in written]
    assert [len(made) - length - 1 for made, length in zip(written, lengths, strict=True)] == sizes


def test_lines_are_cut_wherever_the_bytes_are() -> None:
    text = b"".join(json.dumps({"n": n, "x": "y" * n}).encode() + b"\n" for n in range(300))
    for step in (1, 7, 1000, len(text)):
        lines = Lines()
        found = [line for at in range(0, len(text), step) for line in lines.feed(text[at : at + step])]
        assert b"".join(line + b"\n" for line in found) == text


# --- errors ---


def test_every_connection_error_is_in_the_table() -> None:
    """Whatever aiohttp, ssl and asyncio raise for a connection has a row."""
    import asyncio
    import ssl

    import aiohttp

    public = [getattr(aiohttp, name) for name in dir(aiohttp)]
    foreign = [each for each in public if isinstance(each, type) and issubclass(each, aiohttp.ClientError)]
    for cls in [*foreign, OSError, ConnectionResetError, TimeoutError, asyncio.TimeoutError, ssl.SSLError]:
        error = cls.__new__(cls)
        try:
            str(error)
        except AttributeError:  # needs what only a real connection has
            cls = type(cls.__name__, (cls,), {"__str__": lambda self: "text"})
            error = cls.__new__(cls)
        assert isinstance(connection_error(error), ApiError), cls
    for name in CONNECTION_ERRORS:
        assert hasattr(aiohttp, name) or name in ("TimeoutError", "OSError", "SSLError"), name


def test_what_is_no_connections_error_is_not_swallowed() -> None:
    with pytest.raises(KeyError):
        connection_error(KeyError("x"))
    with pytest.raises(ZeroDivisionError):
        sandbox_error(ZeroDivisionError(), "do")


#: Source: k8s.io/apimachinery v0.34 pkg/apis/meta/v1/types.go
_REASONS = """
    Unauthorized Forbidden NotFound AlreadyExists Conflict Gone Invalid ServerTimeout StoreReadError Timeout TooManyRequests
    BadRequest MethodNotAllowed NotAcceptable RequestEntityTooLarge UnsupportedMediaType InternalError Expired ServiceUnavailable
"""


def test_every_reason_of_the_api_is_in_the_table() -> None:
    assert set(_REASONS.split()) | {"Unreachable"} == set(SANDBOX_ERRORS)
    for reason in _REASONS.split():
        made = sandbox_error(ApiError("words", status=400, reason=reason), "create Pod 'a'")
        assert not isinstance(made, ApiError)
        assert str(made).startswith("create Pod 'a': words")


@pytest.mark.parametrize(
    ("status", "reason", "cls"),
    [
        (401, "Unauthorized", UsageError),
        (403, "Forbidden", ProvisionError),
        (405, "MethodNotAllowed", CapabilityError),
        (418, "", ProvisionError),
    ],
)
def test_an_api_error_becomes_the_cores(status: int, reason: str, cls: type[SandboxError]) -> None:
    assert isinstance(sandbox_error(ApiError("no", status=status, reason=reason), "try"), cls)
    lost = sandbox_error(ConnectionRefusedError("x"), "try")
    assert isinstance(lost, SandboxUnavailableError)
    assert lost.started == "no"


def test_an_answer_that_is_no_status_is_quoted() -> None:
    error = api_error(502, b"<html>\n<b>Bad Gateway</b></html>", "3")
    assert error.status == 502
    assert error.retry_after == 3.0
    assert "Bad Gateway" in str(error)
    assert "\n" not in str(error)


# --- diagnosis ---


def _pod(status: dict[str, Any], *, ready: bool = False, spec: dict[str, Any] | None = None) -> PodState:
    conditions = [*status.pop("conditions", []), {"type": "Ready", "status": "True" if ready else "False"}]
    containers = {"containers": [{"name": "main", "image": "registry.test/a/b:c"}]}
    metadata = {"name": "p", "uid": "u", "namespace": "n", "annotations": {"sandboxcore.dev/service": "svc"}}
    return pod_state(
        {
            "metadata": metadata,
            "spec": containers | (spec or {}),
            "status": {"phase": "Pending", "conditions": conditions} | status,
        }
    )


def _waiting(reason: str, message: str = "", restarts: int = 0, last: dict[str, Any] | None = None) -> PodState:
    state = {"waiting": {"reason": reason, "message": message}}
    last_state = {"terminated": last} if last else {}
    status = {"name": "main", "ready": False, "restartCount": restarts, "state": state, "lastState": last_state}
    return _pod({"containerStatuses": [status]})


def test_every_row_is_complete_and_used() -> None:
    """A kind without words or without use, or a use without a row, is a mistake."""
    import inspect

    from sandboxcore_kubernetes import diagnosis

    source = inspect.getsource(diagnosis).partition("_RANK = ")[2]
    for kind, row in CAUSES.items():
        assert row.what, kind
        assert row.hint, kind
        assert f'"{kind}"' in source or kind in WAITING.values(), f"{kind} is never the answer"
    assert set(WAITING.values()) <= set(CAUSES)
    assert {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "Unhealthy", "FailedScheduling"} <= set(_EVENTS)


@pytest.mark.parametrize("reason", WAITING)
def test_every_waiting_reason_has_a_cause(reason: str) -> None:
    (cause,) = diagnose(_waiting(reason, "what kubelet says", restarts=5, last={"reason": "Error", "exitCode": 1}))
    assert cause.service == "svc"
    assert cause.hint
    assert reason == "CrashLoopBackOff" or "what kubelet says" in cause.message


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ('failed to resolve reference "registry.test/a/b:c": registry.test/a/b:c: not found', "ImagePull"),
        ("pull access denied, repository does not exist or may require authorization", "ImagePull"),
        ("dial tcp: lookup registry.test: no such host", "ImagePull"),
        ("dial tcp 10.0.0.1:443: i/o timeout", "ImagePullRetrying"),
        ("429 Too Many Requests - toomanyrequests: You have reached your pull rate limit", "ImagePullRetrying"),
        ("connect: connection refused", "ImagePullRetrying"),
    ],
)
def test_a_registrys_answer_decides(message: str, kind: str) -> None:
    for reason in ("ErrImagePull", "ImagePullBackOff"):
        (cause,) = diagnose(_waiting(reason, f'Back-off pulling image "registry.test/a/b:c": ErrImagePull: {message}'))
        assert cause.kind == kind
        assert cause.certain == (kind == "ImagePull")
        assert "registry.test/a/b:c" in cause.message
        assert "Back-off" not in cause.message


@pytest.mark.parametrize(("message", "kind"), [("not found", "ImagePull"), ("429 Too Many Requests", "ImagePullRetrying")])
def test_a_registrys_answer_is_looked_for_in_the_warnings(message: str, kind: str) -> None:
    """Before Kubernetes 1.32 a container that waits for its next pull does not have it."""
    waiting = _waiting("ImagePullBackOff", 'Back-off pulling image "registry.test/a/b:c"')
    pulling = 'Failed to pull image "registry.test/a/b:c": rpc error: code = Unknown desc = '
    events = [_event("Failed", f"{pulling}no route to host"), _event("Failed", pulling + message)]
    (cause,) = diagnose(waiting, [*events, _event("Failed", "Error: ImagePullBackOff")])
    assert (cause.kind, cause.certain) == (kind, kind == "ImagePull")
    assert cause.message.endswith(f"registry.test/a/b:c: {message}")
    (unknown,) = diagnose(waiting)
    assert (unknown.kind, unknown.certain) == ("ImagePullRetrying", False)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("CreateContainerError", "SandboxCreate"),
        ("RunContainerError", "SandboxCreate"),
        ("CreateContainerConfigError", "SandboxCreate"),
        ("ErrImagePull", "ImagePullRetrying"),
        ("ImageInspectError", "SandboxCreate"),
    ],
)
def test_a_container_runtime_that_restarts_is_no_wrong_command(reason: str, kind: str) -> None:
    said = (
        'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: '
        'dial unix /run/containerd/containerd.sock: connect: no such file or directory"'
    )
    (cause,) = diagnose(_waiting(reason, said))
    assert (cause.kind, cause.certain) == (kind, False)
    assert "containerd.sock" in cause.message


def test_crashes_are_certain_when_there_were_enough() -> None:
    end = {"reason": "Error", "exitCode": 3}
    assert not diagnose(_waiting("CrashLoopBackOff", restarts=1, last=end))[0].certain
    (cause,) = diagnose(_waiting("CrashLoopBackOff", restarts=2, last=end))
    assert cause.certain
    assert cause.kind == "CrashLoop"
    assert "exit code 3" in cause.message
    assert diagnose(_waiting("CrashLoopBackOff", restarts=1, last=end), crashes=2)[0].certain
    (oom,) = diagnose(_waiting("CrashLoopBackOff", restarts=1, last={"reason": "OOMKilled", "exitCode": 137}))
    assert (oom.kind, oom.certain) == ("OOMKilled", True)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}, "Evicted"),
        ({"phase": "Failed", "reason": "NodeLost"}, "NodeLost"),
        ({"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no"}, "PodFailed"),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}]},
            "Unschedulable",
        ),
        ({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}, "Preempted"),
    ],
)
def test_a_pods_own_conditions_are_causes(status: dict[str, Any], kind: str) -> None:
    assert diagnose(_pod(status))[0].kind == kind


def _event(reason: str, message: str, kind: str = "Pod", name: str = "p", count: int = 1) -> PodEvent:
    return PodEvent(uid="u", kind=kind, name=name, reason=reason, message=message, count=count)


def test_warnings_are_causes() -> None:
    creating = _waiting("ContainerCreating")
    gone = _event("FailedMount", 'MountVolume.SetUp failed for volume "v" : configmap "absent" not found', count=5)
    assert [(cause.kind, cause.certain) for cause in diagnose(creating, [gone])] == [("Mount", True)]
    slow = _event("FailedAttachVolume", "AttachVolume.Attach failed: timed out")
    assert [(cause.kind, cause.certain) for cause in diagnose(creating, [slow])] == [("MountRetrying", False)]
    runtime = _event("FailedCreatePodSandBox", 'no runtime for "runsc" is configured')
    assert diagnose(creating, [runtime])[0].kind == "SandboxRuntime"
    assert diagnose(_pod({}, ready=True), [gone]) == ()


@pytest.mark.parametrize(
    ("name", "count", "certain"),
    [("absent", 1, False), ("absent", 4, False), ("absent", 5, True), ("kube-root-ca.crt", 9, False)],
)
def test_a_mount_is_missing_for_certain_when_it_was_tried_for_long(name: str, count: int, certain: bool) -> None:
    """What somebody makes a moment later is not, nor what the cluster itself will make."""
    failed = _event("FailedMount", f'MountVolume.SetUp failed for volume "v" : configmap "{name}" not found', count=count)
    (cause,) = diagnose(_waiting("ContainerCreating"), [failed])
    assert (cause.kind, cause.certain, cause.grace) == ("Mount" if certain else "MountRetrying", certain, 0.0)


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "CreateContainerConfigError"])
def test_a_container_that_was_tried_has_its_volumes(reason: str) -> None:
    failed = _event("FailedMount", 'MountVolume.SetUp failed for volume "v" : secret "x" not found', count=5)
    assert "Mount" not in {cause.kind for cause in diagnose(_waiting(reason, "said"), [failed])}


def test_the_scheduler_means_what_it_says_now() -> None:
    """Its condition, not an earlier warning; that only until there is a condition."""
    early = _event("FailedScheduling", '0/1 nodes are available: persistentvolumeclaim "late" not found')
    assert [cause.kind for cause in diagnose(_pod({}), [early])] == ["Mount"]
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1: Insufficient cpu"}
    (cause,) = diagnose(_pod({"conditions": [condition]}), [early])
    assert (cause.kind, cause.certain) == ("Unschedulable", False)


@pytest.mark.parametrize(
    ("message", "kind", "certain"),
    [
        (
            'pods "p-0" is forbidden: error looking up service account n/default: serviceaccount "default" not found',
            "AccountMissing",
            False,
        ),
        (
            'pods "p-0" is forbidden: error looking up service account n/mine: serviceaccount "mine" not found',
            "AdmissionDenied",
            True,
        ),
        ("exceeded quota: q, requested: cpu=2, used: cpu=3, limited: cpu=4", "Quota", False),
        ("exceeded quota: q, requested: cpu=2,memory=1Gi, used: cpu=0,memory=0, limited: cpu=4,memory=512Mi", "QuotaNever", True),
        ("failed quota: q: must specify limits.cpu for: main", "QuotaNever", True),
        ('pods "a" is forbidden: violates PodSecurity "restricted:latest": privileged', "PodSecurity", True),
        ('admission webhook "x.y" denied the request: no', "AdmissionDenied", True),
        ("etcdserver: request timed out", "CreateFailed", True),
    ],
)
def test_what_keeps_pods_from_being_made_is_a_cause(message: str, kind: str, certain: bool) -> None:
    (cause,) = diagnose_owner("set", "svc", [_event("FailedCreate", message, kind="StatefulSet", name="set")])
    assert (cause.kind, cause.certain) == (kind, certain)
    assert message[:20] in cause.message


def test_the_package_is_light() -> None:
    """Neither the kubernetes package nor aiohttp comes with an import."""
    code = (
        "import sys; from sandboxcore_kubernetes import *; import sandboxcore_kubernetes.objects, sandboxcore_kubernetes.rbac\n"
        "print([name for name in ('kubernetes', 'aiohttp', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- requests ---


class _Starting:
    """Stands for an API server that starts, a state in which no test can hold a real one: it refuses what is asked first."""

    def __init__(self, status: int, message: str, times: int, *, ready: bool = False) -> None:
        self.asked: list[str] = []
        self._refusal = {"kind": "Status", "message": message}
        self._status = status
        self._times = times
        self._ready = ready

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/version":
            return web.json_response({"major": "1", "minor": "34"})
        self.asked.append(f"{request.method} {request.path}")
        if request.path == "/readyz":
            return web.Response(status=200 if self._ready or self._times <= 0 else 403)
        self._times -= 1
        return web.json_response(self._refusal, status=self._status) if self._times >= 0 else web.json_response({})


@contextlib.asynccontextmanager
async def _connected(server: _Starting, folder: Path) -> AsyncIterator[Cluster]:
    runner = web.ServerRunner(web.Server(server.answer))
    await runner.setup()
    await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
    config = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": site.name}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "n"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (folder / "config").write_text(json.dumps(config))
    try:
        async with await Cluster.connect(ClusterConfig(kubeconfig=str(folder / "config"), proxy="")) as cluster:
            yield cluster
    finally:
        await runner.cleanup()


_PATH = "/api/v1/namespaces/n/pods/p"
_NO_RIGHT = 'pods "p" is forbidden: User "u" cannot delete resource "pods" in API group "" in the namespace "n"'
_REFUSALS = {
    "rights that it has not read yet": (403, _NO_RIGHT, 2, [f"DELETE {_PATH}", "GET /readyz"] * 2 + [f"DELETE {_PATH}"]),
    "rights that it has just read": (403, _NO_RIGHT, 1, [f"DELETE {_PATH}", "GET /readyz", f"DELETE {_PATH}"]),
    "a user that it does not know yet": (401, "Unauthorized", 2, [f"DELETE {_PATH}"] * 2 + ["GET /readyz", f"DELETE {_PATH}"]),
    "admission that is not ready": (403, 'pods "p" is forbidden: not yet ready to handle request', 2, [f"DELETE {_PATH}"] * 3),
}


@pytest.mark.parametrize(("status", "message", "times", "asked"), _REFUSALS.values(), ids=_REFUSALS)
async def test_what_a_server_refuses_while_it_starts_is_asked_again(
    tmp_path: Path, status: int, message: str, times: int, asked: list[str]
) -> None:
    server = _Starting(status, message, times)
    async with _connected(server, tmp_path) as cluster:
        await cluster.request("DELETE", _PATH)
    assert server.asked == asked


@pytest.mark.parametrize(
    ("status", "message", "asked"),
    [
        (403, _NO_RIGHT, [f"DELETE {_PATH}", "GET /readyz", f"DELETE {_PATH}"]),
        (401, "Unauthorized", [f"DELETE {_PATH}"] * 2 + ["GET /readyz", f"DELETE {_PATH}"]),
        (403, 'pods "p" is forbidden: exceeded quota: q', [f"DELETE {_PATH}"]),
    ],
)
async def test_what_a_server_that_is_ready_refuses_is_told_at_once(
    tmp_path: Path, status: int, message: str, asked: list[str]
) -> None:
    server = _Starting(status, message, 1000, ready=True)
    async with _connected(server, tmp_path) as cluster:
        with pytest.raises(ApiError, match=re.escape(message)):
            await cluster.request("DELETE", _PATH)
    assert server.asked == asked


async def test_patience_ends_also_with_a_server_that_never_gets_ready(tmp_path: Path) -> None:
    async with _connected(_Starting(403, _NO_RIGHT, 1000), tmp_path) as cluster:
        with pytest.raises(ApiError, match="cannot delete"):
            await cluster.request("DELETE", _PATH, patience=0.2)


# --- waiting ---


class _NoCluster:
    """Stands where nothing is asked of a cluster."""

    def event_log(self, namespace: str) -> Any:
        from sandboxcore_kubernetes.watches import EventLog

        return EventLog(self, namespace)  # type: ignore[arg-type]


def _raw(name: str, *, ready: bool) -> dict[str, Any]:
    status = {"phase": "Running" if ready else "Pending", "conditions": [{"type": "Ready", "status": str(ready)}]}
    return {"metadata": {"name": name, "uid": name}, "spec": {"containers": [{"name": "main"}]}, "status": status}


async def test_a_change_costs_only_those_that_wait_for_it() -> None:
    """A thousand waiting: each is woken for its own pod and no other."""
    import asyncio

    from sandboxcore_kubernetes import PodWatch, wait_ready

    watch = PodWatch(_NoCluster(), "n", "")  # type: ignore[arg-type]
    names = [f"pod-{number}" for number in range(1000)]
    looked: dict[str, int] = {}

    def done(pod: PodState) -> bool:
        looked[pod.name] = looked.get(pod.name, 0) + 1
        return pod.ready

    deadline = asyncio.get_running_loop().time() + 100
    waiting = [
        asyncio.create_task(wait_ready(watch, [name], emit=lambda event: None, deadline=deadline, done=done)) for name in names
    ]
    await asyncio.sleep(0)
    for ready in (False, False, True):
        for name in names:
            watch._put(_raw(name, ready=ready))
        await asyncio.sleep(0)
    found = await asyncio.gather(*waiting)
    assert [state.name for (state,) in found] == names
    assert max(looked.values()) <= 12
    assert not watch._by_name


async def test_a_watch_that_ends_wakes_all() -> None:
    import asyncio

    from sandboxcore_kubernetes import PodWatch, wait_ready

    watch = PodWatch(_NoCluster(), "n", "")  # type: ignore[arg-type]
    deadline = asyncio.get_running_loop().time() + 100
    by_name = asyncio.create_task(wait_ready(watch, ["a"], emit=lambda event: None, deadline=deadline))
    by_label = asyncio.create_task(wait_ready(watch, labels={"a": "b"}, emit=lambda event: None, deadline=deadline))
    await asyncio.sleep(0)
    watch._failed(ApiError("no right", status=403))
    for task in (by_name, by_label):
        with pytest.raises(ApiError, match="no right"):
            await task


async def test_a_server_that_never_says_whether_it_is_ready_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first refusal takes its time."""
    monkeypatch.setattr("sandboxcore_kubernetes._transport._SILENCE", 0.2)
    server = _Starting(403, _NO_RIGHT, 1000)
    async with _connected(server, tmp_path) as cluster:
        with pytest.raises(ApiError, match="cannot delete"):
            await cluster.request("DELETE", _PATH)
        server.asked.clear()
        with pytest.raises(ApiError, match="cannot delete"):
            await cluster.request("DELETE", _PATH)
    assert server.asked == [f"DELETE {_PATH}", "GET /readyz", f"DELETE {_PATH}"]


# --- causes and their logs ---


@pytest.mark.parametrize("left", [0.1, -1.0])
async def test_a_log_that_does_not_come_costs_no_cause(left: float) -> None:
    """Whoever waits for the error gives up soon."""

    async def stalled(*_: object, **__: object) -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    watch = Mock(cluster=Mock(logs=stalled), namespace="n")
    cause = Cause(
        kind="CrashLoop", service="web", severity="error", certain=True, message="it crashes", pod="web", logs="previous"
    )
    error = await asyncio.wait_for(failure(watch, cause, left=left), 10)
    assert str(error) == "service 'web': it crashes"
