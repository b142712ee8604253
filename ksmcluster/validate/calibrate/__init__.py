"""Measures the CPU time of this host's ksmd with small programs, and fits the cost model to it.

Drives ksmd as `ksmcluster.validate.session` does, and restores all KSM settings.
"""
