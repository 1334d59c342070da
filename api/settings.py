"""What can be set from outside: environment variables that begin with ``GUARANTEE_``."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from migrations import SCHEMA


class Settings(BaseSettings):
    """``GUARANTEE_DATABASE_URL``, ``GUARANTEE_HOME``, ``GUARANTEE_SCHEMA``, ``GUARANTEE_HOST``, ``GUARANTEE_PORT`` and
    ``GUARANTEE_LOG_LEVEL``; a variable that is empty counts as unset."""

    model_config = SettingsConfigDict(
        env_prefix="GUARANTEE_", env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )

    database_url: str | None = Field(default=None, repr=False)
    """A PostgreSQL, 15 to 18; by default an embedded one is started under ``home``."""
    home: Path = Path(".guarantee")
    """Where the embedded PostgreSQL lives."""
    ledger_schema: str = Field(default=SCHEMA, validation_alias="GUARANTEE_SCHEMA", pattern=r"^[a-z_][a-z0-9_]{0,55}$")
    """The database schema that holds the ledger; one database may hold many."""
    host: str = "127.0.0.1"
    """The address to serve on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """The port to serve on."""
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """What is logged: this and whatever is worse."""
