"""The version of ksmcluster."""

from importlib.metadata import version

__version__ = version("ksmcluster")
