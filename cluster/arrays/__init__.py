"""numpy tools: packed words, columns, sorted tables, a red-black tree."""
