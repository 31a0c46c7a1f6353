"""Makes Helm releases of environments, and takes them away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore._closing import finish
from sandboxcore.abc import Provisioner
from sandboxcore.errors import CapabilityError, ProvisionError, ProvisionTimeoutError, SandboxError
from sandboxcore.values import Event
from sandboxcore_kubernetes.diagnosis import is_used_up
from sandboxcore_kubernetes.errors import ApiError, sandbox_error

from ._charts import Charts
from ._helm import Helm
from ._leasing import RunClaim, drop_run
from ._making import Making
from ._plan import plan_release
from ._prover import Prover
from ._quota import QuotaLine
from ._removal import Remover
from ._values_needs import cilium_said

if TYPE_CHECKING:
    from sandboxcore.abc import Emit
    from sandboxcore.report import ReportEntry
    from sandboxcore.spec import EnvironmentSpec
    from sandboxcore.values import Claim, DoctorFinding, EnvironmentRef
    from sandboxcore_kubernetes.cluster import Cluster

    from ._config import HelmConfig

__all__ = ("HelmProvisioner", "Tools")

#: Seconds for undoing what was begun.
_UNDO_SECONDS = 115.0


class Tools:
    """What the environments of a session share, once the cluster is reached."""

    def __init__(self, cluster: Cluster, namespace: str, config: HelmConfig) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.config = config
        self.helm = Helm(config, namespace, None if cluster.context == "in-cluster" else cluster.context)
        self.charts = Charts(self.helm)
        self.prover = Prover(self.helm, namespace)
        self.claim = RunClaim(cluster, namespace)
        self.remover = Remover(cluster, grace=config.grace)
        #: Held while objects are being created, and not while pods start.
        self.creating = asyncio.Semaphore(config.creations_at_once)
        self.quota_line = QuotaLine()
        self._namespace_made: asyncio.Future[None] | None = None
        self._cilium: bool | None = None
        self._resolvers: dict[str, list[str]] = {}
        #: Held while the cluster is asked what it has, so that many environments ask once.
        self._asking = asyncio.Lock()

    async def has_cilium(self) -> bool:
        """Tell whether the cluster has Cilium's policies, which know names and layer 7."""
        if self._cilium is None:
            try:
                await self.cluster.request("GET", "/apis/cilium.io/v2")
                self._cilium = True
            except ApiError as error:
                if error.status not in (403, 404):
                    raise
                self._cilium = False
        return self._cilium

    async def takes_cilium(self, values: Mapping[str, Any]) -> bool:
        """Tell whether the built-in chart uses Cilium's policies: as its values say, else where the cluster has them."""
        said = cilium_said(values)
        return await self.has_cilium() if said is None else said

    async def resolvers(self, values: Mapping[str, Any]) -> list[str]:
        """Find the addresses of the cluster's resolver where pods have to be told of them; empty: not needed, or not to be known.

        Cilium refuses questions for names in a node's search domains. That ends a search, and the environment's own domain
        comes behind those unless pods have nothing but what they are told.
        """
        namespace = (values.get("dns") or {}).get("namespace") or "kube-system"
        async with self._asking:
            if not await self.takes_cilium(values):
                return []
            if namespace not in self._resolvers:
                self._resolvers[namespace] = await self._find_resolvers(namespace)
        return self._resolvers[namespace]

    async def _find_resolvers(self, namespace: str) -> list[str]:
        try:
            found = await self.cluster.list("Service", namespace=namespace, label_selector="k8s-app=kube-dns")
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            return []
        addresses = [service["spec"].get("clusterIP") for service in found["items"]]
        return [address for address in addresses if address and address != "None"]

    async def ensure_namespace(self) -> None:
        """Make the namespace where the configuration wants that."""
        if not self.config.create_namespace:
            return
        if self._namespace_made is None or (self._namespace_made.done() and self._namespace_made.exception()):
            self._namespace_made = asyncio.ensure_future(self._make_namespace())
        await asyncio.shield(self._namespace_made)

    async def _make_namespace(self) -> None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        try:
            await self.cluster.create(body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    async def aclose(self) -> None:
        """Stop what runs in the background and close the connection."""
        await self.prover.aclose()
        self.charts.close()
        await self.cluster.aclose()


class HelmProvisioner(Provisioner):
    """One release an environment."""

    # The creating has a gate of its own; waiting for pods holds nothing, so one that never fits blocks nobody.
    max_in_flight = 1_000

    def __init__(self, config: HelmConfig) -> None:
        self.config = config
        self._tools: asyncio.Future[Tools] | None = None

    async def tools(self) -> Tools:
        """Connect to the cluster, once.

        Raises:
            UsageError: The configuration is wrong.
            SandboxUnavailableError: Nobody answers there.
        """
        if self._tools is None or (self._tools.done() and (self._tools.cancelled() or self._tools.exception())):
            self._tools = asyncio.ensure_future(self._connect())
        return await asyncio.shield(self._tools)

    async def _connect(self) -> Tools:
        from sandboxcore_kubernetes.cluster import Cluster

        try:
            cluster = await Cluster.connect(self.config)
        except ApiError as error:
            raise sandbox_error(error, "the cluster can't be used") from error
        return Tools(cluster, self.namespace(cluster), self.config)

    async def cluster(self) -> Cluster:
        """Return the client of the API server."""
        return (await self.tools()).cluster

    def namespace(self, cluster: Cluster) -> str:
        """Return where environments are made."""
        return self.config.namespace or cluster.namespace

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        tools, self._tools = self._tools, None
        if tools is None:
            return
        if not tools.done():
            tools.cancel()
        elif not tools.cancelled() and tools.exception() is None:
            await tools.result().aclose()

    def check(self, spec: EnvironmentSpec) -> Sequence[ReportEntry]:
        """Tell what becomes of the spec's fields.

        Raises:
            SpecError: Options, values or services are wrong.
        """
        return plan_release(spec, self.config).entries

    async def doctor(self) -> Sequence[DoctorFinding]:
        """Check the helm program, the cluster, the rights in it and what charts may need."""
        from ._doctor import diagnose_setup

        return await diagnose_setup(self)

    # -- making

    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        """Create the release and wait until it is ready.

        Raises:
            CapabilityError: The cluster can't do what the spec asks for. Nothing was created.
            UsageError: Chart or values are wrong; with helm's message. Nothing was created.
            ProvisionError: With its cause. Nothing is left. For a quota that is used up only when the time is over: what was
                begun is taken away and tried again, whole, so that those who wait hold nothing of it.
        """
        plan = plan_release(spec, self.config)
        tools = await self.tools()
        deadline = asyncio.get_running_loop().time() + claim.timeout
        refused: ProvisionError | None = None

        def got_in() -> None:
            nonlocal refused
            refused = None

        try:
            while True:
                try:
                    if refused is None:
                        return await self._make(tools, Making(tools, spec, plan, claim, emit, deadline=deadline))
                    async with tools.quota_line.turn(deadline) as over:
                        told = _when_created(emit, got_in, over)
                        return await self._make(tools, Making(tools, spec, plan, claim, told, deadline=deadline))
                except TimeoutError as error:
                    if refused is None:
                        raise
                    late = ProvisionTimeoutError(f"not created after {claim.timeout:g} s: {refused}", hint=refused.hint)
                    for note in getattr(error, "__notes__", ()):
                        late.add_note(note)
                    raise late from refused
                except ProvisionError as error:
                    if not is_used_up(str(error)) or hasattr(error, "__notes__"):  # what it left is noted
                        raise
                    _tell_quota(emit, error)
                    refused = error
        finally:
            tools.claim.made(claim.environment_id)

    async def _make(self, tools: Tools, making: Making) -> EnvironmentRef:
        """Make it, or leave nothing; that something is left is noted on the error."""
        try:
            return await making.make()
        except BaseException as error:
            if making.begun:
                await self._undone(tools, making, error)
            if isinstance(error, ApiError):
                raise _provision_error(error, making.claim) from error
            raise

    async def _undone(self, tools: Tools, making: Making, error: BaseException) -> None:
        """Take away what was begun; that this failed is said beside what went wrong, and discovery finds what is left."""
        what = f"undoing environment {making.claim.environment_id}"
        try:
            await finish(self._undo(tools, making), seconds=_UNDO_SECONDS, what=what)
        except SandboxError as late:
            error.add_note(f"{what} failed: {late}")

    async def _undo(self, tools: Tools, making: Making) -> None:
        await making.settled()
        await tools.remover.remove(tools.namespace, making.claim.environment_id, hooks=False)
        if not making.claim.keep:
            await tools.claim.release(making.claim.environment_id)

    # -- keeping and taking away

    async def renew(self, environments: Sequence[EnvironmentRef], lease: float) -> None:
        """Move the end of the leases; environments that are gone are passed over."""
        tools = await self.tools()
        try:
            await tools.claim.renew(environments, lease)
        except ApiError as error:
            raise sandbox_error(error, "leases can't be renewed") from error

    async def destroy(self, environment: EnvironmentRef) -> None:
        """Take the release away and wait until it is gone. Idempotent.

        Raises:
            SandboxError: It is not gone; the message says why.
        """
        tools = await self.tools()
        namespace: str = environment.data.get("namespace") or tools.namespace
        try:
            if "lease" in environment.data:
                await drop_run(tools.cluster, namespace, environment.run_id)
                return
            await tools.remover.remove(namespace, environment.environment_id)
            tools.quota_line.room()
            if tools.claim.holds(environment.environment_id):
                await tools.claim.release(environment.environment_id)
            elif environment.run_id:
                await drop_run(tools.cluster, namespace, environment.run_id)
        except ApiError as error:
            raise sandbox_error(error, f"environment {environment.environment_id!r} could not be taken away") from error

    async def pause(self, environment: EnvironmentRef) -> None:
        """Refuse: pods can't be stopped and go on."""
        raise CapabilityError("pods can't be paused", hint="backends with the capability 'pause' can: docker")

    async def resume(self, environment: EnvironmentRef) -> Any:
        """Refuse: pods can't be stopped and go on."""
        raise CapabilityError("pods can't be paused")


def _tell_quota(emit: Emit, error: ProvisionError) -> None:
    emit(Event(name="service.waiting", time=time.time(), attributes={"cause": "Quota", "reason": str(error), "pod": ""}))


def _when_created(emit: Emit, *then: Callable[[], None]) -> Emit:
    """Do something when the objects of the environment are there."""

    def told(event: Event) -> None:
        if event.name == "helm.release.created":
            for call in then:
                call()
        emit(event)

    return told


def _provision_error(error: ApiError, claim: Claim) -> SandboxError:
    found = sandbox_error(error, f"environment {claim.environment_id!r} could not be made")
    return found if isinstance(found, (ProvisionError, CapabilityError)) else ProvisionError(str(found), hint=found.hint)
