"""A file becomes a Router: TOML, JSON, or YAML where PyYAML is there."""

from banditroute.config.files import ConfigError, check_config, config_schema, read_config
from banditroute.config.routers import from_config, summary
from banditroute.config.workers import worker_router

__all__ = [
    "ConfigError",
    "check_config",
    "config_schema",
    "from_config",
    "read_config",
    "summary",
    "worker_router",
]
