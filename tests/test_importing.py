"""Heavy imports: what the garbage collector does meanwhile and afterwards."""

import gc
import sys
import weakref

import pytest

from lstmopt.importing import imported


class Link:
    """Refers to itself: only the collector frees it."""

    def __init__(self):
        self.itself = self


@pytest.fixture
def heavy(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda text: (tmp_path / "heavy_module.py").write_text(text)
    sys.modules.pop("heavy_module", None)
    gc.unfreeze()


def test_nothing_is_collected_meanwhile_and_garbage_is_afterwards(heavy):
    heavy("import gc\ncollects = gc.isenabled()\nkept = [[] for _ in range(1000)]\n")
    before = gc.get_freeze_count()
    imported("heavy_module")
    assert sys.modules["heavy_module"].collects is False
    assert gc.isenabled() and gc.get_freeze_count() >= before + 1000
    garbage = weakref.ref(Link())
    gc.collect()
    assert garbage() is None


def test_once(heavy):
    heavy("")
    imported("heavy_module")
    gc.unfreeze()
    imported("heavy_module")
    assert gc.get_freeze_count() == 0


def test_a_failed_import_leaves_the_collector_on(heavy):
    heavy("raise RuntimeError('broken')")
    with pytest.raises(RuntimeError, match="broken"):
        imported("heavy_module")
    assert gc.isenabled()
