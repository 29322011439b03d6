# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _capacity
from ansible_collections.indestructible.block.plugins.module_utils._capacity import (
    DAY, HOUR, MINUTE, WEEK, Sample, Usage, crossed, fill_rate, fits, forecast, out_at, thin)
from ansible_collections.indestructible.block.plugins.module_utils._md_super import Bitmap, Super

MIB = 1 << 20
SEGMENTS = 128000  # 1 TB
T0 = 1795000000 // DAY * DAY


def usage(clean, segments=SEGMENTS):
    return Usage("one", clean, segments, segments // 20, 8 * MIB)


def series(rate_at, until, segments=SEGMENTS, step=60, clean=None):
    """Samples of every minute of a store that fills with rate_at(time) segments a second, thinned as they would be by the guard."""
    samples, used = [], float(segments - (segments if clean is None else clean))
    for moment in range(T0, T0 + until, step):
        samples.append(Sample(moment, segments - int(used), segments, 0))
        if len(samples) % 500 == 0:
            samples = thin(samples, moment)
        used += rate_at(moment) * step
    return thin(samples, samples[-1].time)


def office(moment):
    """Eight hours of work and a backup at night."""
    hour = moment % DAY / HOUR
    return 0.06 if 9 <= hour < 17 else 0.2 if 2 <= hour < 3 else 0.01


def seconds_until_full(rate_at, moment, left):
    start = moment
    while left > 0:
        left -= rate_at(moment) * 60
        moment += 60
    return moment - start


@pytest.mark.parametrize("hour", [0, 1, 4, 8, 10, 16, 23])
@pytest.mark.parametrize("days", [3, 10, 40])
def test_a_forecast_of_days_is_right_at_any_hour_of_the_day(hour, days):
    samples = series(office, 9 * DAY + hour * HOUR)
    left = int(office_day() * days)
    limit = samples[-1].clean - left
    told = forecast(samples, samples[-1].time, limit)
    assert told == pytest.approx(seconds_until_full(office, samples[-1].time, left), rel=0.2)


def office_day():
    return sum(office(T0 + moment) * 60 for moment in range(0, DAY, 60))


@pytest.mark.parametrize("minutes", [2, 15, 60, 120])
def test_a_burst_is_seen_at_once(minutes):
    samples = series(lambda moment: 0.01 if moment < T0 + 2 * DAY else 1.0, 2 * DAY + 2 * HOUR)
    told = forecast(samples, samples[-1].time, samples[-1].clean - 60 * minutes)
    assert told == pytest.approx(60 * minutes, rel=0.2)


# The lab, Debian 13: seconds and clean segments of 99 while a writer of 8 MiB a second filled a store; its legs went out at 25 segments, after 53 seconds.
RECORDED = [(0, 79), (2, 78), (5, 75), (7, 73), (9, 71), (11, 68), (13, 66), (15, 65), (18, 63), (20, 59), (22, 57), (24, 55), (26, 54), (28, 51),
            (30, 49), (32, 47), (35, 44), (37, 42), (39, 40), (41, 38), (44, 35), (46, 33), (48, 31), (50, 29), (52, 27), (54, 24)]


@pytest.mark.parametrize("until", range(20, 48))
def test_the_end_of_a_recorded_filling_is_foretold(until):
    samples = [Sample(T0 + second, clean, 99, 0) for second, clean in RECORDED if second <= until]
    now = T0 + until
    assert forecast(samples, now, 25) == pytest.approx(53 - samples[-1].time + T0, rel=0.2)


def test_an_idle_store_is_never_full():
    samples = series(lambda moment: 0, 2 * DAY)
    assert forecast(samples, samples[-1].time, 100) is None


def test_a_store_that_is_young_promises_nothing_far_away():
    samples = series(lambda moment: 0.1, HOUR)
    assert forecast(samples, samples[-1].time, 1000) is None
    assert forecast(samples, samples[-1].time, samples[-1].clean - 360) == pytest.approx(HOUR, rel=0.05)


def test_what_was_quiet_for_an_hour_is_not_full_in_a_minute():
    samples = series(lambda moment: 0.3 if moment < T0 + 2 * DAY else 0, 2 * DAY + HOUR + 600)
    assert forecast(samples, samples[-1].time, samples[-1].clean - 60) >= 2 * HOUR


def test_what_was_quiet_for_minutes_says_nothing_while_it_is_young():
    samples = [Sample(T0 + second, 100 - min(second, 60) // 2, 200, 0) for second in range(0, 400, 5)]
    assert forecast(samples, samples[-1].time, 66) is None


def test_growth_fills_nothing_and_frees_nothing():
    samples = series(lambda moment: 0.05, 3 * DAY)
    later, used = samples[-1].time - samples[0].time + 60, SEGMENTS - samples[-1].clean
    grown = samples + [Sample(sample.time + later, sample.clean - used + 50000, SEGMENTS + 50000, 0) for sample in samples]
    for window in (HOUR, DAY, WEEK):
        assert fill_rate(grown, grown[-1].time, window)[0] == pytest.approx(0.05, rel=0.05)


def test_space_that_is_freed_once_does_not_count():
    samples = series(lambda moment: 0.05, 3 * DAY)
    last = samples[-1].time
    freed = samples + [Sample(last + 60 + 900 * number, samples[-1].clean + 5000 - 45 * number, SEGMENTS, 0) for number in range(96)]
    assert fill_rate(freed, freed[-1].time, WEEK)[0] == pytest.approx(0.05, rel=0.05)


def test_with_a_cleaner_the_net_rate_counts():
    samples = [Sample(T0 + 60 * number, 50000 - 2 * number + (150 if number % 4 > 1 else 0), SEGMENTS, 0) for number in range(61)]
    assert fill_rate(samples, samples[-1].time, HOUR)[0] == pytest.approx(2 / 60, rel=0.1)
    samples = [Sample(T0 + 60 * number, 50000 + (150 if number % 4 > 1 else 0), SEGMENTS, 0) for number in range(61)]
    assert fill_rate(samples, samples[-1].time, HOUR)[0] == pytest.approx(0, abs=0.05)


def with_cleaner(keep, reclaimed, rate, days):
    """What is told each hour of so many days, as (clean segments, forecast in seconds or None), of a store whose cleaner begins below 30 % and ends at 40 %.

    It takes so many segments a second net of what it copies, none that is younger than keep seconds. rate(moment): segments a second that are filled.
    """
    samples, told, filled, clean, cleaning = [], [], [0.0], float(SEGMENTS), False
    for moment in range(T0, T0 + days * DAY, 5 * MINUTE):
        filled.append(filled[-1] + rate(moment) * 5 * MINUTE)
        clean = max(0.0, clean - filled[-1] + filled[-2])
        cleaning = clean < 0.3 * SEGMENTS or cleaning and clean < 0.4 * SEGMENTS
        if cleaning:
            kept = filled[-1] - filled[max(0, len(filled) - 1 - keep // (5 * MINUTE))]
            clean += min(reclaimed * 5 * MINUTE, max(0.0, SEGMENTS - clean - kept))
        samples.append(Sample(moment, int(clean), SEGMENTS, 0))
        if moment % HOUR == 0:
            samples = thin(samples, moment)
            told.append((clean, forecast(samples, moment, SEGMENTS // 20, True)))
    return told


@pytest.mark.parametrize("keep", [7, 10, 14])
@pytest.mark.parametrize("reclaimed", [0.5, 1])
def test_a_store_whose_cleaner_keeps_up_is_never_said_to_be_full_soon(keep, reclaimed):
    average = office_day() / DAY
    told = with_cleaner(keep * DAY, reclaimed, lambda moment: office(moment) / average * 0.6 * SEGMENTS / (keep * DAY), 2 * keep + 6)
    assert min(clean for clean, _left in told) < 0.31 * SEGMENTS  # it has had to clean
    assert [left for _clean, left in told if left is not None] == []


def test_a_store_whose_cleaner_does_not_keep_up_is_said_to_be_full_soon():
    told = with_cleaner(14 * DAY, 0.5, lambda moment: 1.2 * SEGMENTS / (14 * DAY), 12)
    end = next(hour for hour, (clean, _left) in enumerate(told) if clean <= SEGMENTS // 20)
    seen = [(end - hour, left / HOUR) for hour, (_clean, left) in enumerate(told[:end]) if left is not None]
    assert len(seen) > 12 and all(left == pytest.approx(hours, rel=0.1, abs=2) for hours, left in seen)


def test_the_past_is_bounded_and_a_clock_that_was_set_back_forgets_the_future():
    samples = series(lambda moment: 0.01, 20 * DAY)
    assert len(samples) < 270 and samples[0].time >= T0 + 11 * DAY
    assert thin(samples, samples[0].time) == samples[:1]


def test_the_legs_go_out_before_the_kernel_refuses():
    """It refuses when clean <= reserved + dirty + 1."""
    for dirty, peak in ((0, 0), (64 * MIB, 0), (300 * MIB, 50 * MIB), (64 * MIB, 1000 * MIB)):
        for segments in (99, 1000, SEGMENTS):
            one = usage(0, segments)
            assert out_at(one, dirty, peak) - (one.reserved + 1 + dirty // one.segment) > peak // one.segment


def test_legs_come_back_only_where_they_can_stay():
    one = usage(7000)
    limit = out_at(one)
    assert not fits(one._replace(clean=limit), 0) and not fits(one._replace(clean=limit + 1), 0)
    assert fits(one, 0) and not fits(one, 8 * MIB * 7000)
    # they went out when more could come: that this is long ago makes no room
    assert not fits(one, 0, out=6990)


def test_what_a_heal_copies():
    bitmap = Bitmap(1, 1, 8 * MIB, 5, 0, 1 << 30, [(0, 1), (5, 5)])
    leg = Super(*([None] * 13), bitmap)
    assert _capacity.to_copy(leg, {}) == 3 * 8 * MIB
    assert _capacity.to_copy(leg, {"pending": [[1, 2]]}) == 4 * 8 * MIB
    assert _capacity.to_copy(None, {}) == 0


def test_a_level_is_told_of_once():
    told, said = None, []
    for value in (30, 19, 18, 20.5, 19, 9, 9.9, 10.1, 9, 3, 40, 19):
        level, told = crossed(value, [20, 10], told)
        said.append(level)
    assert said == [None, 20, None, None, None, 10, None, None, None, None, None, 20]
    assert crossed(None, [7, 2], 7) == (None, 7) and crossed(5, [], None) == (None, None)
    assert crossed(100, [7, 2], 2, rearm=False) == (None, 2) and crossed(1, [7, 2], None) == (2, 2)


def test_a_history_survives_and_belongs_to_one_volume(tmp_path, monkeypatch):
    monkeypatch.setattr(_capacity, "DIR", str(tmp_path))
    history = _capacity.History("vault1", "one")
    history.add(Sample(T0, 50, 99, 7))
    history.told, history.out = {"free": 20}, 27
    history.save()
    again = _capacity.History("vault1", "one")
    assert (again.samples, again.told, again.out) == (history.samples, {"free": 20}, 27)
    assert _capacity.out_of("one") == 27 and _capacity.out_of("two") is None
    other = _capacity.History("vault1", "two")
    assert (other.samples, other.told, other.out) == ([], {}, None)
    (tmp_path / "vault1.json").write_text("{")
    assert _capacity.History("vault1", "one").samples == [] and _capacity.out_of("one") is None
