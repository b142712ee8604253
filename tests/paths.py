"""Where tests find data and documents."""

from pathlib import Path

_TESTS = Path(__file__).parent
DATA = _TESTS / "data"
REPOSITORY = _TESTS.parent
DOCS = REPOSITORY / "docs"
GOLDEN = _TESTS / "golden"
#: Scripts after the kernel's own tests of KSM.
SELFTESTS = _TESTS / "scenarios" / "selftests"
