import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import uvicorn
from prefect.server.database import dependencies
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_SERVER_API_PORT, temporary_settings

from flows import guarded_server
from flows.server_database import SmallCache, bound_cache


@pytest.fixture(autouse=True)
def own_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dependencies.MODELS_DEPENDENCIES, "database_config", None)


def test_a_connection_keeps_two_megabytes_of_the_database_and_is_else_as_prefect_has_it(tmp_path: Path) -> None:
    async def pragmas() -> list[Any]:
        engine = await SmallCache(connection_url=f"sqlite+aiosqlite:///{tmp_path / 'prefect.db'}").engine()
        async with engine.connect() as connection:
            names = ("cache_size", "journal_mode", "foreign_keys")
            found = [(await connection.execute(sa.text(f"PRAGMA {name}"))).scalar() for name in names]
        await engine.dispose()
        return found

    assert asyncio.run(pragmas()) == [-2000, "wal", 1]
    with sqlite3.connect(tmp_path / "prefect.db") as plain:
        assert plain.execute("PRAGMA cache_size").fetchone() == (-2000,), "SQLite's own default"


def test_another_database_is_left_to_prefect() -> None:
    bound_cache("postgresql+asyncpg://somebody@localhost/prefect")
    assert dependencies.MODELS_DEPENDENCIES["database_config"] is None


def test_the_server_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, begun = f"sqlite+aiosqlite:///{tmp_path / 'prefect.db'}", []
    monkeypatch.setattr(uvicorn, "run", lambda *_, **options: begun.append(options["port"]))
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: url, PREFECT_SERVER_API_PORT: 4299}):
        guarded_server.main()
        database = dependencies.provide_database_interface().database_config
    assert begun == [4299]
    assert "trim" in {thread.name for thread in threading.enumerate()}
    assert isinstance(database, SmallCache)
    assert database.connection_url == url
