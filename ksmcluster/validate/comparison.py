"""Compares the records of one script, simulated and real."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cluster.script.record import Json, unfold
from ksmcluster.validate.timing import TimeComparison

Value = int | str


@dataclass(frozen=True, slots=True)
class Step:
    """The values after one step; both sides have the same names in the same order."""

    label: str
    op: str
    simulated: dict[str, Value]
    real: dict[str, Value]

    def differences(self) -> list[str]:
        """Return the names of the values that differ."""
        return [name for name, value in self.simulated.items() if self.real[name] != value]

    def as_json(self) -> Json:
        """The same as data."""
        differing = self.differences()
        return {
            "label": self.label,
            "op": self.op,
            "simulated": self.simulated,
            "real": self.real,
            "differs": differing,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """All steps of a script."""

    release: str
    kernel: str
    engine: str
    steps: list[Step]
    #: Times of each pass, if asked for.
    times: list[TimeComparison] = field(default_factory=list)

    def compared(self) -> int:
        """Return the number of values compared."""
        return sum(len(step.simulated) for step in self.steps)

    def differing(self) -> int:
        """Return the number of values that differ."""
        return sum(len(step.differences()) for step in self.steps)

    def as_json(self) -> Json:
        """The same as data."""
        times = {"times": [time.as_json() for time in self.times]} if self.times else {}
        return {
            "release": self.release,
            "kernel": self.kernel,
            "engine": self.engine,
            "compared": self.compared(),
            "differing": self.differing(),
            "steps": [step.as_json() for step in self.steps],
            **times,
        }


def steps(simulated: Json, real: Json) -> Iterator[Step]:
    """Yield the results of calls, then each record, with the values that both sides have."""
    ours, theirs = _calls(simulated), _calls(real)
    lines = sorted({*ours, *theirs})
    returned = ({f"line {line}": calls.get(line, "ok") for line in lines} for calls in (ours, theirs))
    yield Step("calls", "", *returned)
    pairs = zip(unfold(simulated)["records"], unfold(real)["records"], strict=True)
    for mine, yours in pairs:
        simulated_values, real_values = _values(mine), _values(yours)
        both = [name for name in simulated_values if name in real_values]
        yield Step(
            mine["label"],
            mine["op"],
            {name: simulated_values[name] for name in both},
            {name: real_values[name] for name in both},
        )


def _calls(document: Json) -> dict[int, Value]:
    """Return errors of calls, and scans that did not happen, by line."""
    events = document["events"]
    return {
        event["line"]: event["err"] or event["what"]
        for event in events
        if event["err"] or event["what"] == "noscan"
    }


def _values(record: Json) -> dict[str, Value]:
    """Return counters by name, process statistics as `A.ksm_rmap_items`, region frames as `A.x.frames`."""
    values: dict[str, Value] = {**record["sysfs"], **record["vmstat"]}
    for p, statistics in record["procs"].items():
        values.update({f"{p}.{name}": value for name, value in statistics.items()})
    for region in record["regions"]:
        values[f"{region['p']}.{region['r']}.frames"] = region["part"]
    return values
