"""Base class of all settings: frozen pydantic values that are checked once, when the configuration is read."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Immutable settings. An unknown key, an illegal value, NaN or infinity is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
