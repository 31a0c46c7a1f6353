"""Values are frozen, keyword-only, consistent, and never show what may be secret."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
from typing import Any

import pydantic
import pytest

from sandboxcore import report, spec, values
from sandboxcore.spec import EnvironmentSpec, ServiceSpec

DATACLASSES = [
    value
    for module in (values, report)
    for value in vars(module).values()
    if dataclasses.is_dataclass(value) and inspect.isclass(value)
]
MODELS = [value for value in vars(spec).values() if inspect.isclass(value) and issubclass(value, spec._Value)]


@pytest.mark.parametrize("cls", DATACLASSES, ids=lambda cls: cls.__name__)
def test_values_are_frozen_and_keyword_only(cls: type[Any]) -> None:
    assert cls.__dataclass_params__.frozen
    if cls is not values.Chunk:
        assert all(field.kw_only for field in dataclasses.fields(cls) if field.init) or cls is report.TranslationReport


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
def test_specs_are_frozen_refuse_unknown_keys_and_show_no_input(cls: type[pydantic.BaseModel]) -> None:
    assert cls.model_config["frozen"]
    assert cls.model_config["extra"] == "forbid"
    assert cls.model_config["hide_input_in_errors"]


def test_assigning_to_a_value_fails() -> None:
    result = values.ExecResult(exit_code=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.exit_code = 1  # type: ignore[misc]
    service = ServiceSpec()
    with pytest.raises(pydantic.ValidationError):
        service.image = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"argv": "ls -l"}, TypeError, "sequence of strings"),
        ({"argv": b"ls"}, TypeError, "sequence of strings"),
        ({"argv": []}, TypeError, "at least the program"),
        ({"argv": ["a", 1]}, TypeError, "sequence of strings"),
        ({"argv": ["a"], "timeout": 0}, ValueError, "above 0"),
        ({"argv": ["a"], "timeout": -1.5}, ValueError, "above 0"),
        ({"argv": ["a\0b"]}, ValueError, "NUL"),
        ({"argv": ["a"], "env": {"A": "\0"}}, ValueError, "NUL"),
        ({"argv": ["a"], "env": {"A=B": "c"}}, ValueError, "environment variable"),
        ({"argv": ["a"], "env": {"": "c"}}, ValueError, "environment variable"),
        ({"argv": ["a"], "cwd": "x\0"}, ValueError, "NUL"),
    ],
)
def test_a_command_that_cannot_be_is_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        values.ExecRequest(**arguments)


def test_argv_becomes_a_tuple() -> None:
    assert values.ExecRequest(argv=["a", "b"]).argv == ("a", "b")


def test_what_may_be_secret_shows_in_no_repr() -> None:
    shown = [
        repr(values.ExecRequest(argv=["x"], env={"TOKEN": "hunter2"}, stdin=b"hunter2")),
        repr(ServiceSpec(env={"TOKEN": "hunter2"})),
        repr(EnvironmentSpec(services={"a": ServiceSpec(env={"TOKEN": "hunter2"})})),
        repr(spec.FileSpec(content=b"hunter2")),
        repr(spec.BuildSpec(context="/x", args={"TOKEN": "hunter2"})),
    ]
    assert not [text for text in shown if "hunter2" in text]


@pytest.mark.parametrize("key", ["env", "files", "image"])
def test_what_may_be_secret_shows_in_no_error(key: str) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        ServiceSpec(**{key: ["hunter2"]})
    assert "hunter2" not in str(caught.value)


CONSISTENCY = [
    ({"services": {}}, "at least one service"),
    ({"services": {"": {}}}, "needs a name"),
    ({"services": {"a": {}}, "default": "b"}, "no service is called 'b'"),
    ({"services": {"a": {"depends_on": {"a": {}}}}}, "depends on itself"),
    ({"services": {"a": {"depends_on": {"b": {}}}}}, "'b', which is not a service"),
    ({"services": {"a": {"depends_on": {"b": {}}}, "b": {"depends_on": {"a": {}}}}}, "in a circle: a, b"),
    ({"services": {"a": {"networks": {"x": ()}}}}, "no network is called 'x'"),
    ({"services": {"a": {"volumes": [{"target": "/v", "source": "x"}]}}}, "no volume is called 'x'"),
    ({"services": {"a": {"volumes": [{"target": "v"}]}}}, "absolute path"),
    ({"services": {"a": {"working_dir": "w"}}}, "absolute path"),
    ({"services": {"a": {"healthcheck": {"test": []}}}}, "must name a command"),
    ({"services": {"a": {"env": {"A=": "x"}}}}, "environment variable"),
]


@pytest.mark.parametrize(("data", "message"), CONSISTENCY)
def test_an_inconsistent_spec_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        EnvironmentSpec.model_validate(data)


def test_a_dependency_that_is_not_required_may_be_missing() -> None:
    made = EnvironmentSpec.model_validate({"services": {"a": {"depends_on": {"b": {"required": False}}}}})
    assert made.start_order() == (("a",),)


def test_services_start_in_waves() -> None:
    data = {"services": {"web": {"depends_on": {"db": {}, "cache": {}}}, "db": {}, "cache": {"depends_on": {"db": {}}}}}
    assert EnvironmentSpec.model_validate(data).start_order() == (("db",), ("cache",), ("web",))


@pytest.mark.parametrize(
    ("services", "default", "expected"),
    [(["a", "b"], None, "a"), (["a", "default"], None, "default"), (["a", "default"], "a", "a")],
)
def test_the_default_service(services: list[str], default: str | None, expected: str) -> None:
    made = EnvironmentSpec(services={name: ServiceSpec() for name in services}, default=default)
    assert made.default_service == expected


def test_specs_and_refs_survive_pickling() -> None:
    made = EnvironmentSpec(services={"a": ServiceSpec(env={"A": "b"}, files={"/f": spec.FileSpec(content=b"\xff")})})
    assert pickle.loads(pickle.dumps(made)) == made
    ref = values.SandboxRef(backend="b", environment_id="e", run_id="r", service="s", data={"x": [1]})
    assert pickle.loads(pickle.dumps(ref)) == ref


def test_a_selector_wants_all_that_it_names() -> None:
    ref = values.EnvironmentRef(
        backend="b",
        environment_id="e",
        run_id="r",
        owner="o",
        created_at=0,
        expires_at=1,
        default="d",
        sandboxes=(),
        labels={"a": "1"},
    )
    assert values.Selector().matches(ref)
    assert values.Selector(run_id="r", environment_id="e", labels={"a": "1"}).matches(ref)
    assert not values.Selector(run_id="x").matches(ref)
    assert not values.Selector(environment_id="x").matches(ref)
    assert not values.Selector(labels={"a": "1", "b": ""}).matches(ref)


def test_capabilities_can_depend_on_the_configuration() -> None:
    info = values.BackendInfo(
        name="mine",
        summary="",
        capabilities=frozenset({"stdin", "pty"}),
        capabilities_under=lambda config: frozenset({"stdin", "never_stated"} if config["small"] else {"stdin", "pty"}),
    )
    assert info.under({"small": True}).capabilities == {"stdin"}
    assert info.under({"small": False}).capabilities == {"stdin", "pty"}
    assert values.BackendInfo(name="other", summary="").under(None).capabilities == frozenset()
