"""The whole machine: nodes, their processes' workload, and the coordinator with ksmd's passes.

`Node.step` is the only way into a node; other packages reach the nodes through `Machine`. May import every
package of `cluster` but `exact`; no other package of `cluster` imports it.
"""
