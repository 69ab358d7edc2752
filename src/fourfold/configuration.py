"""Configuration is a frozen value, checked once, at the edge."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of every settings class: immutable, and an unknown key or an illegal value is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
