"""Any transport with any scheduler: sandbox, staging, recovery."""

from intercede.core.registry import ComposedBackendPlugin

from ._backend import BatchBackend
from ._config import BatchConfig

__all__ = ["BatchBackend", "BatchConfig", "plugin"]

#: The entry point `batch` of `intercede.backends`.
plugin = ComposedBackendPlugin(
    BatchConfig, BatchBackend, summary="Any transport with any scheduler"
)
