"""Scripts on the simulator beside a real kernel: this host's KSM, or records of other kernels.

Imports engines of `cluster` and `actors`. `validate` drives this host's ksmd as root, on memory of processes
that it starts, and puts all knobs back; `replay` changes nothing outside the simulation.
"""
