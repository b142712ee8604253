"""The state of a machine as numbers: an object graph becomes JSON and arrays, and again an object graph.

Imports numpy alone; changes only the objects that it restores.
"""
