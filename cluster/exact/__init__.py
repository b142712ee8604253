"""The exact engine: a sequential model of ksmd with the kernel's own ordered trees.

The other engines are compared with it. May import: `cluster.arrays`, `cluster.spec`, `cluster.script`, and of
`cluster.mm` only `anon_vma`. Changes only its own objects. Nothing imports this package except
`ksmcluster.validate.replay` and tests, so that the vectorised engine cannot depend on it.

Both engines share the modules below. A mistake in one of them would be the same in both, so only records of
real kernels can find it; docs/explanation/exact.md names the records that do.

- `cluster.mm.anon_vma.AnonVmas`: which VMAs have an anon_vma, and which pages fork copies;
- `cluster.arrays.rbtree`: the shape of the trees;
- `cluster.spec.profile`: which rule begins with which kernel;
- `cluster.spec.content`: the order of pages in trees;
- `cluster.spec.knobs`, `cluster.script.sysfs`: counters, knobs, and the errors of writes to knobs.
"""

from cluster.exact.engine import ExactEngine

__all__ = ["ExactEngine"]
