"""Images without Docker: archives, layers, overlays, and what an image says about itself."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxcore.errors import ProvisionError, ServiceFailedError, SpecError
from sandboxcore.local._image import open_image
from sandboxcore.spec import EnvironmentSpec, ServiceSpec

from .conftest import Backend, base_layer, layer, program_files, save_image

MakeBackend = Callable[..., Backend]


@pytest.fixture
def with_image(make_backend: MakeBackend, image: Path) -> Backend:
    return make_backend(rootfs={"test:1": image})


async def test_an_image_runs_as_it_says(with_image: Backend) -> None:
    made = await with_image.make(image="test:1")
    await with_image.assert_log(made, b"from the image\n")
    assert await made.output("sh", "-c", "pwd; echo $FROM_IMAGE $PATH") == "/var/data\nyes /bin"
    assert await made.output("cat", "/etc/original") == "as it came"
    assert not (await made.run("ls", "/usr/bin")).ok


async def test_the_spec_overrides_the_image_by_the_rules_of_oci(with_image: Backend) -> None:
    only_command = await with_image.make(image="test:1", command=("echo mine; sleep 1000",))
    await with_image.assert_log(only_command, b"mine\n")
    entrypoint = await with_image.make(
        image="test:1", entrypoint=("sleep", "1000"), env={"FROM_IMAGE": "no"}, working_dir="/made/here"
    )
    assert await with_image.logs(entrypoint) == b""
    assert await entrypoint.output("sh", "-c", "pwd; echo $FROM_IMAGE") == "/made/here\nno"


async def test_sandboxes_of_one_image_do_not_see_each_others_changes(with_image: Backend) -> None:
    spec = EnvironmentSpec(services=dict.fromkeys(("a", "b"), ServiceSpec(image="test:1")))
    made = await with_image.make(spec)
    await made.output("sh", "-c", "echo changed > /etc/original; rm /var/data/lower; mkdir /new", service="a")
    assert await made.output("cat", "/etc/original", service="b") == "as it came"
    assert await made.output("ls", "/var/data", service="b") == "lower"
    assert await made.output("ls", "/var/data", service="a") == ""
    again = await with_image.make(image="test:1")
    assert await again.output("cat", "/etc/original") == "as it came"


async def test_owners_and_users_are_the_images(with_image: Backend) -> None:
    if not with_image.provisioner.mapping.several_users:
        pytest.skip("several users are needed")
    made = await with_image.make(image="test:1", user="worker", working_dir="/home/worker/app")
    assert await made.output("id") == "uid=1234(worker) gid=1235(workers) groups=1235(workers),1236(extra)"
    assert await made.output("stat", "-c", "%u:%g %a", "/var/data/lower") == "1234:1235 640"
    assert await made.output("cat", "/var/data/lower") == "lower"
    assert await made.output("stat", "-c", "%u:%g", ".") == "1234:1235"
    await made.output("touch", "own")
    assert not (await made.run("touch", "/etc/not-mine")).ok
    assert await made.output("id", "-u", user="0") == "0"


async def test_an_unknown_user_is_named(with_image: Backend) -> None:
    if not with_image.provisioner.mapping.several_users:
        pytest.skip("several users are needed")
    with pytest.raises(ProvisionError, match="no-such-user"):
        await with_image.make(image="test:1", user="no-such-user")
    assert await with_image.all() == []


async def test_network_files_are_the_sandboxes(with_image: Backend) -> None:
    made = await with_image.make(image="test:1", hostname="box", extra_hosts={"far": ("10.1.2.3",)})
    hosts = await made.output("cat", "/etc/hosts")
    assert "10.1.2.3 far" in hosts
    assert "127.0.1.1 default box" in hosts
    assert await made.output("cat", "/etc/hostname") == "box"


async def test_volumes_are_filled_from_the_image_unless_told_not_to(with_image: Backend) -> None:
    made = await with_image.make(image="test:1", volumes=({"target": "/var/data"}, {"target": "/etc", "no_copy": True}))
    assert await made.output("cat", "/var/data/lower") == "lower"
    assert not (await made.run("cat", "/etc/original")).ok


async def test_files_are_put_over_the_image(with_image: Backend) -> None:
    files = {
        "/etc/original": {"content": b"new", "mode": 0o600},
        "/deep/er/file": {"content": b"\0\xff", "mode": 0o444, "read_only": True},
    }
    made = await with_image.make(image="test:1", files=files)
    assert await made.output("cat", "/etc/original") == "new"
    assert await made.output("stat", "-c", "%a", "/etc/original") == "600"
    assert (await made.run("cat", "/deep/er/file")).stdout == b"\0\xff"
    assert not (await made.run("sh", "-c", "echo x > /deep/er/file")).ok
    assert not (await made.run("rm", "/deep/er/file")).ok


async def test_an_image_is_unpacked_once_by_many_at_the_same_time(with_image: Backend) -> None:
    await asyncio.gather(*(with_image.make(image="test:1") for _ in range(5)))
    assert len(list(with_image.provisioner.state.rootfs.iterdir())) == 1


async def test_layers_hide_and_replace(make_backend: MakeBackend, tmp_path: Path) -> None:
    second = layer(
        [
            ("var/data/.wh.lower", b"", {}),
            ("var/data/upper", b"upper", {}),
            ("opt", None, {}),
            ("opt/one", b"1", {}),
            ("opt/two", b"2", {}),
            ("opt/hard", b"", {"type": tarfile.LNKTYPE, "linkname": "opt/one", "size": 0}),
            ("opt/link", b"", {"type": tarfile.SYMTYPE, "linkname": "/opt/two", "size": 0}),
        ],
        compress=True,
    )
    third = layer([("opt/three", b"3", {}), ("opt/.wh..wh..opq", b"", {}), ("etc/original", None, {})])
    config = {"Env": ["PATH=/bin"]}
    two = save_image(tmp_path / "two.tar", [base_layer(), second], config)
    three = save_image(tmp_path / "three.tar", [base_layer(), second, third], config)
    backend = make_backend(rootfs={"two": two, "three": three})
    made = await backend.make(image="two")
    assert await made.output("ls", "/var/data") == "upper"
    assert await made.output("cat", "/opt/hard", "/opt/link") == "12"
    assert await made.output("stat", "-c", "%h", "/opt/one") == "2"
    made = await backend.make(image="three")
    assert await made.output("ls", "/opt") == "three"
    assert await made.output("stat", "-c", "%F", "/etc/original") == "directory"


async def test_no_layer_can_write_outside(make_backend: MakeBackend, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    evil = layer(
        [
            ("../../../../../../../../../../" + str(outside / "dots").lstrip("/"), b"x", {}),
            ("escape", b"", {"type": tarfile.SYMTYPE, "linkname": str(outside), "size": 0}),
            ("escape/linked", b"x", {}),
        ]
    )
    backend = make_backend(rootfs={"evil": save_image(tmp_path / "evil.tar", [base_layer(), evil], {"Env": ["PATH=/bin"]})})
    made = await backend.make(image="evil")
    assert list(outside.iterdir()) == []
    assert await made.output("cat", f"{outside}/dots") == "x"


async def test_a_damaged_layer_is_refused(make_backend: MakeBackend, tmp_path: Path) -> None:
    blob, _ = base_layer()
    archive = save_image(tmp_path / "bad.tar", [(blob, "sha256:" + "0" * 64)], {})
    backend = make_backend(rootfs={"bad": archive})
    with pytest.raises(ProvisionError, match="damaged"):
        await backend.make(image="bad")
    assert list(backend.provisioner.state.rootfs.iterdir()) == []
    assert await backend.all() == []


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
async def test_what_is_no_image_is_refused_before_anything_is_made(
    make_backend: MakeBackend, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "file.tar"
    if content is None:
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo("a"))
    else:
        path.write_bytes(content)
    backend = make_backend(rootfs={"x": path})
    with pytest.raises(SpecError, match=r"file\.tar"):
        await backend.make(image="x")
    assert await backend.all() == []


async def test_a_missing_rootfs_is_refused(make_backend: MakeBackend, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="does not exist"):
        await make_backend(rootfs={"default": tmp_path / "nothing"}).make()


async def test_an_oci_layout_and_a_directory_work_too(make_backend: MakeBackend, tmp_path: Path, image: Path) -> None:
    layout = oci_layout(tmp_path / "layout", base_layer(), {"Env": ["PATH=/bin"], "Cmd": ["sleep", "1000"]})
    tree = tmp_path / "tree"
    for name, source in program_files().items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(source.read_bytes())
        (tree / name).chmod(0o755)
    with tarfile.open(tmp_path / "layout.tar.gz", "w:gz") as archive:
        archive.add(layout, ".")
    backend = make_backend(rootfs={"layout": layout, "archive": tmp_path / "layout.tar.gz"})
    for name in ("layout", "archive"):
        made = await backend.make(image=name)
        assert await made.output("cat", "/etc/original") == "as it came"
    made = await backend.make(options={"local": {"rootfs": str(tree)}}, env={"PATH": "/bin"})
    assert await made.output("stat", "-c", "%u", "/bin/sh") == "0"
    await made.output("touch", "/bin/new")
    assert not (tree / "bin/new").exists()


def oci_layout(path: Path, blob: tuple[bytes, str], config: dict[str, Any]) -> Path:
    """Write an OCI image layout with one image for this machine and one for another."""
    import hashlib
    import platform

    def put(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (path / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        (path / "blobs/sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    document = json.dumps({"config": config, "rootfs": {"diff_ids": [blob[1]]}}).encode()
    manifest = put(json.dumps({"config": put(document), "layers": [put(blob[0])]}).encode())
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    other = {**put(b"{}"), "platform": {"os": "linux", "architecture": "pdp11"}}
    index = {"manifests": [other, {**manifest, "platform": {"os": "linux", "architecture": architecture}}]}
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (path / "index.json").write_text(json.dumps(index))
    return path


async def test_an_unpacking_that_was_killed_is_swept(with_image: Backend) -> None:
    backend = with_image
    backend.provisioner.state.ensure()
    left = backend.provisioner.state.rootfs / ".unpack-left"
    (left / "tree").mkdir(parents=True)
    await backend.make(image="test:1")
    assert not left.exists()


async def test_an_images_healthcheck_counts(make_backend: MakeBackend, tmp_path: Path) -> None:
    check = {"Test": ["CMD-SHELL", "echo no; exit 7"], "Interval": 200_000_000, "Retries": 1}
    config = {"Env": ["PATH=/bin"], "Cmd": ["sleep", "1000"], "Healthcheck": check}
    backend = make_backend(rootfs={"x": save_image(tmp_path / "x.tar", [base_layer()], config)})
    with pytest.raises(ServiceFailedError, match="exit code 7"):
        await backend.make(image="x")
    await backend.make(image="x", healthcheck={"test": ("NONE",)})


def test_unpacking_needs_little_memory(tmp_path: Path) -> None:
    """300 MB in a layer do not go through memory at once."""
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(300 << 20)
    import hashlib

    plain = tmp_path / "layer.tar"
    with tarfile.open(plain, "w") as archive:
        archive.add(big, "big")
    with plain.open("rb") as stream:
        digest = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    document = json.dumps({"rootfs": {"diff_ids": [digest]}}).encode()
    path = tmp_path / "image.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in (
            ("c.json", document),
            ("manifest.json", json.dumps([{"Config": "c.json", "Layers": ["layer.tar"]}]).encode()),
        ):
            (tmp_path / name).write_bytes(data)
            archive.add(tmp_path / name, name)
        archive.add(plain, "layer.tar")
    with open_image(path) as image:
        assert image.layers == ("layer.tar",)
    if os.geteuid() != 0:
        return
    # VmHWM and not ru_maxrss: for a process itself that one begins with the size of who forked it, here pytest.
    code = (
        "import pathlib,re,resource,sys;from sandboxcore.local.unpack import main;status=main(sys.argv[1:]);"
        "own=int(re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1]);"
        "print(status, max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", code, str(path), str(tmp_path / "out"), "0"]
    status, kilobytes = subprocess.check_output(argv, env=environment, text=True).split()
    assert status == "0"
    assert int(kilobytes) < 100 * 1024
    assert (tmp_path / "out/tree/big").stat().st_size == 300 << 20
