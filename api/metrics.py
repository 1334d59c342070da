"""Figures about the running door, for Prometheus."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Everything that is counted; one for each application, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.commands = Counter(
            "guarantee_commands", "Commands by name and by what became of them.", ["command", "result"],
            registry=self.registry,
        )  # fmt: skip
        self.command_seconds = Histogram(
            "guarantee_command_seconds", "From the request's headers to the answer.", ["command"], buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.waiting = 0
        """Commands that came in and are not answered yet."""
        waiting = Gauge("guarantee_commands_waiting", "Commands that are not answered yet.", registry=self.registry)
        waiting.set_function(lambda: self.waiting)
        self.requests = Counter(
            "guarantee_http_requests", "Answers by kind of request and status.", ["event", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.followers = Gauge(
            "guarantee_feed_followers", "Clients that hold the event stream open.", registry=self.registry
        )

        self._commands = cache(lambda name, result: self.commands.labels(name, result))
        self._command_seconds = cache(lambda name: self.command_seconds.labels(name))
        self._requests = cache(lambda event, status: self.requests.labels(event, str(status)))

    def command(self, name: str, result: str, seconds: float) -> None:
        """A command was answered."""
        self._commands(name, result).inc()
        self._command_seconds(name).observe(seconds)

    def request(self, event: str, status: int) -> None:
        """A request was answered."""
        self._requests(event, status).inc()

    def text(self, head: int | None, checkpoints: Mapping[str, int]) -> bytes:
        """All figures, with the end of the log, if it is known, and how far each read model lies behind it."""
        if head is None:
            return generate_latest(self.registry)
        return generate_latest(self.registry) + generate_latest(_once(lambda: _positions(head, checkpoints)))


def _positions(head: int, checkpoints: Mapping[str, int]) -> Iterable[Metric]:
    end = GaugeMetricFamily("guarantee_head_position", "The position of the last event in the log.", value=head)
    lag = GaugeMetricFamily(
        "guarantee_read_model_lag", "Events that a read model has not folded yet.", labels=["read_model"]
    )
    for name, position in checkpoints.items():
        lag.add_metric([name], max(0, head - position))
    return end, lag


def _once(collect: Callable[[], Iterable[Metric]]) -> CollectorRegistry:
    class Once(Collector):
        def collect(self) -> Iterable[Metric]:
            return collect()

    registry = CollectorRegistry()
    registry.register(Once())
    return registry
