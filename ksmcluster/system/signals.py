"""SIGTERM (of scancel, timeout) and SIGHUP (of a terminal that is gone) end a command as Ctrl-C does."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: What to say, by exit code: 128 + the signal, as shells have it.
ENDED = {
    128 + signal.SIGINT: "interrupted",
    128 + signal.SIGTERM: "terminated",
    128 + signal.SIGHUP: "hung up",
}


def heeded(*numbers: signal.Signals) -> list[signal.Signals]:
    """Those of the signals that are not ignored; whoever started us with nohup wants it so."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def unwound_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit inside, so that all that has to be undone is undone."""
    numbers = heeded(signal.SIGTERM, signal.SIGHUP)

    def end(number: int, _: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)  # whoever is impatient must not disturb the end
        asked.append(number)
        raise SystemExit(128 + number)

    asked: list[int] = []
    earlier = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    except (OSError, SystemExit) as error:
        if not asked:
            raise
        # A terminal that is gone can show nothing any more; Ray makes SystemExit(1) of ours while it waits.
        raise SystemExit(128 + asked[0]) from error
    finally:
        for number, handler in earlier.items():
            if signal.getsignal(number) is end:  # otherwise it is being ended
                signal.signal(number, handler)
