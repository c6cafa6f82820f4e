from hypothesis import HealthCheck, settings

# Derandomised: what a commit is tested on does not change from run to run. No deadline: the first call compiles.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("repeatable")
