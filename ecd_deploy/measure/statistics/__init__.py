"""The statistics of the gate: one-sided confidence bounds, exact or free of a distribution where that is possible.

The distributions come from `scipy.special`: `scipy.stats` knows them too, but takes a second to load, in every command
that decides. `benchmarks/gate_calibration.py` simulates how often each bound errs. Counts may be fractions, so that a
bound can be asked what it would be of more images at the same rates.
"""

from ecd_deploy.measure.device.runner.percentiles import percentile, percentile_upper_bound
from ecd_deploy.measure.statistics.averages import average_drop_upper_bound, average_lower_bound
from ecd_deploy.measure.statistics.means import mean_upper_bound
from ecd_deploy.measure.statistics.proportions import (
    Count,
    accuracy_interval,
    accuracy_lower_bound,
    drop_upper_bound,
    mcnemar_p_value,
    unpaired_drop_upper_bound,
)
from ecd_deploy.measure.statistics.several import shown_above, shown_below

__all__ = [
    "Count",
    "accuracy_interval",
    "accuracy_lower_bound",
    "average_drop_upper_bound",
    "average_lower_bound",
    "drop_upper_bound",
    "mcnemar_p_value",
    "mean_upper_bound",
    "percentile",
    "percentile_upper_bound",
    "shown_above",
    "shown_below",
    "unpaired_drop_upper_bound",
]
