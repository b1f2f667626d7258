"""Where the Prefect server notes which run holds a deployment's one place: in files, for longer than it may be away.

`server.concurrency.lease_storage` of pyproject.toml names this module.
"""

from datetime import timedelta
from uuid import UUID

from prefect.server.concurrency.lease_storage import filesystem

#: A run renews its lease every 225 s, for 300 s. If the server is away for five minutes, as little as 75 s of that
#: would be left, and the run would be ended. The rest is the wait before a client's next try, at most five minutes.
LEAST = timedelta(minutes=15)


class ConcurrencyLeaseStorage(filesystem.ConcurrencyLeaseStorage):
    """Prefect's leases in files below ``PREFECT_HOME``, each renewed for at least fifteen minutes."""

    async def renew_lease(self, lease_id: UUID, ttl: timedelta) -> bool:
        """Renew for ``ttl`` or fifteen minutes, whichever is longer; False if there is no such lease."""
        return await super().renew_lease(lease_id, max(ttl, LEAST))
