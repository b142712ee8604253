"""What coordinators and node actors send each other without Ray: requests on lines, and large mail."""
