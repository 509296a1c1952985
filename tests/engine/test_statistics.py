"""What sessions did, as numbers and as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lazypagesd.engine.statistics import KINDS, Counters, Latency, report
from lazypagesd.native import lib
from tests.engine.bed import Bed, accounted, at, check

NOTHING = Counters.total([])
NO_LATENCY = Latency.total([])

REPORT = """\
pages  in image  on demand  neighbour  drain  present  dropped  missing  zero  MiB  fills
   12       100          3         47     29        1       10       10     1  0.3      9
 12.1         5          0          0      5        0        0        0     0  0.0      1
  all       105          3         47     34        1       10       10     1  0.3     10
faults  read  mean us  p50 us  p99 us  max us  retries  requeues  misses  held  fork\
  remap  remove  unmap  guessed
    12     4      3.5     4.1     4.5     4.5        0         0       0     0     0    \
  0       0      0        0
  12.1     0      0.0     0.0     0.0     0.0        0         0       0     0     2    \
  0       0      0        0
   all     4      3.5     4.1     4.5     4.5        0         0       0     0     2    \
  0       0      0        0
latencies from: 2.0 us 2, 4.1 us 1
4 faults served, mean 3.5 us, 99 % within 4.5 us; 0.3 MiB filled, 10 pages missing
"""


def latency(*, sum_ns: int = 0, max_ns: int = 1 << 30, **counts: int) -> Latency:
    """Return so many faults of each bucket: ``_11=3`` is three of bucket 11."""
    buckets = [0] * lib.LPD_NR_LATENCY_BUCKETS
    for name, count in counts.items():
        buckets[int(name[1:])] = count
    return Latency(sum(buckets), sum_ns, max_ns, tuple(buckets))


def of_kinds(**latencies: Latency) -> tuple[Latency, ...]:
    """Return latencies as counters have them."""
    return tuple(latencies.get(kind, NO_LATENCY) for kind in KINDS)


def test_percentile_is_the_end_of_a_bucket() -> None:
    """Half of the faults took no longer than where the bucket of the middle one ends."""
    found = latency(_10=50, _12=49, _20=1)
    assert found.percentile_ns(0.50) == 2 << 10
    assert found.percentile_ns(0.51) == 2 << 12
    assert found.percentile_ns(0.99) == 2 << 12
    assert found.percentile_ns(1.0) == 2 << 20


def test_percentile_is_never_over_the_maximum() -> None:
    """No percentile is longer than the longest latency."""
    assert latency(_10=1, max_ns=1500).percentile_ns(0.5) == 1500


def test_percentile_and_mean_of_nothing() -> None:
    """Without a fault there are no latencies."""
    assert NO_LATENCY.percentile_ns(0.5) == 0
    assert NO_LATENCY.mean_ns == 0


def test_mean_is_over_the_faults_that_were_filled() -> None:
    """The mean is the sum over the number of faults in the histogram."""
    assert latency(_10=3, _11=1, sum_ns=6000).mean_ns == 1500


def test_total_adds_up_but_for_the_maximum() -> None:
    """A total has the sums, bucket by bucket, and the longest latency."""
    kinds = of_kinds(image=latency(_3=1, _4=2, max_ns=20))
    one = replace(NOTHING, latencies=kinds, faults=3, nr_pages=10, bytes=4096)
    kinds = of_kinds(image=latency(_4=5, max_ns=30), cold=latency(_4=1, max_ns=40))
    two = replace(NOTHING, latencies=kinds, faults=6, nr_pages=7)
    total = Counters.total([one, two])
    assert (total.faults, total.nr_pages, total.bytes) == (9, 17, 4096)
    assert [each.buckets[3:5] for each in total.latencies] == [(1, 7), (0, 0), (0, 0), (0, 1)]
    assert [each.max_ns for each in total.latencies] == [30, 0, 0, 40]
    assert (total.latency.count, total.latency.max_ns) == (9, 40)


def test_report_on_sessions() -> None:
    """A report says of each session, and of all, what was filled and how faults fared."""
    one = replace(
        NOTHING,
        latencies=of_kinds(image=latency(_11=2, _12=1, sum_ns=10500, max_ns=4500)),
        nr_pages=100,
        nr_missing=10,
        faults=4,
        pages_fault=3,
        pages_neighbour=47,
        pages_drain=29,
        pages_zero=1,
        pages_present=1,
        pages_dropped=10,
        bytes=79 * 4096,
        fills=9,
    )
    two = replace(NOTHING, nr_pages=5, pages_drain=5, bytes=5 * 4096, fills=1, events_fork=2)
    assert report([("12", one), ("12.1", two)]) == REPORT.splitlines()


def test_report_on_one_session_has_no_sum() -> None:
    """A single session is its own sum."""
    assert not any("all" in line.split() for line in report([("12", NOTHING)]))


def test_report_without_faults() -> None:
    """Without a fault there are no latencies to name."""
    assert "latencies from: no fault was filled" in report([])


@pytest.mark.uffd
async def test_counters_add_up(bed: Bed) -> None:
    """Every page of the image is counted once, whoever filled it or gave it up."""
    victim, image = bed.victim((0, 600)), bed.image((0, 500))
    victim.call("fill", at(400), 0x11)
    bed.attach(victim, image)
    await check(victim, image, 100, 3)
    await check(victim, image, 550, 2)
    await victim.discard(at(20), 10)
    await victim.munmap(at(40), 10)
    await bed.release()
    counters = bed.counters
    assert counters.nr_pages == accounted(counters) == 500
    assert counters.nr_missing == 0
    assert counters.faults == 5
    assert (counters.pages_fault, counters.pages_zero, counters.pages_present) == (3, 2, 1)
    assert counters.pages_dropped == 20
    assert (counters.events_remove, counters.events_unmap) == (1, 1)
    assert counters.bytes == 4096 * (3 + counters.pages_neighbour + counters.pages_drain)


@pytest.mark.uffd
async def test_latencies_are_of_the_faults_that_were_filled(bed: Bed) -> None:
    """The histogram has one entry for each fill on demand, and fits sum and maximum."""
    victim, image = bed.serve([(0, 64)], [(0, 32)])
    await check(victim, image, 0, 64)
    # Counted last of all.
    await bed.until(lambda: bed.counters.latency.count == 64, "the last latency")
    counters, found = bed.counters, bed.counters.latency
    assert sum(found.buckets) == counters.pages_fault + counters.pages_zero == 64
    assert [each.count for each in counters.latencies] == [32, 32, 0, 0]
    assert found.sum_ns >= sum(n << i for i, n in enumerate(found.buckets))
    assert found.max_ns <= found.sum_ns
    assert found.buckets[found.max_ns.bit_length() - 1] > 0
    assert 0 < found.percentile_ns(0.5) <= found.max_ns


@pytest.mark.uffd
async def test_counters_outlive_the_session(bed: Bed) -> None:
    """What a session did can still be read when it has ended."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    await check(victim, image, 0)
    await bed.release()
    assert bed.session.final == bed.counters
    assert bed.counters.pages_fault == 1
