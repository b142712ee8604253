"""What becomes of the pages of one scan window."""
