"""How pages move: taken from their owners, given to them in new frames, or put back (mm/migrate.c).

`isolation` takes pages and puts them back, `migrate_pages` moves them, `retry_passes` says when -EAGAIN leads
to a retry, `predict_retries` moves a batch at once. It imports the package `pages`, and changes the state of
pages by the methods of `PageMap` alone.
"""
