"""What is said about bad input: one line a problem, with the key's path, the nearest known name, and no value."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, field_validator

from sandboxcore import EnvironmentSpec, SpecError, spec
from sandboxcore._validation import did_you_mean, nearest, validated

SECRET = "hunter2-"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    port: int = 0


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rootfs: str = ""
    many: list[Inner] = []
    either: Inner | str = ""
    token: int = 0

    @field_validator("rootfs")
    @classmethod
    def _absolute(cls, rootfs: str) -> str:
        if rootfs and not rootfs.startswith("/"):
            raise ValueError("must be an absolute path")
        return rootfs


def problems(data: object) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        validated(Config, data, what="config", owner="backend 'local'")
    return caught.value.problems


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"rootf": "/x"}, "config: unknown key 'rootf' for backend 'local' (did you mean 'rootfs'?)"),
        ({"zzz": 1}, "config: unknown key 'zzz' for backend 'local'"),
        ({"many": [{}, {"prot": 1}]}, "config: many.1: unknown key 'prot' for backend 'local' (did you mean 'port'?)"),
        ({"rootfs": "x"}, "config: rootfs: must be an absolute path"),
        ({"token": "secret-value"}, "config: token: must be a valid integer, unable to parse string as an integer"),
    ],
)
def test_one_problem(data: dict[str, Any], line: str) -> None:
    assert problems(data) == (line,)


def test_all_problems_at_once() -> None:
    assert len(problems({"rootf": 1, "token": "x", "many": [{"port": []}]})) == 3


def test_a_union_says_its_key_and_not_its_members() -> None:
    assert all(line.startswith("config: either") and "Inner" not in line.split(": ")[1] for line in problems({"either": 3}))


def test_what_is_no_mapping_at_all() -> None:
    (line,) = problems(["x"])
    assert line.startswith("config: ")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"services": {"web": {"imagee": "x"}}}, "services.web: unknown key 'imagee' (did you mean 'image'?)"),
        ({"servces": {}}, "unknown key 'servces' (did you mean 'services'?)"),
        ({"servces": {}}, "services: is required"),
        (
            {"services": {"web": {"restart": {"name": "maybe"}}}},
            "services.web.restart.name: must be 'no', 'always', 'on-failure' or 'unless-stopped'",
        ),
        (
            {"services": {"web": {"ports": [{"container_port": 0}]}}},
            "services.web.ports.0.container_port: must be greater than or equal to 1",
        ),
        ({"services": {}}, "services: an environment needs at least one service"),
        (
            {"services": {"web": {"depends_on": {"db": {"conditon": "x"}}}}},
            "services.web.depends_on.db: unknown key 'conditon' (did you mean 'condition'?)",
        ),
    ],
)
def test_the_path_into_a_spec(data: dict[str, Any], line: str) -> None:
    with pytest.raises(SpecError) as caught:
        validated(EnvironmentSpec, data)
    assert line in caught.value.problems


def test_no_value_shows_and_none_hides_in_the_cause() -> None:
    with pytest.raises(SpecError) as caught:
        validated(EnvironmentSpec, {"services": {"a": {"env": {"TOKEN": ["hunter2"]}, "files": {"/f": "hunter2"}}}})
    error: BaseException | None = caught.value
    assert "hunter2" not in str(error)
    assert error is not None
    assert error.__context__ is None
    assert error.__cause__ is None


WORDS = sorted(
    {
        name
        for model in vars(spec).values()
        if inspect.isclass(model) and issubclass(model, BaseModel)
        for name in model.model_fields
    }
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=4)
    | st.text(max_size=6).map(lambda text: SECRET + text)
)
KEYS = st.sampled_from(WORDS) | st.text(max_size=5) | st.integers()
DATA = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12)
SERVICES = st.fixed_dictionaries({"services": st.dictionaries(KEYS, st.dictionaries(KEYS, DATA, max_size=4), max_size=3)})


@given(data=DATA | SERVICES)
@settings(max_examples=300, deadline=None)
def test_whatever_is_given_makes_a_spec_or_lines(data: Any) -> None:
    for line in lines_about(data):
        assert line.isprintable()
        assert line.strip()
        # Paths and names are said, so that they can be found; what a variable or a file holds is not.
        assert SECRET not in line or re.search(r"absolute path|no (network|volume|service) is called|environment variable", line)


def lines_about(data: object) -> tuple[str, ...]:
    try:
        validated(EnvironmentSpec, data)
    except SpecError as error:
        return error.problems
    return ()


def test_nearest() -> None:
    known = ("working_dir", "env", "image")
    assert nearest("workingdir", known) == "working_dir"
    assert nearest("working-dir", known) == "working_dir"
    assert nearest("ENV", known) == "env"
    assert nearest("quux", known) is None
    assert did_you_mean("imge", known) == " (did you mean 'image'?)"
    assert did_you_mean("quux", known) == ""
