"""A small electricity grid, N of them at once: what sources, storages and consumers do to each other and to
the bill.

Called by `rlscaler/SmartGrid-v0` (`sim.envs.grid`), by the formula policies and the linear program that it is
compared with (`sim.grid.baselines`, `sim.grid.planning`) and by `training/grid.py`. Everything meets on one
bus. In a step of `step_s` seconds, all powers being means over the step:

* **consumers** want their load, **solar and wind** offer what the weather gives; both come from a series;
* **dispatchable** sources run at a level between `min_kw` and `max_kw`, not faster from one step to the next
  than `ramp_kw_per_h` allows;
* **storages** charge or discharge within their powers and their energy. Of 1 kWh taken from the bus
  `charge_efficiency` is stored, of 1 kWh stored `discharge_efficiency` comes back; what is stored fades by
  `self_discharge_per_h` before the step's power counts;
* the rest is settled at the **connection**: a deficit is imported up to `import_kw`, what is then still
  missing is first not charged and then **unserved**; a surplus is exported up to `export_kw`, the rest is
  **curtailed**. Where exporting costs more than curtailing, nothing is exported; where somebody pays for
  imports more than curtailing costs, local production is curtailed and its place imported. That is the
  cheapest settlement of the step, whatever was asked of sources and storages.

Energy is conserved exactly: local production + import + discharge + unserved = load + charge + export +
curtailed. Money: imports at the step's price, exports at a share of it (`sim.grid.parts.export_price`), fuel,
wear of storages, emissions at a price, unserved and curtailed energy at their prices.
"""

from sim.grid.parts import Connection, Consumer, Dispatchable, Grid, Penalties, Renewable, Storage
from sim.grid.physics import COSTS, GridFlows, GridPhysics
from sim.grid.series import GridSeries

__all__ = [
    "COSTS",
    "Connection",
    "Consumer",
    "Dispatchable",
    "Grid",
    "GridFlows",
    "GridPhysics",
    "GridSeries",
    "Penalties",
    "Renewable",
    "Storage",
]
