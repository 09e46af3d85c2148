"""Several workers of one model, and how many they become: with the real worker processes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from daemonrig import MOODY
from moodrig import CALM, HELLO, launch, proxy
from moody import CRASH, HANG

from watcher.engine.card import card_folders, load_card
from watcher.engine.crew import ENOUGH, IDLE_S, SPARE_MB, Crew, Growth, has_room, most_on_cpu
from watcher.errors import EngineCrashed, EngineTimeout, EngineUnavailable

TELLING = MOODY.with_name("telling.py")


@pytest.fixture
def opened():
    """Makes crews and closes them."""
    made = []

    def open_(*args, **more):
        made.append(Crew(*args, **more))
        return made[-1]

    yield open_
    for crew in made:
        crew.close()


@pytest.fixture
def crew(opened):
    return opened(launch(), wanted=lambda about: 2 if about.device == "cpu" else 1)


@pytest.fixture
def growing(opened):
    """A crew on a CPU that begins with one and may become two; the further ones are started by `changes`."""

    def open_(*, room=lambda _: True, after=0.0, patience=0.0, **changes):
        growth = Growth(launch(**changes), 2, room, after=after, patience=patience)
        crew = opened(launch(), growth=growth)
        crew.start()
        return crew

    return open_


@pytest.fixture
def telling(tmp_path, opened):
    """A crew whose answers are the number of threads that it was told to use; red 200 waits until red 201 comes."""
    told = launch(str(tmp_path / "meeting"), engine_file=TELLING)
    return opened(told, growth=Growth(told, 2, after=0.0, patience=0.0))


def test_one_of_a_crew_may_hang_while_the_other_works(crew):
    crew.start()
    assert crew.size == 2
    with ThreadPoolExecutor(1) as aside:
        hung = aside.submit(crew.infer, [proxy(HANG)], timeout=3.0)
        for _ in range(5):
            assert crew.infer([proxy()], timeout=10)
        assert not hung.done()
        assert isinstance(hung.exception(), EngineTimeout)
    for _ in range(2):
        assert crew.infer([proxy()], timeout=10)
    assert crew.restarts == 1


def test_a_crew_is_as_large_as_the_first_of_it_says(crew):
    assert crew.size == 1
    assert crew.start() == crew.about
    assert crew.start() == crew.about
    assert crew.size == 2
    assert not crew.fatal


def test_a_crew_that_cannot_boot_gives_up_as_one(tmp_path):
    crew = Crew(launch(engine_file=tmp_path / "gone.py"))
    for _ in range(3):
        assert not crew.fatal
        with pytest.raises(EngineUnavailable):
            crew.start()
    assert crew.fatal
    crew.close()


# --- A crew that grows ---------------------------------------------------------------------


def test_a_crew_on_a_cpu_begins_with_one_and_one_photo_after_the_other_is_no_reason_for_more(growing):
    crew = growing()
    for _ in range(3):
        assert crew.infer([proxy()], timeout=10)
    assert (crew.size, crew.most) == (1, 2)


def test_two_photos_together_are_no_reason_for_more_either(growing):
    crew = growing(after=3600.0)
    with ThreadPoolExecutor(2) as aside:
        for done in [aside.submit(crew.infer, [proxy()], timeout=10) for _ in range(8)]:
            assert done.result(30)
    assert crew.size == 1
    assert crew._booting is None


def test_a_few_photos_are_not_worth_a_further_worker_and_many_are(growing, eventually):
    crew = growing(patience=3600.0)
    backlog = [ENOUGH - 1, ENOUGH]
    crew.heed(lambda: backlog.pop(0) if len(backlog) > 1 else backlog[0])
    with ThreadPoolExecutor(2) as aside:
        hung = aside.submit(crew.infer, [proxy(HANG)], timeout=60.0)
        eventually(lambda: crew._busy)
        assert crew.infer([proxy()], timeout=10)  # by the second, booted when it was asked again
        assert (crew.size, backlog) == (2, [ENOUGH])
        crew._members[0].close()
        assert isinstance(hung.exception(30), EngineCrashed | EngineUnavailable)


def test_a_journal_that_does_not_say_what_waits_holds_up_no_photo(growing, eventually):
    crew = growing(patience=3600.0)
    asked, goes_on = threading.Event(), threading.Event()

    def stalled():
        asked.set()
        goes_on.wait(60)
        return 0

    crew.heed(stalled)
    with ThreadPoolExecutor(2) as aside:
        hung = aside.submit(crew.infer, [proxy(HANG)], timeout=60.0)
        eventually(lambda: crew._busy)
        waits = aside.submit(crew.infer, [proxy()], timeout=10)
        assert asked.wait(30)
        crew._members[0]._client.kill()
        assert isinstance(hung.exception(30), EngineCrashed)
        assert waits.result(30)
        assert not goes_on.is_set()
        goes_on.set()
    eventually(lambda: crew._booting is None)
    assert crew.size == 1


def test_work_that_waits_gets_a_worker_more_whose_death_is_its_own(growing, eventually):
    crew = growing(hello=dict(HELLO, warmup=None))
    with ThreadPoolExecutor(2) as aside:
        hung = aside.submit(crew.infer, [proxy(HANG)], timeout=60.0)
        eventually(lambda: crew._busy)
        # Waits until there is a second one: the first says nothing.
        assert crew.infer([proxy()], timeout=10)
        assert crew.size == 2
        with pytest.raises(EngineCrashed):
            crew.infer([proxy(CRASH)], timeout=10)
        assert crew.infer([proxy()], timeout=10)
        assert not hung.done()
        crew._members[0].close()
        assert isinstance(hung.exception(30), EngineCrashed | EngineUnavailable)
    assert crew.restarts >= 1


@pytest.mark.parametrize("why", ["no room", "cannot boot"])
def test_a_crew_that_cannot_grow_goes_on_as_it_is(growing, eventually, why):
    asked = threading.Event()

    def room(_):
        asked.set()
        return why != "no room"

    crew = growing(room=room, hello=dict(HELLO, model="exit"))
    with ThreadPoolExecutor(2) as aside:
        hung = aside.submit(crew.infer, [proxy(HANG)], timeout=60.0)
        eventually(lambda: crew._busy)
        waits = aside.submit(crew.infer, [proxy()], timeout=10)
        assert asked.wait(30)
        eventually(lambda: crew._booting is None)
        crew._members[0]._client.kill()
        assert isinstance(hung.exception(30), EngineCrashed)
        assert waits.result(30)
    assert crew.size == 1
    assert not crew.fatal
    assert crew.infer([proxy()], timeout=10)


def test_a_worker_that_nobody_needs_any_more_gives_its_memory_back_and_comes_again(growing, eventually):
    crew = growing()

    def grow():
        with ThreadPoolExecutor(1) as aside:
            hung = aside.submit(crew.infer, [proxy(HANG)], timeout=60.0)
            eventually(lambda: crew._busy)
            assert crew.infer([proxy()], timeout=10)
            crew._members[0]._client.kill()
            assert isinstance(hung.exception(30), EngineCrashed)

    grow()
    child = crew._members[1]._client._child
    crew.rest(now=crew._needed + IDLE_S - 1)
    assert crew.size == 2
    crew.rest(now=crew._needed + IDLE_S + 1)
    assert crew.size == 1
    assert not child.alive
    assert crew.infer([proxy()], timeout=10)
    grow()
    assert crew.size == 2


def test_a_lone_request_has_every_core_and_requests_side_by_side_share_them(telling, eventually, monkeypatch):
    monkeypatch.setattr("watcher.engine.crew.cores", lambda: 6)
    telling.start()

    def threads(mood=CALM):
        return round(telling.infer([proxy(mood)], timeout=60)[0][0, 0] * 100)

    assert threads() == 0
    with ThreadPoolExecutor(1) as aside:
        long = aside.submit(threads, 200)
        eventually(lambda: telling._busy)
        assert threads() == 3
        assert telling.size == 2
        assert not long.done()
        assert threads(201) == 3
        assert long.result(60) == 0
    assert threads() == 0


@pytest.fixture
def settled(tmp_path, monkeypatch, opened):
    """Like `telling`, but threads are fixed: the first has 6 and others a share of them, of at most `most`."""
    monkeypatch.setattr("watcher.engine.crew.cores", lambda: 6)

    def open_(most=2, room=lambda _: True, **changes):
        hello = dict(HELLO, model=str(tmp_path / "meeting"), options={"fixed": True, "threads": 6})
        started = launch(engine_file=TELLING, hello=hello)
        growth = Growth(replace(started, **changes), most, room, after=0.0, patience=0.0)
        crew = opened(started, growth=growth)
        crew.start()
        return crew

    return open_


def asked(crew, mood=CALM):
    return round(crew.infer([proxy(mood)], timeout=60)[0][0, 0] * 100)


def test_where_threads_are_fixed_the_first_computes_what_comes_alone_and_others_what_comes_together(
    settled, eventually
):
    crew = settled()
    assert asked(crew) == 6
    with ThreadPoolExecutor(2) as aside:
        first = aside.submit(asked, crew, 200)
        eventually(lambda: crew._busy)
        # Waits until they are there: both are booted together.
        assert asked(crew) == 3
        assert (crew.size, crew.most) == (3, 2)
        # Beside one that computes, the first is not asked even when it is free.
        assert asked(crew, 201) == 3
        assert first.result(60) == 6
        second = aside.submit(asked, crew, 200)
        eventually(lambda: crew._busy)
        assert second.running()
        assert [asked(crew) for _ in range(3)] == [3, 3, 3]
        assert asked(crew, 201) == 3
        assert second.result(60) == 6
    assert asked(crew) == 6


def test_where_threads_are_fixed_the_first_leaves_a_flood_to_the_others_from_its_first_photo_on(
    settled, eventually
):
    crew = settled()
    with ThreadPoolExecutor(1) as aside:
        first = aside.submit(asked, crew, 200)
        eventually(lambda: crew._busy)
        assert asked(crew, 201) == 3
        assert first.result(60) == 6
    company = [2]
    crew.mind(lambda: company[0])
    # Nobody computes yet, but somebody will in a moment, whose core the threads of the first would take by spinning.
    assert asked(crew) == 3
    company[0] = 1
    assert asked(crew) == 6


def test_where_threads_are_fixed_those_for_whom_there_is_room_share_all_cores(settled, eventually):
    crew = settled(4, room=lambda more: more < 4)
    with ThreadPoolExecutor(2) as aside:
        first = aside.submit(asked, crew, 200)
        eventually(lambda: crew._busy)
        assert asked(crew) == 2
        assert crew.size == 4
        assert asked(crew, 201) == 2
        assert first.result(60) == 6


def test_where_threads_are_fixed_two_that_both_find_no_room_stay_away(settled, eventually):
    wanted = []

    def room(more):
        wanted.append(more)
        return more < 2

    crew = settled(room=room)
    with ThreadPoolExecutor(2) as aside:
        first = aside.submit(asked, crew, 200)
        eventually(lambda: crew._busy)
        waits = aside.submit(asked, crew)
        eventually(lambda: wanted and crew._booting is None)
        crew._members[0]._client.kill()
        assert isinstance(first.exception(60), EngineCrashed)
        assert waits.result(60) == 6
    assert (crew.size, wanted) == (1, [2])


def test_where_threads_are_fixed_and_further_ones_do_not_boot_the_first_does_all(
    settled, eventually, tmp_path
):
    crew = settled(engine_file=tmp_path / "gone.py")
    with ThreadPoolExecutor(2) as aside:
        first = aside.submit(asked, crew, 200)
        eventually(lambda: crew._busy)
        waits = aside.submit(asked, crew)
        eventually(lambda: crew._not_before and crew._booting is None)
        crew._members[0]._client.kill()
        assert isinstance(first.exception(60), EngineCrashed)
        assert waits.result(60) == 6
    assert crew.size == 1
    crew.rest(now=crew._needed + IDLE_S + 1)
    assert not crew.fatal


def test_a_card_says_how_many_share_a_cpu_or_what_one_takes():
    modnet = load_card("modnet", card_folders(None))
    assert [most_on_cpu(modnet, cores) for cores in (1, 2, 4, 16, 64)] == [1, 2, 4, 16, 16]
    assert most_on_cpu(modnet.model_copy(update={"workers_cpu": 8}), 2) == 8
    assert most_on_cpu(modnet.model_copy(update={"memory_mb": None}), 64) == 1
    enough = modnet.memory_mb + SPARE_MB
    assert has_room(modnet, 1, available=lambda: enough)
    assert not has_room(modnet, 1, available=lambda: enough - 1)
    assert not has_room(modnet, 2, available=lambda: enough)
    # Many leave half of it to others.
    assert has_room(modnet, 4, available=lambda: 4 * modnet.memory_mb + SPARE_MB)
    assert not has_room(modnet, 5, available=lambda: 10 * modnet.memory_mb - 1)
    assert has_room(modnet, 5, available=lambda: 10 * modnet.memory_mb)
    # Where nobody says what is free, and where the operator has chosen.
    assert has_room(modnet, 9, available=lambda: None)
    assert has_room(modnet.model_copy(update={"workers_cpu": 2}), 2, available=lambda: 0.0)
