"""Commands that show results as figures and as an HTML page."""
