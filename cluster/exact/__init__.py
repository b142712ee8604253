"""The exact engine: a sequential model of ksmd with the kernel's own ordered trees."""

from cluster.exact.engine import ExactEngine

__all__ = ["ExactEngine"]
