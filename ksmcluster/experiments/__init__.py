"""Many runs from one question: sweeps over keys of a scenario, comparisons of runs, the best of many points.

Imports `ksmcluster.api` and `ksmcluster.results`. A sweep writes only into its own directory.
"""
