"""Classes of users' packages that a scenario names: workload models and placement policies.

Imports `cluster.arrays` and `cluster.spec`. Actors import models and policies only if a scenario names one.
"""
