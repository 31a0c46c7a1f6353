"""The last plugin in the network's chain: a pod starts only when the policies that select it are in the packet filter.

It tells `_enforce` of the pod's address by a file in the folder that the network's configuration names, and waits for
the answer, a file beside it (10 seconds at most). Protocol: the Container Network Interface specification, 0.4.0.
"""

# It runs once a pod, and pathlib would be half of its time; stdout is its protocol.
# ruff: noqa: PTH104, PTH108, PTH110, PTH118, PTH123, T201

import contextlib
import json
import os
import sys
import time


def add(container: str, result: dict) -> dict:
    """Register a pod's address, and return the answer to the runtime."""
    words = dict(pair.split("=", 1) for pair in os.environ.get("CNI_ARGS", "").split(";") if "=" in pair)
    address = result["ips"][0]["address"].split("/")[0]
    with open(container + ".part", "w") as file:
        file.write(f"{words.get('K8S_POD_NAMESPACE', '-')} {words.get('K8S_POD_NAME', '-')} {address}")
    os.rename(container + ".part", container + ".pod")
    deadline = time.monotonic() + 10
    while not os.path.exists(container + ".done"):
        if time.monotonic() > deadline:
            return {"cniVersion": "0.4.0", "code": 100, "msg": "network policies are not enforced in time"}
        time.sleep(0.01)
    return result


def delete(container: str) -> None:
    """Forget a pod; idempotent."""
    for end in (".pod", ".done"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(container + end)


def main() -> int:
    """Do what the runtime asks for, and return the exit status."""
    command = os.environ["CNI_COMMAND"]
    if command == "VERSION":
        print(json.dumps({"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0"]}))
        return 0
    config = json.load(sys.stdin)
    container = os.path.join(config["folder"], os.environ["CNI_CONTAINERID"])
    if command == "ADD":
        answer = add(container, config["prevResult"])
        print(json.dumps(answer))
        return 1 if "code" in answer else 0
    if command == "DEL":
        delete(container)
    return 0


if __name__ == "__main__":
    sys.exit(main())
