"""What a fault costs: models of the wait, measured samples, profiles of real servers."""

from banditroute.residency.paging.measured import EmpiricalPaging, Measurement, load_times, measure_paging
from banditroute.residency.paging.model import Link, Paging, PagingModel, as_paging, fault_prices
from banditroute.residency.paging.profiles import PROFILES, adapter_bytes

__all__ = [
    "PROFILES",
    "EmpiricalPaging",
    "Link",
    "Measurement",
    "Paging",
    "PagingModel",
    "adapter_bytes",
    "as_paging",
    "fault_prices",
    "load_times",
    "measure_paging",
]
