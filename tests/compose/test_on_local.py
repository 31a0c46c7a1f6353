"""Compose files that run: on the local backend, with this machine's own userland."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxcore import Session
from sandboxcore.report import Loss

pytestmark = pytest.mark.tier("local")

COMPOSE = """
services:
  default:
    image: ${IMAGE:-agent}
    command: sleep 600
    environment: {GREETING: "hello ${NAME}", NUMBER: 1.50}
    volumes: ["shared:/shared", "./data:/data:ro"]
    configs: [{source: settings, target: /tmp/settings, mode: 0400}]
    working_dir: /tmp
    depends_on: {setup: {condition: service_completed_successfully}, db_1: {condition: service_healthy}}
  db_1:
    image: db
    command: ["sh", "-c", "echo up > /tmp/up; exec sleep 600"]
    healthcheck: {test: test -e /tmp/up, interval: 1s}
    volumes: ["shared:/shared:ro"]
  setup:
    image: db
    command: ["sh", "-c", "echo made > /shared/made"]
    volumes: ["shared:/shared"]
volumes: {shared: }
configs: {settings: {content: "name=${NAME}"}}
"""


async def test_a_project_runs_as_it_says(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("from this machine")
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE)
    async with Session(backend="local") as session, session.environment(file, variables={"NAME": "me"}) as environment:
        assert set(environment.names) >= {"default", "db_1"}
        assert environment.names[0] == "default"
        shown = await environment.default.exec(
            ["sh", "-c", 'echo "$GREETING $NUMBER"; pwd; cat /tmp/settings /data/file /shared/made']
        )
        assert shown.text() == "hello me 1.5\n/tmp\nname=mefrom this machinemade\n"
        refused = await environment["db_1"].exec(["sh", "-c", "echo x > /shared/other"])
        assert not refused.ok
        assert any(entry.loss is Loss.APPROX and entry.key.endswith("image") for entry in environment.report.entries)


@pytest.mark.parametrize("case", ["A-256fb4922c", "C-16d3a77715", "C-02b2783879", "K-4a66489b75", "A-522a26ae09"])
async def test_real_files_run(corpus: Path, case: str) -> None:
    (file,) = [path for path in (corpus / case / "in").iterdir() if path.suffix in (".yml", ".yaml")]
    async with Session(backend="local") as session, session.environment(file) as environment:
        assert (await environment.default.exec(["true"])).ok
        assert environment.report.of(Loss.APPROX, Loss.POLICY)
