"""Running scenarios from Python: what the commands `simulate`, `resume` and `compact` do.

Imports `ksmcluster.config`, `ksmcluster.results`, `ksmcluster.snapshot` and `ksmcluster.system`.
"""

from ksmcluster.api.compacting import compact as compact
from ksmcluster.api.resuming import resume as resume
from ksmcluster.api.running import one_line as one_line
from ksmcluster.api.simulating import run as run
from ksmcluster.api.simulating import simulate as simulate
