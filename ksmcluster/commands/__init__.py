"""The sub-commands of ksmcluster, one module each."""
