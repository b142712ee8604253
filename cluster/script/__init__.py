"""Scripts (`.scn`) and records: operations on a machine, and what the machine looked like after each step.

A script is no scenario (TOML). It runs on the exact engine, on the vectorised one, and on a real kernel, and
the records of any two can be compared. May import: `cluster.arrays`, `cluster.spec`. Changes machines only
through the methods of `engine.Engine`.

- `parser`, `operations`: text to typed operations; mistakes with line and column.
- `engine`: the protocol that a machine must have to run scripts, and what it shows of itself.
- `runner`: runs a script on a machine and writes the record.
- `record`: the JSON form of records; comparison and files.
- `sysfs`: the files of /sys/kernel/mm/ksm of a simulated machine.
"""
