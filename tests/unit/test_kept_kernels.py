"""What is kept of kernels counts only while it is all there, and made of the sources as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from watcher.pipeline.compiled_cache import CompiledCache, KeptKernel


@pytest.fixture
def kernels(tmp_path: Path) -> list[KeptKernel]:
    """Two, in files of their own, with machine code as numba writes it; somebody else's lies beside it."""
    found = []
    for name in ("spans", "average"):
        source, folder = tmp_path / f"of_{name}.py", tmp_path / "cache"
        source.write_text(name)
        folder.mkdir(exist_ok=True)
        found.append(KeptKernel(name, source, folder))
        for ending in ("nbi", "1.nbc"):
            (folder / f"of_{name}.{name}-12.py311.{ending}").write_bytes(b"code")
    (tmp_path / "cache" / "of_spans.other-3.py311.nbi").write_bytes(b"code")
    return found


def code(kernels: list[KeptKernel]) -> list[str]:
    return sorted(path.name for path in kernels[0].folder.glob("*.nb?"))


def whole(kernels: list[KeptKernel], maker: str = "numba") -> CompiledCache:
    cache = CompiledCache(kernels, maker=maker)
    cache.renew()
    cache.complete()
    return cache


def test_a_cache_is_whole_once_all_is_compiled(kernels):
    cache = CompiledCache(kernels, maker="numba")
    assert not cache.whole()
    cache.renew()
    assert not cache.whole()
    cache.complete()
    assert cache.whole()
    assert CompiledCache(kernels, maker="numba").whole()


def test_what_no_one_has_told_the_sources_of_is_thrown_away(kernels):
    CompiledCache(kernels, maker="numba").renew()
    assert code(kernels) == ["of_spans.other-3.py311.nbi"]


def test_an_upgrade_throws_away_kernels_whose_own_file_is_the_same(kernels):
    """They may have a copy of one that is not."""
    whole(kernels)
    kept = kernels[1].folder / "of_average.average-12.py311.nbi"
    kept.write_bytes(b"code, with a copy of spans")
    kernels[0].source.write_text("spans, corrected")
    cache = CompiledCache(kernels, maker="numba")
    assert not cache.whole()
    cache.complete()  # nor does somebody make it so who has not looked
    assert not cache.whole()
    cache.renew()
    assert not kept.exists()


def test_another_processor_compiles_for_itself_and_keeps_what_there_is(kernels):
    whole(kernels, "znver3")
    kept = kernels[1].folder / "of_average.average-12.py311.nbi"
    kept.write_bytes(b"for znver3")
    other = CompiledCache(kernels, maker="znver4")
    other.renew()
    assert not other.whole()
    assert kept.exists()
    other.complete()
    assert other.whole() and CompiledCache(kernels, maker="znver3").whole()


def test_what_was_dropped_is_whole_no_more(kernels):
    cache = whole(kernels)
    cache.drop()
    assert not cache.whole()
    assert not CompiledCache(kernels, maker="numba").whole()


def test_without_a_folder_nothing_is_whole_and_nothing_fails(kernels):
    gone = [KeptKernel(one.name, one.source, one.folder / "gone") for one in kernels]
    for some in (gone, []):
        cache = whole(some)
        cache.drop()
        assert not cache.whole()
