"""Settings of the whole test suite: hypothesis draws the same examples every time; torch keeps to one thread.

The models are small, so more threads only wait for each other.
"""

import torch
from hypothesis import HealthCheck, settings

settings.register_profile("gatelens", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gatelens")
torch.set_num_threads(1)
