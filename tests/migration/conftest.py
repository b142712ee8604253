"""Settings for these tests."""

from hypothesis import settings

# the machine that runs the tests may be busy, and how long an example takes says nothing
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
