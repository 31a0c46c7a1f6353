"""The making of one environment: claim, render, create, wait."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from sandboxcore._at_once import first_of
from sandboxcore.errors import CapabilityError, ProvisionError, ProvisionTimeoutError, ServiceFailedError, UsageError
from sandboxcore.values import Event
from sandboxcore_kubernetes.errors import ApiError
from sandboxcore_kubernetes.gates import Gates
from sandboxcore_kubernetes.naming import CREATED, INSTANCE, OWNER, RUN_ID, label_value

from ._creating import Creator, dressed, refusal
from ._describe import Record, environment_ref
from ._health import HealthWatch, limits
from ._helm import HelmFailedError, helm_error
from ._hookrun import hooks_at, run_hooks
from ._identity import Identity, record_annotations, record_labels
from ._manifest import objects_of
from ._markers import new_release_name
from ._pattern import NAME_SIGN, Pattern
from ._plan import Plan, merge
from ._proof import NotProvenError
from ._readiness import awaited
from ._record import record_name, record_secret, status_patch
from ._release import Release
from ._scan import early_hooks_in
from ._values_needs import cilium_said, requirements
from ._waiting import all_ready, dependencies, service_of

if TYPE_CHECKING:
    from sandboxcore.abc import Emit
    from sandboxcore.spec import EnvironmentSpec
    from sandboxcore.values import Claim, EnvironmentRef
    from sandboxcore_kubernetes.pods import PodState

    from ._charts import Chart
    from ._provisioner import Tools

__all__ = ("Making",)

_NAMES_TRIED = 5
#: Seconds past the time limit, within the one that the core grants.
_LAST_WORD = 0.6
_STRAYS_SECONDS = 0.3
#: Who it is, what it is, its objects, and its record where that is ours to finish.
_Made: TypeAlias = tuple[Identity, Release, list[dict[str, Any]], dict[str, Any] | None]


class Making:
    """One environment on its way.

    Args:
        tools: What the session shares.
        spec: As it was asked for.
        plan: The release that it becomes.
        deadline: When it has to be ready, by the loop's clock.
    """

    def __init__(self, tools: Tools, spec: EnvironmentSpec, plan: Plan, claim: Claim, emit: Emit, *, deadline: float) -> None:
        self.claim = claim
        #: Whether anything may have been created.
        self.begun = False
        self._tools = tools
        self._spec = spec
        self._plan = plan
        self._emit = emit
        self._creator = Creator(tools.cluster)
        self._deadline = deadline
        #: By the server's clock, by which its claim is judged.
        self._now = 0.0
        self._lease: str | None = None
        self._phase = "the API server"
        self._ran_helm = False
        #: What renders it: helm for this one alone, or a pattern.
        self._engine = "helm"
        #: Whether its hooks are ours to run.
        self._own_hooks = True

    async def settled(self) -> None:
        """Wait until no request is on its way any more."""
        await self._creator.settled()
        if self._ran_helm:
            # A program that was killed may have sent something that the server is still at.
            await asyncio.sleep(_STRAYS_SECONDS)

    async def make(self) -> EnvironmentRef:
        """Make it.

        Raises:
            ProvisionTimeoutError: It was not ready in time.
        """
        try:
            # What waits knows better what it waited for, and has the first word.
            async with asyncio.timeout_at(self._deadline + _LAST_WORD):
                return await self._make()
        except ProvisionTimeoutError:
            raise
        except TimeoutError:
            whose = ", ".join(repr(name) for name in self._spec.services)
            raise ProvisionTimeoutError(
                f"environment {self.claim.environment_id!r} (services {whose}) was not ready after {self.claim.timeout:g} s; "
                f"it still waited for {self._phase}"
            ) from None

    async def _make(self) -> EnvironmentRef:
        tools = self._tools
        self._now = await tools.cluster.server_time()
        self._phase = "its chart"
        chart = await tools.charts.get(self._plan.chart, version=self._plan.version, repo=self._plan.repo)
        if chart.built_in:
            await self._check_cluster()
        await tools.ensure_namespace()
        plan = await self._own_values(chart)
        pattern, plan, reason = await self._choose(chart, plan)
        self._phase = "a place to be created in"
        async with tools.creating:
            self._phase = "the API server to take its objects"
            self.begun = True
            await self._claim_it(chart)
            if pattern is not None:
                identity, release, objects, secret = await self._reserve(chart, plan, pattern)
            else:
                identity, release, objects, secret = await self._by_helm(chart, plan)
            early = [] if secret is None else hooks_at(release.hooks, "pre-install")
            if secret is not None and not early:
                await self._create_objects(identity, objects)
        if early:
            # Their pods have to start and end: nobody else's creation waits for that.
            await self._run_hooks(identity, release, "pre-install")
            self._phase = "a place to be created in"
            async with tools.creating:
                self._phase = "the API server to take its objects"
                await self._create_objects(identity, objects)
        self._say(identity, reason)
        pods = await self._ready(chart, identity, release, objects)
        return await self._finished(identity, release, secret, pods)

    # -- before anything is created

    async def _check_cluster(self) -> None:
        """Refuse what the cluster can't do.

        Raises:
            CapabilityError: Nothing was created.
        """
        if self._tools.config.guest == "carry" and any(service.get("user") for service in _services(self._plan)):
            raise CapabilityError("a user by name needs the guest's own lookup", hint="set guest to 'mount', or give a number")
        wanting = requirements(self._plan.values).cilium
        if wanting and not await self._tools.takes_cilium(self._plan.values):
            off = cilium_said(self._plan.values) is False
            lacking = "networkPolicy.cilium is false" if off else "the cluster has no Cilium"
            raise CapabilityError(
                f"{', '.join(wanting)}: {lacking}, and plain network policies can't do that",
                hint="give address ranges (allowCIDR), or use a cluster with Cilium",
            )

    async def _own_values(self, chart: Chart) -> Plan:
        """Add what the built-in chart takes from us."""
        if not chart.built_in:
            return self._plan
        ours: dict[str, Any] = {"sandboxcore": {"labels": {RUN_ID: self.claim.run_id}}}
        if self._tools.config.guest == "mount":
            # Of the run's own ConfigMap; an environment that outlives the run has one of its own.
            name = f"sandboxcore-guest-{NAME_SIGN}" if self.claim.keep else f"{lease_name(self.claim.run_id)}-guest"
            ours["guest"] = {"configMap": name}
        if any(service.get("dependsOn") for service in _services(self._plan)):
            ours["schedulingGates"] = True
        told = (self._plan.values.get("dns") or {}).get("nameservers")
        if not told and (found := await self._tools.resolvers(self._plan.values)):
            ours["dns"] = {"nameservers": found}
        return dataclasses.replace(self._plan, values=merge(self._plan.values, ours))

    async def _choose(self, chart: Chart, plan: Plan) -> tuple[Pattern | None, Plan, str]:
        """Decide for an engine; returns the pattern to fill, the plan that it is of, and why it is not one for all."""
        engine = self._tools.config.engine
        if engine == "helm":
            return None, plan, "the configuration says so"
        prover = self._tools.prover
        unfit = prover.to_be_rendered(chart, plan)
        # Each of many texts may be there once only, and helm makes one release in less time than it proves one.
        alone = engine == "render-once" or (chart.built_in and not unfit)
        reason = next(iter(unfit.values()), "")
        try:
            open_plan = plan.fixed(unfit)
            try:
                return await prover.pattern(chart, open_plan, alone=alone), open_plan, reason
            except NotProvenError as error:
                if not error.holes or not open_plan.varying:
                    raise
                reason, fixed = error.reason, plan.fixed()
                return await prover.pattern(chart, fixed, alone=engine == "render-once"), fixed, reason
        except NotProvenError as error:
            if engine == "render-once":
                raise UsageError(
                    f"chart {chart.scan.name!r} can't be rendered once: {error.reason}", hint="set engine to 'auto' or 'helm'"
                ) from None
            return None, plan, "; ".join(one for one in (reason, error.reason) if one)

    def _say(self, identity: Identity, reason: str) -> None:
        attributes = {"release": identity.release, "engine": self._engine} | ({"reason": reason} if reason else {})
        self._emit(Event(name="helm.release.created", time=time.time(), attributes=attributes))

    # -- creating

    async def _claim_it(self, chart: Chart) -> None:
        if self.claim.keep:
            return
        self._lease = await self._creator.unbroken(self._tools.claim.hold(self.claim))
        if chart.built_in and self._tools.config.guest == "mount":
            await self._creator.unbroken(self._tools.claim.guest())

    def _identity(self, release: str) -> Identity:
        return Identity(
            namespace=self._tools.namespace,
            release=release,
            run_id=self.claim.run_id,
            environment_id=self.claim.environment_id,
        )

    def _record_labels(self, identity: Identity) -> dict[str, str]:
        own = self._tools.config.labels
        return record_labels(identity, self.claim, own, engine=self._engine, lease=self._lease, now=self._now)

    @property
    def _annotations(self) -> dict[str, str]:
        values = self._plan.values.get("services")
        known = self._plan.built_in and "values" not in self._spec.options.get("helm", {})
        services = tuple(self._spec.services) if known else tuple(values) if isinstance(values, dict) else ()
        default = self._spec.default_service if known else self._spec.default or ""
        return record_annotations(self.claim, default=default, services=services, now=self._now)

    def _description(self) -> str:
        return f"Install complete; environment {self.claim.environment_id} of run {self.claim.run_id}, by {self.claim.owner}"

    async def _reserve(self, chart: Chart, plan: Plan, pattern: Pattern) -> _Made:
        """Fill in a pattern and write the record, the first thing of a release that is created natively.

        Raises:
            ProvisionError: The server refuses.
        """
        name = plan.release
        words = self._tools.prover.words(chart, plan)
        for _ in range(_NAMES_TRIED):
            chosen = name or new_release_name(self.claim.environment_id[:8], words)
            if chosen is None:
                raise ProvisionError(
                    "no release name can be found that has no word of the chart in it", hint="set engine to 'helm'"
                )
            release, objects = pattern.fill(chosen, self._tools.namespace, plan.texts)
            if await self._audited(chart, plan, release, objects):
                identity = self._identity(chosen)
                self._engine = "render-once"
                secret = await self._take_name(identity, release)
                if secret is not None:
                    return identity, release, objects, secret
                if name:
                    raise _taken(identity)
            else:
                self._tools.prover.refuse(chart, plan, "helm rendered it in another way under its own name")
                return await self._by_helm(chart, plan)
        raise ProvisionError("no free release name was found")

    async def _take_name(self, identity: Identity, release: Release) -> dict[str, Any] | None:
        """Write the record, which reserves the name; None: it is taken."""
        secret = record_secret(
            release,
            status="pending-install",
            description="Initial install underway",
            labels=self._record_labels(identity),
            annotations=self._annotations,
            first=self._now,
        )
        try:
            await self._creator.post(secret)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return None
            raise refusal(error, f"release {release.name!r} could not be recorded") from error
        return secret

    async def _run_hooks(self, identity: Identity, release: Release, event: str) -> None:
        self._phase = f"its {event} hooks"
        await run_hooks(self._tools.cluster, self._creator, identity, release.hooks, event, deadline=self._deadline)

    async def _create_objects(self, identity: Identity, objects: list[dict[str, Any]]) -> None:
        await self._own_guest(identity, self._plan.built_in)
        await self._creator.post_all([dressed(body, identity) for body in objects], identity.namespace)

    async def _own_guest(self, identity: Identity, built_in: bool) -> None:
        """Bring the guest for one that outlives its run, and the ConfigMap that runs share."""
        if self.claim.keep and built_in and self._tools.config.guest == "mount":
            name = f"sandboxcore-guest-{identity.release}"
            await self._creator.unbroken(self._tools.claim.own_guest(name, identity.labels))

    async def _audited(self, chart: Chart, plan: Plan, release: Release, objects: list[dict[str, Any]]) -> bool:
        """Compare with what helm renders under this very name, now and then; False: it differs."""
        if random.random() >= self._tools.config.audit:
            return True
        rendered = await self._rendered(chart, plan, release.name, f"chart {chart.scan.name!r}")
        return objects_of(rendered.manifest) == objects

    async def _by_helm(self, chart: Chart, plan: Plan) -> _Made:
        """Have helm create the release, or render it only where it would wait for what comes before its objects.

        Raises:
            SandboxError: With helm's message. Objects may be there.
        """
        name = plan.release or new_release_name(self.claim.environment_id[:8], ()) or self.claim.environment_id
        identity = self._identity(name)
        self._engine = "helm"
        what = f"release {name!r} of chart {chart.scan.name!r}"
        early_hooks = chart.scan.early_hooks or early_hooks_in(plan.values_for(name))
        if early_hooks and not chart.scan.definitions:
            release = await self._rendered(chart, plan, name, what)
            if hooks_at(release.hooks, "pre-install"):
                secret = await self._take_name(identity, release)
                if secret is None:
                    raise _taken(identity)
                return identity, release, objects_of(release.manifest), secret
            early_hooks = False
        self._own_hooks = not early_hooks
        labels = self._record_labels(identity)
        self._ran_helm = True
        try:
            release = await self._tools.helm.install(
                name,
                str(chart.path),
                plan.values_for(name),
                labels=labels,
                description=self._description(),
                kind=self._tools.prover.kind(chart, plan),
                hooks=early_hooks,
                timeout=max(1.0, self._deadline - asyncio.get_running_loop().time()),
            )
        except HelmFailedError as failure:
            raise helm_error(failure, what) from None
        # Not sooner: without a record nobody would find it. Pods wait for what they mount.
        await self._own_guest(identity, chart.built_in)
        await self._creator.unbroken(
            self._tools.cluster.patch(
                "Secret", record_name(name), {"metadata": {"annotations": self._annotations}}, namespace=identity.namespace
            )
        )
        return identity, release, objects_of(release.manifest), None

    async def _rendered(self, chart: Chart, plan: Plan, name: str, what: str) -> Release:
        """Have helm render a release under its own name."""
        try:
            return await self._tools.helm.dry_run(name, str(chart.path), plan.values_for(name), labels={})
        except HelmFailedError as failure:
            raise helm_error(failure, what) from None

    # -- until it is ready

    async def _ready(self, chart: Chart, identity: Identity, release: Release, objects: list[dict[str, Any]]) -> list[PodState]:
        self._phase = "its pods"
        cluster = self._tools.cluster
        own = f"{RUN_ID}={label_value(self.claim.run_id)}"
        selector = own if chart.built_in else INSTANCE
        shown = functools.partial(_is_shown, identity, chart.built_in)
        wanted = awaited(objects, shown=shown, jobs=self._tools.config.wait_for_jobs)
        async with cluster.pods(identity.namespace, selector) as watch:
            checked = self._checked(objects)
            gates = Gates(cluster, watch, dependencies(objects), identity.namespace)
            with gates, HealthWatch(watch, checked) as health:
                work = all_ready(cluster, watch, identity, wanted, emit=self._emit, deadline=self._deadline)
                await first_of(work, gates.failed(), health.failed())
            if self._own_hooks:
                await self._run_hooks(identity, release, "post-install")
            pods = [pod for pod in watch.pods.values() if pod.labels.get(INSTANCE) == identity.release]
        if not any(pod.service for pod in pods):
            raise ProvisionError(
                f"release {identity.release!r} of chart {chart.scan.name!r} has no sandbox",
                hint="a sandbox is a pod with the labels app.kubernetes.io/instance (the release's name) and inspect/service",
            )
        return pods

    def _checked(self, objects: list[dict[str, Any]]) -> dict[str, int]:
        """Map pods of services that the spec has a health check for to how often it may fail."""
        if not self._plan.built_in or "values" in self._spec.options.get("helm", {}):
            return {}
        by_service = limits(self._spec)
        pods = {body["metadata"]["name"]: service_of(body) for body in objects if body["kind"] == "Pod"}
        return {name: by_service[service] for name, service in pods.items() if service in by_service}

    async def _finished(
        self, identity: Identity, release: Release, secret: dict[str, Any] | None, pods: list[PodState]
    ) -> EnvironmentRef:
        self._phase = "its record"
        cluster = self._tools.cluster
        labels = self._record_labels(identity)
        if secret is not None:
            change = status_patch(secret, release, status="deployed", description=self._description())
            await self._creator.unbroken(cluster.patch("Secret", record_name(release.name), change, namespace=identity.namespace))
        described = {
            "metadata": {
                "namespace": identity.namespace,
                "labels": {**labels, "name": identity.release, "status": "deployed", "version": "1"},
                "annotations": self._annotations | {OWNER: self.claim.owner, CREATED: repr(self._now)},
            }
        }
        ref = environment_ref(Record([described], ahead=await cluster.clock_ahead()), pods, {})
        failed = next((one for one in ref.sandboxes if one.service == ref.default and one.state == "completed"), None)
        if failed is not None:
            raise ServiceFailedError(f"{ref.default}: its command ended, with status 0", service=ref.default)
        return ref


def _taken(identity: Identity) -> ProvisionError:
    return ProvisionError(f"release {identity.release!r} exists already in namespace {identity.namespace!r}")


def _is_shown(identity: Identity, by_run: bool, metadata: Mapping[str, Any]) -> bool:
    """Tell whether the watch shows pods with this metadata, as those of the release."""
    name, value = (RUN_ID, label_value(identity.run_id)) if by_run else (INSTANCE, identity.release)
    here = metadata.get("namespace") in (None, identity.namespace)
    return here and (metadata.get("labels") or {}).get(name) == value


def lease_name(run_id: str) -> str:
    """Name the Lease of a run."""
    from sandboxcore_kubernetes.leases import lease_name as name

    return name(run_id)


def _services(plan: Plan) -> list[dict[str, Any]]:
    services = plan.values.get("services")
    found = services.values() if isinstance(services, dict) else ()
    return [service for service in found if isinstance(service, dict)]
