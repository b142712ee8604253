"""The whole machine: nodes, their processes' workload, and the coordinator with ksmd's passes.

`Node.step` is the only way into a node; other rooms and packages reach the nodes through `Machine`. May
import every room of `cluster` but `exact`; no other room imports it.
"""
