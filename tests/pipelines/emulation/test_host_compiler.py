"""Building C for this machine: cached by content, one clear line when it fails."""

import ctypes

import pytest

from predecode.pipelines.emulation import host_compiler
from predecode.pipelines.errors import PredecodeError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def _sources(value: int) -> dict[str, str]:
    return {
        "answer.h": f"enum {{ kAnswer = {value} }};",
        "one.c": '#include "answer.h"\nint answer(void) { return kAnswer; }',
        "two.c": 'int answer(void);\n__attribute__((visibility("default"))) int twice(void) { return 2 * answer(); }',
    }


def test_builds_once_per_content(tmp_path):
    key = host_compiler.content_key("test", "21")
    path = host_compiler.build_shared_object(key, "answer.so", lambda: _sources(21), tmp_path)
    assert ctypes.CDLL(str(path)).twice() == 42
    assert path.is_relative_to(tmp_path / "predecode" / "emulation")

    def never():
        raise AssertionError("built again")

    assert host_compiler.build_shared_object(key, "answer.so", never, tmp_path) == path
    assert [entry.name for entry in path.parent.iterdir()] == ["answer.so"]


def test_keys_tell_parts_apart():
    keys = {host_compiler.content_key(*parts) for parts in [("ab", "c"), ("a", "bc"), ("abc",), ("ab", b"d")]}
    assert len(keys) == 4


def test_a_failed_build_is_one_line_and_leaves_nothing(tmp_path):
    broken = {"broken.c": "int f(void) { return undeclared; }"}
    with pytest.raises(PredecodeError, match=r"could not build for this machine: .*undeclared") as caught:
        host_compiler.build_shared_object("key", "broken.so", lambda: broken, tmp_path)
    assert "\n" not in str(caught.value)
    assert list((host_compiler.cache_directory() / "key").iterdir()) == []
