"""The daemon that keeps the packet filter as the cluster's NetworkPolicies want it; runs in the cluster's network."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

from ._layout import Layout
from ._network import BRIDGE
from ._policy import ROOTS, Key, Object, Rules, Snapshot, rules

#: Field of a snapshot to the API's path of its objects.
KINDS = {"pods": "/api/v1/pods", "namespaces": "/api/v1/namespaces", "policies": "/apis/networking.k8s.io/v1/networkpolicies"}


class Enforcer:
    """Mirrors the objects from watches, and swaps the whole rule set in when it changes."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.objects: dict[str, dict[Key, Object]] = {kind: {} for kind in KINDS}
        self.listed = {kind: threading.Event() for kind in KINDS}
        self.changed = threading.Event()
        #: Files of pods that have an address, in the order in which they came, so that a pod's newest one counts.
        self.starting: dict[Path, tuple[Key, str]] = {}
        self.applied: Rules | None = None
        self.chains: set[str] = set()

    def run(self) -> None:
        """Enforce for ever."""
        for chain, base in ROOTS.items():
            for argv in (["-N", chain], ["-C", base, "-j", chain]):
                done = subprocess.run(["iptables", "-w", "-t", "mangle", *argv], capture_output=True, check=False)
            if done.returncode:
                subprocess.run(["iptables", "-w", "-t", "mangle", "-A", base, "-j", chain], check=True)
        for kind in KINDS:
            threading.Thread(target=self.follow, args=(kind,), daemon=True).start()
        for listed in self.listed.values():
            listed.wait()
        while True:
            self.changed.wait(0.05)
            self.changed.clear()
            new = self.look_for_pods()
            if self.apply(dict(self.starting.values())):
                for path in new:
                    path.with_suffix(".done").touch()
            else:
                for path in new:
                    del self.starting[path]

    def look_for_pods(self) -> list[Path]:
        """Read which pods got an address, as the network plugin `register_pod.py` writes it, and return what is new.

        A pod that the watches have not told of yet, or not all policies of its namespace, is left for the next look: without
        them it would start open.
        """
        there = set((self.layout.root / "run" / "pods").glob("*.pod"))
        for path in self.starting.keys() - there:
            del self.starting[path]
        new: dict[Path, tuple[Key, str]] = {}
        for path in sorted(there - self.starting.keys()):
            with contextlib.suppress(FileNotFoundError):  # it has ended since
                namespace, name, address = path.read_text().split()
                if (namespace, name) in self.objects["pods"]:
                    new[path] = (namespace, name), address
        current = {namespace for namespace in {key[0] for key, _ in new.values()} if self.is_current(namespace)}
        new = {path: (key, address) for path, (key, address) in new.items() if key[0] in current}
        self.starting |= new
        return list(new)

    def is_current(self, namespace: str) -> bool:
        """Say whether the watch has told of a namespace's policies as they are now."""
        try:
            path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
            listed = json.loads(self.get(path, timeout=5).read())["items"]
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            say(f"policies of {namespace}: {error!r}")
            return False
        known = [item for key, item in dict(self.objects["policies"]).items() if key[0] == namespace]
        return {version_of(item) for item in listed} == {version_of(item) for item in known}

    def apply(self, addresses: dict[Key, str]) -> bool:
        """Bring the packet filter up to date; false if that failed."""
        kinds = {kind: dict(items) for kind, items in self.objects.items()}
        wanted = rules(Snapshot(**kinds, addresses=addresses), BRIDGE)
        if wanted == self.applied:
            return True
        argv = ["iptables-restore", "-w", "--noflush"]
        done = subprocess.run(argv, input=wanted.text(self.chains), text=True, capture_output=True, check=False)
        say(f"{len(wanted.lines)} rules {done.stderr.strip()}")
        self.applied = None if done.returncode else wanted
        self.chains = self.chains | {*wanted.chains} if done.returncode else {*wanted.chains}
        return done.returncode == 0

    def follow(self, kind: str) -> None:
        """Mirror one kind for ever: list, then watch from there; again when the watch ends."""
        while True:
            try:
                self.follow_once(kind)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                say(f"watch of {kind}: {error!r}")
                time.sleep(0.3)

    def follow_once(self, kind: str) -> None:
        listed = json.loads(self.get(KINDS[kind]).read())
        self.objects[kind] = {key_of(item): item for item in listed["items"]}
        self.listed[kind].set()
        self.changed.set()
        version = listed["metadata"]["resourceVersion"]
        for line in self.get(f"{KINDS[kind]}?watch=1&resourceVersion={version}&timeoutSeconds=600"):
            event = json.loads(line)
            if event["type"] == "ERROR":
                return
            if event["type"] == "DELETED":
                self.objects[kind].pop(key_of(event["object"]), None)
            else:
                self.objects[kind][key_of(event["object"])] = event["object"]
            self.changed.set()

    def get(self, path: str, timeout: float = 660) -> http.client.HTTPResponse:
        pki = self.layout.root / "pki"
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        connection = http.client.HTTPSConnection("127.0.0.1", 6443, context=context, timeout=timeout)
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(f"{response.status} {response.reason}")
        return response


def key_of(item: Object) -> Key:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def version_of(item: Object) -> str:
    return str(item["metadata"]["resourceVersion"])


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)  # noqa: T201
