"""Commands: what goes in, what comes out, as whom and where (EXEC-1 to 8, 11 and 15 to 17)."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

import pytest

from sandboxcore.errors import SandboxFileError, SandboxFileNotFoundError, SandboxUserUnsupportedError

from ._conformance import Conformance, needs, sh, shell_free
from .target import Target, changed

if TYPE_CHECKING:
    from sandboxcore.environment import Sandbox
    from sandboxcore.session import Session
    from sandboxcore.spec import EnvironmentSpec

__all__ = ("ExecConformance",)

EVERY_BYTE = bytes(range(256))


class ExecConformance(Conformance):
    """A command's argv, stdin, output, status, environment, directory and user."""

    @pytest.mark.parametrize(
        "word", ["", " ", "a b", "'", '"', "$HOME", "*", "`id`", "two\nlines", "-n", "--", ";", "\\", "é漢🐚", "\x7f\x01"]
    )
    async def test_an_argument_is_taken_as_it_is(self, sandbox: Sandbox, word: str) -> None:
        """EXEC-1."""
        result = await sandbox.exec(sh('printf "<%s>" "$#" "$@"', "first", word))
        assert result.stdout == f"<2><first><{word}>".encode()

    async def test_argv_is_not_split(self, sandbox: Sandbox) -> None:
        """EXEC-1: a line as the only word is the name of a program that does not exist."""
        result = await sandbox.exec(["echo hello"])
        assert (result.exit_code, result.stdout) == (127, b"")

    @shell_free
    async def test_a_string_is_refused(self, sandbox: Sandbox) -> None:
        """EXEC-1: a string is a sequence of strings too, so it has to be told apart."""
        with pytest.raises(TypeError):
            await sandbox.exec("true")

    async def test_long_arguments_arrive(self, sandbox: Sandbox) -> None:
        """EXEC-1: as long as the kernel takes them."""
        result = await sandbox.exec(sh('echo "$#" "${#1}"', "x" * 100_000, *["y"] * 1000))
        assert result.stdout == b"1001 100000\n"

    async def test_stdin_arrives_untouched(self, sandbox: Sandbox) -> None:
        """EXEC-2, EXEC-4."""
        result = await sandbox.exec(["cat"], stdin=EVERY_BYTE + b"\r\n\x00 no newline")
        assert result.stdout == EVERY_BYTE + b"\r\n\x00 no newline"

    async def test_much_stdin_arrives(self, sandbox: Sandbox) -> None:
        """EXEC-2: more than any pipe or frame holds."""
        data = EVERY_BYTE * (6 << 12)
        result = await sandbox.exec(["cat"], stdin=data)
        assert result.stdout == data

    @pytest.mark.parametrize("stdin", [None, b""])
    async def test_without_stdin_it_ends_at_once(self, sandbox: Sandbox, stdin: bytes | None) -> None:
        """EXEC-2."""
        result = await sandbox.exec(["cat"], stdin=stdin, timeout=10)
        assert (result.exit_code, result.stdout) == (0, b"")

    async def test_stdin_that_nobody_reads_is_no_error(self, sandbox: Sandbox) -> None:
        """EXEC-2: the command's own status is the result."""
        result = await sandbox.exec(sh("exit 3"), stdin=bytes(1 << 20))
        assert result.exit_code == 3

    async def test_the_streams_come_apart(self, sandbox: Sandbox) -> None:
        """EXEC-3."""
        result = await sandbox.exec(sh("echo out; echo err >&2; echo out again"))
        assert (result.stdout, result.stderr) == (b"out\nout again\n", b"err\n")

    @pytest.mark.parametrize("data", [b"\xff\x00\r\n", b"a\r\nb\rc", b"no newline", b"", b"\n\n\n", b"\xc2"])
    async def test_output_is_untouched(self, sandbox: Sandbox, data: bytes) -> None:
        """EXEC-4."""
        escaped = "".join(f"\\{byte:03o}" for byte in data)
        result = await sandbox.exec(sh('printf "$1"; printf "$1" >&2', escaped))
        assert (result.stdout, result.stderr) == (data, data)

    @pytest.mark.parametrize("status", [0, 1, 2, 42, 125, 126, 127, 128, 129, 200, 255])
    async def test_the_programs_status_is_the_result(self, sandbox: Sandbox, status: int) -> None:
        """EXEC-5."""
        result = await sandbox.exec(sh(f"echo said; exit {status}"))
        assert (result.exit_code, result.signal, result.stdout) == (status, 0, b"said\n")

    @pytest.mark.parametrize("number", [1, 2, 6, 9, 13, 15])
    async def test_a_signal_shows_as_128_and_its_number(self, sandbox: Sandbox, number: int) -> None:
        """EXEC-5."""
        result = await sandbox.exec(sh(f"echo said; kill -{number} $$; sleep 5"))
        assert (result.exit_code, result.signal, result.stdout) == (128 + number, number, b"said\n")

    async def test_a_program_can_not_forge_its_status(self, sandbox: Sandbox) -> None:
        """EXEC-6: whatever it writes, and into whatever it has open."""
        script = r"""
        forged='{"metadata":{},"status":"Success","exit_code":0}'
        for n in 1 2 3 4 5 6 7 8 9; do
            (printf '\000\000\000\005\000\000\000\000\000\000\000\000exit 0\n0\n%s\n' "$forged" >&$n) 2>/dev/null
        done
        exit 7
        """
        result = await sandbox.exec(sh(script))
        assert result.exit_code == 7

    async def test_a_program_that_closes_its_output_keeps_its_status(self, sandbox: Sandbox) -> None:
        """EXEC-6: the end of the output is not the end of the program."""
        result = await sandbox.exec(sh("exec >&- 2>&- <&-; sleep 0.3; exit 9"))
        assert result.exit_code == 9

    @shell_free
    @pytest.mark.parametrize("program", ["/no/such/program", "no-such-program-anywhere", "./not-here"])
    async def test_a_missing_program_is_127(self, sandbox: Sandbox, program: str) -> None:
        """EXEC-7."""
        result = await sandbox.exec([program], stdin=b"unread")
        assert (result.exit_code, result.stdout) == (127, b"")

    async def test_what_is_not_executable_is_126(self, sandbox: Sandbox, scratch: str) -> None:
        """EXEC-7."""
        await sandbox.exec(sh('echo "echo ran" > "$1/plain" && chmod 644 "$1/plain"', scratch))
        for path in (f"{scratch}/plain", scratch):
            result = await sandbox.exec([path])
            assert (path, result.exit_code, result.stdout) == (path, 126, b"")

    async def test_a_program_is_looked_up_in_the_commands_path(self, sandbox: Sandbox, scratch: str) -> None:
        """EXEC-7, EXEC-16: the command's own ``PATH`` counts for the command."""
        await sandbox.exec(sh('printf "#!/bin/sh\nexit 21\n" > "$1/lookup-me" && chmod 755 "$1/lookup-me"', scratch))
        result = await sandbox.exec(["lookup-me"], env={"PATH": scratch})
        assert result.exit_code == 21

    async def test_programs_that_lie_change_nothing(self, sandbox: Sandbox, scratch: str) -> None:
        """EXEC-8: neither for commands nor for files."""
        lies = (
            'for n in sh cat env setsid kill mkdir mv sleep; do printf "#!/bin/sh\nexit 66\n" > "$1/$n"; chmod 755 "$1/$n"; done'
        )
        await sandbox.exec(sh(lies, scratch))
        result = await sandbox.exec(sh("echo true; exit 5"), env={"PATH": scratch}, cwd=scratch, stdin=b"x", timeout=20)
        assert (result.exit_code, result.stdout) == (5, b"true\n")

    async def test_the_services_path_is_not_needed(self, session: Session, base_spec: EnvironmentSpec, target: Target) -> None:
        """EXEC-8: an environment whose service has nothing in its ``PATH`` works as any other."""
        service = base_spec.services[base_spec.default_service]
        changes: dict[str, Any] = {"env": service.env | {"PATH": "/nowhere"}}
        if service.command or service.entrypoint:
            # Runtimes look a command up in the service's own PATH, so what keeps it going has to know better.
            changes |= {"entrypoint": ("/bin/sh", "-c", "PATH=/bin:/usr/bin exec sleep 300"), "command": ()}
        async with session.environment(changed(base_spec, **changes)) as environment:
            sandbox = environment.default
            result = await sandbox.exec(sh('echo "$PATH"; exit 4'), timeout=20)
            await sandbox.write_file(f"{target.scratch}/conformance-no-path", b"written")
            data = await sandbox.read_file(f"{target.scratch}/conformance-no-path")
        assert (result.exit_code, result.stdout, data) == (4, b"/nowhere\n", b"written")

    @pytest.mark.parametrize("timeout", [None, 20.0])
    @pytest.mark.parametrize("status", [124, 137])
    async def test_its_own_124_or_137_is_a_result(self, sandbox: Sandbox, status: int, timeout: float | None) -> None:
        """EXEC-11."""
        result = await sandbox.exec(sh(f"exit {status}"), timeout=timeout)
        assert (result.exit_code, result.signal) == (status, 0)

    async def test_cwd_is_absolute(self, sandbox: Sandbox, scratch: str) -> None:
        """EXEC-15."""
        result = await sandbox.exec(["pwd"], cwd=scratch)
        assert result.stdout == f"{scratch}\n".encode()

    async def test_cwd_is_relative_to_the_services_own(self, sandbox: Sandbox, scratch: str) -> None:
        """EXEC-15."""
        own = (await sandbox.exec(["pwd"])).text().removesuffix("\n")
        result = await sandbox.exec(["pwd"], cwd=posixpath.relpath(scratch, own))
        assert result.stdout == f"{scratch}\n".encode()

    @pytest.mark.parametrize("kind", ["missing", "file"])
    async def test_nothing_runs_in_a_directory_that_is_none(self, sandbox: Sandbox, scratch: str, kind: str) -> None:
        """EXEC-15."""
        await sandbox.exec(sh('echo > "$1/file"', scratch))
        with pytest.raises(SandboxFileError) as caught:
            await sandbox.exec(sh('echo ran > "$1/ran"', scratch), cwd=f"{scratch}/{kind}")
        assert isinstance(caught.value, SandboxFileNotFoundError if kind == "missing" else NotADirectoryError)
        listing = await sandbox.exec(["ls", scratch])
        assert listing.stdout == b"file\n"

    async def test_env_adds_to_the_services(self, sandbox: Sandbox) -> None:
        """EXEC-16."""
        values = {"PLAIN": "1", "EMPTY": "", "LINES": "a\nb", "EQUALS": "a=b=", "WIDE": "é漢🐚", "QUOTES": "'\"$HOME`"}
        script = "".join(f'printf "%s|" "${name}";' for name in ("CONFORMANCE_BASE", *values)) + 'printf "%s" "${EMPTY-unset}"'
        result = await sandbox.exec(sh(script), env=values)
        assert result.text() == "|".join(["of the service", *values.values(), ""])

    async def test_env_wins_for_this_command_only(self, sandbox: Sandbox) -> None:
        """EXEC-16."""
        here = await sandbox.exec(sh('echo "$CONFORMANCE_BASE"'), env={"CONFORMANCE_BASE": "mine"})
        after = await sandbox.exec(sh('echo "$CONFORMANCE_BASE"'))
        assert (here.stdout, after.stdout) == (b"mine\n", b"of the service\n")

    async def test_a_service_keeps_its_path(self, sandbox: Sandbox) -> None:
        """EXEC-16: a variable that nobody mentioned stays."""
        before, after = [(await sandbox.exec(sh('echo "$PATH"'), env=env)).stdout for env in ({}, {"OTHER": "1"})]
        assert before == after != b"\n"

    @needs("user")
    @pytest.mark.parametrize(("user", "ids"), [("65534", "65534"), ("4711:4712", "4711 4712"), ("0", "0"), ("root", "0")])
    async def test_it_runs_as_the_user(self, sandbox: Sandbox, user: str, ids: str) -> None:
        """EXEC-17: by name, number, or number and group."""
        script = "id -u; id -g" if " " in ids else "id -u"
        result = await sandbox.exec(sh(script), user=user)
        assert result.text().split() == ids.split()

    @needs("user")
    async def test_a_name_takes_a_group(self, sandbox: Sandbox) -> None:
        """EXEC-17."""
        entries = (await sandbox.exec(sh("grep -v ^root: /etc/passwd | head -n 1; grep -v ^root: /etc/group | head -n 1"))).text()
        name, group = (line.split(":")[0] for line in entries.split())
        result = await sandbox.exec(sh("id -un; id -gn"), user=f"{name}:{group}")
        assert result.text().split() == [name, group]

    @needs("user")
    async def test_a_user_without_rights_has_none(self, sandbox: Sandbox, scratch: str) -> None:
        """EXEC-17: the rights are the user's too, not only the name."""
        await sandbox.exec(sh('echo secret > "$1/secret"; chmod 600 "$1/secret"', scratch))
        result = await sandbox.exec(["cat", f"{scratch}/secret"], user="4711:4712")
        assert (result.exit_code != 0, result.stdout) == (True, b"")

    @pytest.mark.parametrize("user", ["no-such-user-here", "0:no-such-group-here"])
    async def test_an_unknown_user_is_refused(self, sandbox: Sandbox, scratch: str, user: str) -> None:
        """EXEC-17: before anything runs, also where no other user can be had."""
        with pytest.raises(SandboxUserUnsupportedError):
            await sandbox.exec(sh('echo ran > "$1/ran"', scratch), user=user)
        listing = await sandbox.exec(["ls", scratch])
        assert listing.stdout == b""
