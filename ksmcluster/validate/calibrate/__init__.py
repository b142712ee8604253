"""The CPU time of this host's ksmd, measured: small programs, what ksmd does to them, and a fit of both.

Drives ksmd as `ksmcluster.validate.session` does, and puts all knobs back.
"""
