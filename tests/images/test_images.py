"""An archive of an image: made once, though two ask for it at the same time, and whole."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_two_that_ask_at_once_get_the_same_archive(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.images", "pause"]
    environment = os.environ | {"SANDBOXCORE_TEST_CACHE": str(tmp_path)}
    asking = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {process.communicate()[0] for process in asking}
    assert [process.returncode for process in asking] == [0, 0]
    assert len(printed) == 1
    archive = Path(printed.pop().strip())
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == [archive]
    with tarfile.open(archive) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    manifest = json.loads(members["manifest.json"])[0]
    assert manifest["RepoTags"] == ["sandboxcore.test/pause:1"]
    assert json.loads(members[manifest["Config"]])["rootfs"]["diff_ids"] == [
        f"sha256:{hashlib.sha256(members['layer.tar']).hexdigest()}"
    ]


def test_an_unknown_image_is_named() -> None:
    command = [sys.executable, "-m", "tests.images", "debain"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no image is called 'debain'; there are busybox, debian" in done.stderr
