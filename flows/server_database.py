"""The database of Prefect's server, with a cache that does not grow with the records in it."""

from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

CACHE_KIB = 2_000  # of a connection: SQLite's own default


class SmallCache(AioSqliteConfiguration):
    """SQLite as Prefect sets it up, but for its cache.

    Prefect allows each connection 20,000 pages, 80 MB: in months, all connections together would come to hold the whole
    database several times, 0.6 MB more with each run. The system keeps the file in its own cache as it is.
    """

    def setup_sqlite(self, conn: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        """Set a new connection up."""
        super().setup_sqlite(conn, record)
        cursor = conn.cursor()
        cursor.execute(f"PRAGMA cache_size = -{CACHE_KIB};")
        cursor.close()


def bound_cache(connection_url: str) -> None:
    """Let the server of this process have a small cache, if its database is SQLite's."""
    if make_url(connection_url).get_backend_name() == "sqlite":
        set_database_config(SmallCache(connection_url=connection_url))
