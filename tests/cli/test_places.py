"""The two ends of a copy, and where things land."""

from __future__ import annotations

import pytest

from sandboxcore.cli._places import Local, Place, Remote, Stream, landing, parse_place
from sandboxcore.errors import UsageError


def remote(environment: str, service: str | None, path: str) -> Remote:
    return Remote(environment=environment, service=service, path=path)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("env1:/a/b", remote("env1", None, "/a/b")),
        ("env1:a", remote("env1", None, "a")),
        ("env1:web:/a", remote("env1", "web", "/a")),
        ("env1:web.1:a/b", remote("env1", "web.1", "a/b")),
        ("env1:target_env:/a:b", remote("env1", "target_env", "/a:b")),
        ("env1::/a:b", remote("env1", None, "/a:b")),
        ("env1:/a:b", remote("env1", None, "/a:b")),
        ("env1:./a:b", remote("env1", None, "./a:b")),
        ("/abs:path", Local(path="/abs:path")),
        ("./rel:path", Local(path="./rel:path")),
        ("../a", Local(path="../a")),
        ("dir/with:colon", Local(path="dir/with:colon")),
        ("~/x:y", Local(path="~/x:y")),
        ("plain", Local(path="plain")),
        (":x", Local(path=":x")),
        ("-", Stream()),
        ("./-", Local(path="./-")),
    ],
)
def test_a_place_is_read_as_it_looks(text: str, place: Place) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize("text", ["env1:", "env1:web:", "env1::", ""])
def test_a_place_without_a_path_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a path is missing"):
        parse_place(text)


FILE, DIRECTORY = False, True


@pytest.mark.parametrize(
    ("source", "is_directory", "target", "kind", "lands"),
    [
        # As in the table of `docker cp`.
        ("/a/f", FILE, "/t", None, "/t"),
        ("/a/f", FILE, "/t", "file", "/t"),
        ("/a/f", FILE, "/t", "directory", "/t/f"),
        ("/a/f", FILE, "/t/", "directory", "/t/f"),
        ("/a/d", DIRECTORY, "/t", None, "/t"),
        ("/a/d", DIRECTORY, "/t/", None, "/t/"),
        ("/a/d", DIRECTORY, "/t", "directory", "/t/d"),
        ("/a/d/", DIRECTORY, "/t/", "directory", "/t/d"),
        ("/a/d/.", DIRECTORY, "/t", "directory", "/t"),
        ("/a/d/.", DIRECTORY, "/t", None, "/t"),
        (".", DIRECTORY, "/t", "directory", "/t"),
        ("..", DIRECTORY, "/t", "directory", "/t"),
        ("/", DIRECTORY, "/t", None, "/t"),
    ],
)
def test_things_land_where_docker_cp_puts_them(
    source: str, is_directory: bool, target: str, kind: str | None, lands: str
) -> None:
    assert landing(source, target, source_is_directory=is_directory, target_kind=kind) == lands


@pytest.mark.parametrize(
    ("is_directory", "target", "kind", "message"),
    [
        (DIRECTORY, "/t", "file", "is a file"),
        (FILE, "/t/", None, "no such directory"),
        (FILE, "/t/", "file", "not a directory"),
    ],
)
def test_what_can_not_land_is_refused(is_directory: bool, target: str, kind: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        landing("/a/x", target, source_is_directory=is_directory, target_kind=kind)
