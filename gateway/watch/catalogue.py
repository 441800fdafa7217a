"""All metrics in the table of deploy/metrics.md: `python -m gateway.watch.catalogue` prints it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.metrics import MetricWrapperBase

from gateway.watch import metrics
from gateway.watch.figures import FIGURES

_HEAD = "| metric | type | labels | what |\n|---|---|---|---|\n"


def table() -> str:
    return _HEAD + "".join(sorted(_rows()))


def _rows() -> Iterator[str]:
    for figure in FIGURES.values():
        name = f"{figure.name}_total" if figure.counts else figure.name
        yield _row(name, "counter" if figure.counts else "gauge", figure.labels, figure.help)
    for made in vars(metrics).values():
        if isinstance(made, MetricWrapperBase):
            [family] = made.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield _row(name, family.type, made._labelnames, family.documentation)


def _row(name: str, kind: str, labels: Sequence[str], told: str) -> str:
    named = ", ".join(f"`{label}`" for label in labels)
    return f"| `{name}` | {kind} | {named} | {told} |\n"


if __name__ == "__main__":
    print(table(), end="")  # noqa: T201
