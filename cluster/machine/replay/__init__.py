"""The machine as replays of scripts need it: named processes, records, memory failure."""
