"""A program that uses Ray alone: starts empty actors, makes one call to each, and ends."""

from __future__ import annotations

import logging
import sys

import ray


@ray.remote(num_cpus=0)
class Empty:
    """An empty actor."""

    def answer(self) -> int:
        """Return 1."""
        return 1


def main(actors: int) -> None:
    """Start `actors` actors and call each. Raises RuntimeError if one does not answer."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    started = [Empty.remote() for _ in range(actors)]  # type: ignore[attr-defined]
    if sum(ray.get([actor.answer.remote() for actor in started])) != actors:
        raise RuntimeError("an actor did not answer")
    ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
