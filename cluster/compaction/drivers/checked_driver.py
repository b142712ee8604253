"""Checks of drivers of users' packages. Imported for scenarios that name one."""

from __future__ import annotations

from typing import cast

import numpy as np

from cluster.arrays.words import I64, Bool, Pfns
from cluster.compaction.drivers.scenario_driver import ScenarioDriver
from cluster.compaction.pages.movable_operations import (
    IsolateMode,
    MigrateMode,
    PredictsRetries,
    predicted_retries,
)
from cluster.compaction.pages.page_map import MigrateType
from cluster.plugins.answers import check_array
from cluster.plugins.loading import call


class CheckedDriver:
    """A driver of a user's package, whose calls and answers are checked. Raises PluginError."""

    def __init__(self, who: str, driver: ScenarioDriver) -> None:
        """Take what errors call the driver, such as "driver 'mylab.network:NetworkCard'"."""
        self._who = who
        self.driver = driver
        self.migratetype: MigrateType = getattr(driver, "migratetype", MigrateType.MOVABLE)

    @property
    def page_at(self) -> I64 | None:
        """The number of the driver's page in each frame, below 0 for none; None without such an array."""
        numbers: I64 | None = getattr(self.driver, "page_at", None)
        return numbers

    def allocate(self, count: int) -> I64:
        units = call(self._who, self.driver.allocate, count)
        check_array(f"{self._who}: allocate()", units, np.int64)
        return units

    def discard(self, units: I64) -> None:
        call(self._who, self.driver.discard, units)

    def isolate_page(self, pages: Pfns, mode: IsolateMode) -> Bool:
        granted = call(self._who, self.driver.isolate_page, pages, mode)
        check_array(f"{self._who}: isolate_page()", granted, np.bool_, len(pages))
        return granted

    def migrate_page(self, newpages: Pfns, pages: Pfns, mode: MigrateMode) -> I64:
        answers = call(self._who, self.driver.migrate_page, newpages, pages, mode)
        check_array(f"{self._who}: migrate_page()", answers, np.int64)
        return answers

    def putback_page(self, pages: Pfns) -> None:
        call(self._who, self.driver.putback_page, pages)

    def predict_retries(self, pages: Pfns, mode: MigrateMode) -> I64 | None:
        counts = call(self._who, predicted_retries, self.driver, pages, mode)
        if counts is not None:
            check_array(f"{self._who}: predict_retries()", counts, np.int64, len(pages))
        return counts

    def tried(self, pages: Pfns, times: I64) -> None:
        # The VM calls it only if the driver has predicted its retries.
        call(self._who, cast("PredictsRetries", self.driver).tried, pages, times)
