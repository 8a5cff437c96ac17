"""The hook on imports: what is imported is what would have been imported, and those who wait are told."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec

import pytest
import wrapt

from perf_middleware.collector import importing
from perf_middleware.collector.importing import when_imported


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Name of a module that can be imported once; `module.write(source)` says what is in it."""

    class Module(str):
        __slots__ = ()

        def write(self, source):
            (tmp_path / f"{self}.py").write_text(source)
            importlib.invalidate_caches()

    name = Module(f"waited_for_by_{tmp_path.name}")
    name.write("loader = __spec__.loader, __loader__\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield name
    sys.modules.pop(name, None)
    importing._finder.callbacks.pop(name, None)


def test_a_module_that_nobody_waits_for_is_left_to_the_others(module):
    when_imported("another", print)
    importing._finder.callbacks.pop("another")
    assert importing._finder.find_spec(module) is None


def test_a_module_has_its_own_loader_while_and_after_it_is_executed(module):
    when_imported(module, lambda _: None)
    imported = importlib.import_module(module)
    for loader in (*imported.loader, imported.__loader__, imported.__spec__.loader):
        assert type(loader) is SourceFileLoader


def test_a_module_that_is_not_there_stays_not_there(module):
    when_imported(f"{module}_not", print)
    with pytest.raises(ModuleNotFoundError, match=f"{module}_not"):
        importlib.import_module(f"{module}_not")
    importing._finder.callbacks.pop(f"{module}_not")


def test_an_import_that_failed_may_be_tried_again(module):
    told = []
    when_imported(module, told.append)
    module.write("raise ValueError('not now')")
    with pytest.raises(ValueError, match="not now"):
        importlib.import_module(module)
    assert told == []
    module.write("value = 1")
    imported = importlib.import_module(module)
    assert told == [imported]


def test_looking_for_a_module_is_not_importing_it(module):
    told = []
    when_imported(module, told.append)
    spec = find_spec(module)
    assert spec.origin.endswith(f"{module}.py")
    assert spec.loader.get_filename(module) == spec.origin
    assert told == []
    imported = importlib.import_module(module)
    assert told == [imported]


def test_all_who_wait_are_told_once_when_the_module_is_complete(module):
    told = []
    module.write("value = 1")
    when_imported(module, lambda imported: told.append(imported.value))
    when_imported(module, lambda imported: told.append(imported.value + 1))
    importlib.reload(importlib.import_module(module))
    assert told == [1, 2]


@pytest.mark.parametrize("ours_first", [True, False])
def test_another_tool_s_hook_on_the_same_module_is_told_too(module, ours_first):
    told = []
    hooks = [lambda: when_imported(module, told.append), lambda: wrapt.register_post_import_hook(told.append, module)]
    for hook in hooks if ours_first else reversed(hooks):
        hook()
    imported = importlib.import_module(module)
    assert told == [imported, imported]


def test_other_finders_may_be_of_the_old_kind_or_ask_a_list_without_us(module, monkeypatch):
    when_imported(module, print)
    monkeypatch.setattr(sys, "meta_path", [importing._finder, object(), importing._finder, *sys.meta_path])
    assert type(importing._finder.find_spec(module).loader) is not SourceFileLoader
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if finder is not importing._finder])
    assert importing._finder.find_spec(module) is None
