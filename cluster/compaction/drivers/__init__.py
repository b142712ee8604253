"""Drivers of movable pages, one whose pages never move, and the base class for drivers of users.

`registry` makes a driver by its name in a scenario. It imports the packages `movable` and `pages`, and
changes pages of its own by their methods alone.
"""
