"""Commands that show results: as pictures, and as a page."""
