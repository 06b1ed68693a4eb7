"""Settings of the whole test suite: hypothesis draws the same examples every time, and has no deadline."""

from hypothesis import HealthCheck, settings

settings.register_profile("gatelens", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gatelens")
