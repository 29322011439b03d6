# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _catalogue, _cleaner, _generations, _points
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem
from ansible_collections.indestructible.block.plugins.module_utils._nilfs import Checkpoint
from ansible_collections.indestructible.block.plugins.module_utils._when import Wish

DEVICE = _points.Device("db", "/db.img", "/store/db.img", None, "vault1", "/store", "/dev/sdb", None, None)
CATALOGUE = {"since": 1, "unsafe": [], "points": [{"name": "before", "checkpoint": 3, "time": 3, "note": None}]}


class Volume:
    """A history in memory: the numbers that exist; a checkpoint was made in the second of its number."""

    def __init__(self, *numbers):
        self.all = [Checkpoint(number, number, number < 100, False, 1, 1) for number in numbers]
        self.changed = []

    def __enter__(self):
        return self

    def __exit__(self, *_ignored):
        pass

    def protect(self, number):
        self.changed.append(("protect", number))

    def release(self, number):
        self.changed.append(("release", number))

    def checkpoints(self, start, count=64):
        return [one for one in self.all if one.number >= start][:count]

    def counts(self):
        return self.all[-1].number + 1, len(self.all), 0

    def last_checkpoint(self):
        return self.all[-1]


CLEANED = Volume(3, 7, 8, *range(500, 900))


@pytest.mark.parametrize("volume, first", [
    (Volume(*range(1, 200)), 1), (CLEANED, 500), (Volume(3, 7, 8), 7), (Volume(*range(1, 400, 2), *range(400, 600)), 399),
])
def test_history_is_unbroken_from_the_first_checkpoint_behind_which_none_is_missing(volume, first):
    assert _points.unbroken(volume, 1).number == first


def test_a_time_that_was_deleted_is_refused_and_the_range_is_named():
    assert _points.oldest_safe(CLEANED, CATALOGUE).number == 500
    with pytest.raises(Problem) as caught:
        _points.choose(CLEANED, DEVICE, CATALOGUE, Wish("time", 400))
    assert "is before its first recovery point; protected points before that can be opened by name or number, the newest of them 8 of" in str(caught.value)
    assert "it can be recovered as of any second from" in str(caught.value) and "(checkpoint 500) to" in str(caught.value)
    assert _points.choose(CLEANED, DEVICE, CATALOGUE, Wish("time", 600)).number == 600
    assert _points.choose(CLEANED, DEVICE, CATALOGUE, Wish("name", "before")).number == 3
    with pytest.raises(Problem, match="there is no checkpoint 400; it can be recovered"):
        _points.choose(CLEANED, DEVICE, CATALOGUE, Wish("number", 400))


def test_what_lies_in_an_unsafe_window_behind_a_gap_is_not_taken_from_before_the_gap():
    catalogue = dict(CATALOGUE, unsafe=[{"first": 500, "last": 520, "why": "a heal", "good": 8}])
    with pytest.raises(Problem, match="is before its first recovery point"):
        _points.choose(CLEANED, DEVICE, catalogue, Wish("time", 510))
    assert _points.oldest_safe(CLEANED, catalogue).number == 521


def test_only_single_points_are_named_as_such():
    catalogue = dict(CATALOGUE, unsafe=[{"first": 500, "last": None, "why": "out", "good": 8}])
    assert _points.describe_range(CLEANED, catalogue).startswith("only single protected points can be recovered, the newest of them checkpoint 8 of")


def test_windows_are_forgotten_with_the_history_around_them():
    windows = [{"first": 10, "last": 20, "why": "a", "good": 9}, {"first": 600, "last": 610, "why": "b", "good": 599},
               {"first": 700, "last": None, "why": "c", "good": 699}]
    assert _cleaner.without_old(dict(CATALOGUE, unsafe=windows), [9, 599], 500)["unsafe"] == [dict(windows[1], good=None), windows[2]]
    assert _cleaner.without_old(dict(CATALOGUE, unsafe=windows), [], 500)["unsafe"] == windows


def test_a_point_is_made_of_the_newest_checkpoint_that_is_full():
    volume = Volume(*range(1, 12))
    volume.all = [one._replace(minor=one.number in (1, 9, 10)) for one in volume.all]
    assert [_points.newest_full(volume, number).number for number in (11, 10, 9, 8)] == [11, 8, 8, 8]
    with pytest.raises(Problem, match="no full checkpoint up to 1"):
        _points.newest_full(volume, 1)


# Generations of one store: the first is forgotten, the fourth is in use. A checkpoint was made in the second of its number.
SECOND, THIRD = ({"number": number, "uuid": str(number), "began": began, "ended": ended, "place": {"device": "/dev/sdx"},
                  "devices": {"db": {"points": points}}} for number, began, ended, points in ((2, 200, 300, [{"name": "there"}]), (3, 300, 400, [])))


@pytest.mark.parametrize("when, number", [
    (100, 4), (200, 4),  # before all that is known
    (201, 2), (300, 2), (301, 3), (400, 3), (401, 4),
])
def test_the_generation_that_was_in_use_at_a_time_is_asked_first(when, number):
    assert _points.first_asked([THIRD, SECOND], 4, Wish("time", when)) == number
    assert _points.first_asked([THIRD], 4, Wish("time", when)) == (3 if 300 < when <= 400 else 4)
    assert _points.first_asked([], 1, Wish("time", when)) == 1


@pytest.mark.parametrize("wish", [Wish("latest", None), Wish("name", "there"), Wish("number", 250)])
def test_all_else_is_asked_of_the_one_in_use(wish):
    assert _points.first_asked([THIRD, SECOND], 4, wish) == 4


class Store:
    """Histories of a store by generation, those of retired ones behind the records of the host."""

    def __init__(self, monkeypatch, current, retired, volumes, catalogues=None):
        self.asked, self.volumes, self.catalogues = [], volumes, catalogues or {}
        monkeypatch.setattr(_points, "record_of", lambda name: ({"remote": "/store/db.img"}, "vault1"))
        monkeypatch.setattr(_generations, "current", lambda store: current)
        monkeypatch.setattr(_generations, "retired", lambda store: retired)
        monkeypatch.setattr(_generations, "is_attached", lambda store, number: False)
        monkeypatch.setattr(_points, "device_named", lambda name, number=None: self.device(number or current))
        monkeypatch.setattr(_points, "catalogue_of", lambda device: dict(CATALOGUE, **self.catalogues.get(device.point, {})))
        monkeypatch.setattr(_points, "Volume", lambda number: contextlib.nullcontext(self.volumes[number]))

    def device(self, number):
        self.asked.append(number)
        if number not in self.volumes:
            raise _points.NotMounted(f"generation {number} is away")
        return DEVICE._replace(point=number)

    def locate(self, wish, **more):
        self.asked = []
        _device, point, _safe = _points.locate("db", wish, **more)
        return self.asked[-1], point.number


def histories():
    return {2: Volume(*range(201, 301)), 3: Volume(*range(302, 400)), 4: Volume(*range(401, 500))}


SINCE = {2: {"since": 201}, 3: {"since": 302}, 4: {"since": 401, "unsafe": [{"first": 401, "last": 410, "why": "filled", "good": None}]}}


@pytest.mark.parametrize("when, found", [
    (201, (2, 201)), (300, (2, 300)), (301, (2, 300)), (302, (3, 302)), (399, (3, 399)), (400, (3, 399)),
    (401, (3, 399)), (410, (3, 399)), (411, (4, 411)), (499, (4, 499)),
])
def test_a_time_opens_in_its_generation_and_behind_the_end_of_one_until_the_next_has_a_point(monkeypatch, when, found):
    assert Store(monkeypatch, 4, [THIRD, SECOND], histories(), SINCE).locate(Wish("time", when)) == found


@pytest.mark.parametrize("when, asked", [(150, [4]), (200, [4]), (250, [4])])
def test_a_time_in_a_forgotten_generation_is_refused(monkeypatch, when, asked):
    store = Store(monkeypatch, 4, [THIRD], histories(), SINCE)
    with pytest.raises(Problem, match="is before its first recovery point; it can be recovered as of any second from"):
        store.locate(Wish("time", when))
    assert store.asked == asked
    # nor is what lies between two that are known taken from the older one
    store = Store(monkeypatch, 4, [SECOND], histories(), SINCE)
    with pytest.raises(Problem, match="is before its first recovery point"):
        store.locate(Wish("time", 350))


def test_a_time_that_was_deleted_in_a_generation_is_not_taken_from_the_one_before(monkeypatch):
    cleaned = {2: histories()[2], 3: Volume(*range(350, 400)), 4: Volume(*range(450, 500))}
    store = Store(monkeypatch, 4, [THIRD, SECOND], cleaned, SINCE)
    for when in (310, 420):
        with pytest.raises(Problem, match="is before its first recovery point"):
            store.locate(Wish("time", when))
    assert store.locate(Wish("time", 360)) == (3, 360) and store.locate(Wish("time", 299)) == (2, 299)


def test_a_device_that_is_younger_than_a_generation_is_not_looked_for_there(monkeypatch):
    store = Store(monkeypatch, 4, [THIRD, dict(SECOND, devices={"other": {}})], histories(), SINCE)
    with pytest.raises(Problem, match="is before its first recovery point"):
        store.locate(Wish("time", 250))


def test_latest_and_names_in_older_generations(monkeypatch):
    healing = {4: {"since": 401, "unsafe": [{"first": 401, "last": None, "why": "filled", "good": None}]}}
    assert Store(monkeypatch, 4, [THIRD, SECOND], histories(), SINCE).locate(Wish("latest", None)) == (4, 499)
    assert Store(monkeypatch, 4, [THIRD, SECOND], histories(), {**SINCE, **healing}).locate(Wish("latest", None)) == (3, 399)
    there = {2: {"since": 201, "points": [{"name": "there", "checkpoint": 222}]}}
    store = Store(monkeypatch, 4, [THIRD, SECOND], histories(), {**SINCE, **there})
    assert store.locate(Wish("name", "there")) == (2, 222) and store.asked == [4, 2]
    unread = dict(SECOND, devices={"db": {"unsafe_from": None}})  # its LUN was away when it was retired
    assert Store(monkeypatch, 4, [THIRD, unread], histories(), {**SINCE, **there}).locate(Wish("name", "there")) == (2, 222)
    with pytest.raises(Problem, match="'nowhere' is neither a time nor the name"):
        Store(monkeypatch, 4, [THIRD, SECOND], histories(), SINCE).locate(Wish("name", "nowhere"))


def test_the_one_in_use_is_not_needed_for_what_another_holds(monkeypatch):
    store = Store(monkeypatch, 4, [THIRD, SECOND], {2: histories()[2], 3: histories()[3]}, SINCE)
    assert store.locate(Wish("time", 350)) == (3, 350) and store.asked == [3]
    assert store.locate(Wish("time", 301)) == (2, 300)
    assert store.locate(Wish("latest", None), generation=3) == (3, 399)
    assert store.locate(Wish("number", 222), generation=2) == (2, 222)
    for wish in (Wish("latest", None), Wish("time", 450), Wish("number", 350), Wish("name", "there")):
        with pytest.raises(_points.NotMounted):
            store.locate(wish)
    with pytest.raises(_points.Away, match="attach generation 3 of vault1"):
        store.locate(Wish("time", 350), attach=False)


def test_a_leg_that_failed_before_its_lun_was_retired_is_safe_only_up_to_there(monkeypatch):
    monkeypatch.setattr(_points._catalogue, "load", lambda remote: dict(CATALOGUE, since=201))
    device = DEVICE._replace(point=2, unsafe_from=250, generation=2)
    assert _points.choose(histories()[2], device, _points.catalogue_of(device), Wish("latest", None)).number == 249


def test_points_are_listed_without_the_one_in_use(monkeypatch):
    store = Store(monkeypatch, 4, [THIRD, SECOND], {2: histories()[2]}, SINCE)
    monkeypatch.setattr(_generations, "is_attached", lambda name, number: number == 2)
    for one in store.volumes.values():
        one.block_size = 4096
    found = _points.read_points("db", limit=3)
    assert [(point["checkpoint"], point["generation"]) for point in found["points"]] == [(300, 2), (299, 2), (298, 2)]
    assert found["not_attached"][0] == "generation 4 of vault1, which is in use" and "generation 3 of vault1" in found["not_attached"][1]
    monkeypatch.setattr(_generations, "is_attached", lambda name, number: False)
    with pytest.raises(_points.NotMounted):
        _points.read_points("db")


def test_a_store_that_is_away_names_what_opens_all_the_same(monkeypatch):
    monkeypatch.setattr(_points, "record_of", lambda name: ({"remote": "/store/db.img"}, "vault1"))
    monkeypatch.setattr(_points._catalogue, "mount_of", lambda path: None)
    for retired, told in (([THIRD, SECOND], True), ([], False)):
        monkeypatch.setattr(_generations, "retired", lambda store, retired=retired: retired)
        with pytest.raises(_points.NotMounted) as caught:
            _points.device_named("db")
        assert ("can be opened by its time" in str(caught.value)) == told


def test_the_hour_that_comes_twice_when_clocks_are_put_back_is_two():
    texts = ["2026-10-25 02:15:00+01:00", "2026-10-25 02:45:00+02:00", "2026-10-25 02:15:00+02:00", "2026-10-25 01:15:00+02:00"]
    points = [{"name": text, "time": -number} for number, text in enumerate(texts)]
    assert _points.retained(points, {"hourly": 3}, lambda when: texts[-when]) == {texts[0], texts[1], texts[3]}
    assert _points.retained(points, {"daily": 3, "weekly": 1}, lambda when: texts[-when]) == {texts[0]}


@pytest.fixture(name="store")
def store_fixture(monkeypatch, tmp_path):
    """A store with the catalogue of db, where checkpoint 3 has a name, 5 is the last good one before a window, and all below 100 are protected."""
    volume = Volume(*range(1, 200))
    volume.point = str(tmp_path)
    volume.records = {"recoveries": {}}
    monkeypatch.setattr(_catalogue, "list_records", lambda kind: sorted(volume.records[kind]))
    monkeypatch.setattr(_catalogue, "load_record", lambda kind, name: volume.records[kind][name])
    _catalogue.save(f"{volume.point}/db.img", dict(CATALOGUE, unsafe=[{"first": 6, "last": 9, "why": "a heal", "good": 5}]))
    (tmp_path / "db.img").touch()
    (tmp_path / "notes.json").write_text("[]")  # somebody else's, of which nothing is read
    (tmp_path / "generations.json").write_text('{"generation": 1, "generations": []}')
    return volume


def test_a_checkpoint_stays_protected_while_anything_of_its_store_needs_it(store):
    named, shown = ("points", "db.json", "before"), ("recoveries", None, "db")
    assert _catalogue.is_last_claim(store, 3, named) and not _catalogue.is_last_claim(store, 3, shown)
    assert not _catalogue.is_last_claim(store, 5, shown)
    assert not _catalogue.is_last_claim(store, 150, shown)  # it is not protected
    store.records["recoveries"] = {"db": {"checkpoint": 3, "store_point": store.point}, "far": {"checkpoint": 3, "store_point": "/another/store"}}
    assert not _catalogue.is_last_claim(store, 3, named) and not _catalogue.is_last_claim(store, 3, shown)
    _catalogue.save(f"{store.point}/db.img", dict(CATALOGUE, points=[]))
    assert _catalogue.is_last_claim(store, 3, shown)


def test_what_a_person_has_protected_stays_protected(store):
    assert [_catalogue.is_foreign(store, number) for number in (3, 5, 7, 150)] == [False, False, True, False]
    store.records["recoveries"]["db"] = {"checkpoint": 7, "store_point": store.point, "foreign": True}
    assert _catalogue.is_foreign(store, 7)  # whoever comes next is told so, too
    assert not _catalogue.is_last_claim(store, 7, ("recoveries", None, "db"))


@pytest.mark.parametrize("first, good, released", [(8, 7, []), (151, 150, [150])])
def test_a_window_lets_go_of_its_last_good_checkpoint_unless_a_person_had_protected_it(store, monkeypatch, first, good, released):
    remote = f"{store.point}/db.img"
    _catalogue.save(remote, dict(CATALOGUE, unsafe=[]))
    monkeypatch.setattr(_catalogue, "volume_of", lambda path: store.point)
    for module in (_catalogue, _cleaner):
        monkeypatch.setattr(module, "Volume", lambda point: store)
    _catalogue.open_window(remote, first, "a heal")
    assert store.changed == [("protect", good)]
    store.all = [one._replace(snapshot=True) if one.number == good else one for one in store.all]
    _catalogue.save(remote, _catalogue.without_open(_catalogue.load(remote), first + 2))
    monkeypatch.setattr(_cleaner, "list_records", lambda kind: ["db"])
    monkeypatch.setattr(_cleaner, "load_record", lambda kind, name: {"remote": remote})
    monkeypatch.setattr(store, "release", busy)
    _cleaner.forget(store.point, 60)
    assert bool(_catalogue.load(remote)["unsafe"][0]["good"]) is bool(released)  # what cannot be released now is known to the next look
    monkeypatch.setattr(store, "release", lambda number: store.changed.append(("release", number)))
    _cleaner.forget(store.point, 60)
    assert [number for verb, number in store.changed if verb == "release"] == released
    assert not any(window["good"] for window in _catalogue.load(remote)["unsafe"])


def busy(number):
    raise Problem(f"cannot release checkpoint {number}: Device or resource busy")


def test_a_window_that_is_widened_lets_go_of_what_is_not_before_it_any_more(store, monkeypatch):
    remote = f"{store.point}/db.img"
    _catalogue.save(remote, dict(CATALOGUE, unsafe=[]))
    monkeypatch.setattr(_catalogue, "volume_of", lambda path: store.point)
    monkeypatch.setattr(_catalogue, "Volume", lambda point: store)
    _catalogue.open_window(remote, 151, "a rollback")
    store.all = [one._replace(snapshot=True) if one.number == 150 else one for one in store.all]
    _catalogue.open_window(remote, 141, "the leg was out")
    assert store.changed == [("protect", 150), ("release", 150), ("protect", 140)]
    _catalogue.open_window(remote, 145, "the leg was out")
    assert store.changed[3:] == [("protect", 140)]
    store.all = [one._replace(snapshot=True) if one.number == 140 else one for one in store.all]
    monkeypatch.setattr(store, "release", busy)
    _catalogue.open_window(remote, 131, "the leg was out")  # who has the old one mounted keeps no leg out
    assert store.changed[4:] == [("protect", 130)]
