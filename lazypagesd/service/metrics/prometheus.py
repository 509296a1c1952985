"""As text for Prometheus, which its own library writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from lazypagesd import __version__
from lazypagesd.service.metrics.families import (
    FAMILIES,
    NS,
    Family,
    Kind,
    Snapshot,
    latency_samples,
)

PREFIX = "lazypagesd_"
# Buckets outside of these, from 1 us to 8 s, are counted with their neighbours.
FIRST_BUCKET, LAST_BUCKET = 9, 32


class SnapshotCollector(Collector):
    """Turns a snapshot into what the library writes."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Prepare to tell of *snapshot*."""
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        for family in FAMILIES:
            yield metric_of(family, self._snapshot)
        yield latencies_of(self._snapshot)
        build = GaugeMetricFamily(f"{PREFIX}build_info", "The version", labels=["version"])
        build.add_metric([__version__], 1)
        yield build


def metric_of(family: Family, snapshot: Snapshot) -> Metric:
    """Return one family."""
    samples = list(family.samples(snapshot))
    labels = list(samples[0].labels) if samples else []
    make = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = make(f"{PREFIX}{family.name}", family.help, labels=labels)
    for sample in samples:
        metric.add_metric(list(sample.labels.values()), sample.value)
    return metric


def latencies_of(snapshot: Snapshot) -> Metric:
    """Return the histograms."""
    metric = HistogramMetricFamily(
        f"{PREFIX}fault_latency_seconds",
        "From a fault being read to its page being in, by what it took",
        labels=["restore", "kind"],
    )
    for labels, buckets, sum_ns in latency_samples(snapshot):
        metric.add_metric(list(labels.values()), buckets=cumulated(buckets), sum_value=sum_ns * NS)
    return metric


def cumulated(buckets: Sequence[int]) -> list[tuple[str, float]]:
    """Return how many faults took no longer than what each bucket ends with, in seconds."""
    found = [
        (f"{(2 << bucket) * NS:.9f}", float(sum(buckets[: bucket + 1])))
        for bucket in range(FIRST_BUCKET, LAST_BUCKET + 1)
    ]
    return [*found, ("+Inf", float(sum(buckets)))]


def text_of(snapshot: Snapshot) -> str:
    """Return all of it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SnapshotCollector(snapshot))
    return generate_latest(registry).decode()
