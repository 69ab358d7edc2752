"""Settings of the masking. Defaults are those of 4M-7's main models (arXiv 2312.06647, pre-training settings)."""

from collections.abc import Collection, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fourfold.configuration import Config
from fourfold.modalities import FOUR_M_7

KeepScheme = Literal["random", "all", "binary"]  # tokens of a sequence are kept with probability U(0, 1), 1, or 0 or 1
Alpha = Annotated[float, Field(ge=0)]
TOKENS = tuple(name for name in FOUR_M_7 if name != "rgb")  # pixels are input only


class MixtureComponent(Config):
    """One component of the mixture: which modalities tend to be inputs, and which targets.

    The alphas are Dirichlet concentrations by token modality; a modality without alpha, or with 0, never gets a token.
    Small alphas concentrate a sample on few modalities, large ones share evenly in proportion.
    """

    weight: Annotated[float, Field(gt=0)] = 1.0  # relative to the other components
    alpha_in: dict[str, Alpha]
    alpha_target: dict[str, Alpha]
    keep: KeepScheme | dict[str, KeepScheme] = "random"  # for all sequences, or by name ("random" for those not named)

    def keep_of(self, name: str) -> KeepScheme:
        """Return the scheme by which tokens of a sequence are kept."""
        return self.keep.get(name, "random") if isinstance(self.keep, dict) else self.keep

    @model_validator(mode="after")
    def _both_sides_have_an_alpha(self) -> Self:
        for alphas in (self.alpha_in, self.alpha_target):
            if not any(alphas.values()):
                raise ValueError("A mixture component needs at least one alpha above 0 in `alpha_in` and in `alpha_target`.")
        return self


def main_mixture() -> tuple[MixtureComponent, ...]:
    """Return the mixture of 4M-7's main models: half RGB → all, half all → all."""
    targets = dict.fromkeys(TOKENS, 0.5)
    return (
        MixtureComponent(alpha_in={"rgb": 1000.0}, alpha_target=targets),
        MixtureComponent(alpha_in={"rgb": 0.5, **targets}, alpha_target=targets),
    )


def without(components: Sequence[MixtureComponent], left_out: Collection[str]) -> tuple[MixtureComponent, ...]:
    """Return the components without the alphas of some modalities; one that has no alpha left on a side is left out.

    Raises:
        ValueError: no component is left.
    """
    kept = []
    for component in components:
        sides = [
            {name: alpha for name, alpha in alphas.items() if name not in left_out}
            for alphas in (component.alpha_in, component.alpha_target)
        ]
        if all(any(alphas.values()) for alphas in sides):
            kept.append(component.model_copy(update={"alpha_in": sides[0], "alpha_target": sides[1]}))
    if not kept:
        raise ValueError(
            f"No component of the masking has both an input and a target without {', '.join(sorted(left_out))}, which these "
            "data do not have. Name the modalities of the data in pretraining.masking.components."
        )
    return tuple(kept)


class MaskingConfig(Config):
    """How many tokens of which modalities are inputs and targets."""

    components: tuple[MixtureComponent, ...] = Field(default_factory=main_mixture, min_length=1)
    input_tokens: int = Field(default=128, ge=1)  # budget of a sample
    target_tokens: int = Field(default=128, ge=1)  # budget of a sample
    min_input_tokens: int | None = Field(default=None, ge=1)  # draw the budget from U(min, input_tokens); None: fixed
    min_target_tokens: int | None = Field(default=None, ge=1)  # likewise
    # Sequences that are masked in whole chunks, e.g. det: 5 tokens; for others the table of modalities decides.
    chunk_lengths: dict[str, Annotated[int, Field(ge=1)]] = Field(default={})
    keep_drawn_per: Literal["sample", "sequence"] = "sample"  # 4M's released code draws it for each sequence of a sample

    @model_validator(mode="after")
    def _ranges_are_not_empty(self) -> Self:
        for name in ("input_tokens", "target_tokens"):
            low, high = getattr(self, f"min_{name}"), getattr(self, name)
            if low is not None and low > high:
                raise ValueError(f"`min_{name}` is {low}, above `{name}` {high}. Lower it or raise `{name}`.")
        return self
