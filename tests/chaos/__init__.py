"""Deaths at random moments of whole runs: each run has to end with the bytes of an undisturbed one.

`make chaos` runs them; `test_chaos.py` is the short form.
"""
