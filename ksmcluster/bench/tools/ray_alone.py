"""What Ray takes without us: starts so many empty actors, has each answer one call, and ends. A program."""

from __future__ import annotations

import logging
import sys

import ray


@ray.remote(num_cpus=0)
class Empty:
    """An actor that has nothing."""

    def answer(self) -> int:
        """The least there is to say."""
        return 1


def main(actors: int) -> None:
    """Raises RuntimeError if not all of them answer."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    started = [Empty.remote() for _ in range(actors)]  # type: ignore[attr-defined]
    if sum(ray.get([actor.answer.remote() for actor in started])) != actors:
        raise RuntimeError("an actor did not answer")
    ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
