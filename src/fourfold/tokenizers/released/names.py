"""Names of tensors in released tokenizers (apple/ml-4m) for our names of them."""

import re
from collections import Counter

from fourfold.model.released.files import Tensors, lacking
from fourfold.tokenizers.networks.unet import UNetConfig

# Our prefix of a tensor's name → the released prefix. The table of the module renames the rest of the name.
PREFIXES = {
    "classes.": "cls_emb.",
    "to_latents.": "quant_proj.",
    "from_latents.": "post_quant_proj.",
    "bottleneck.split.": "quantize.project_in.",
    "bottleneck.join.": "quantize.project_out.",
    "bottleneck.table.codes_KD": "quantize._codebook.embed",
    "bottleneck.table.counts_K": "quantize._codebook.cluster_size",
    "bottleneck.table.sums_KD": "quantize._codebook.embed_avg",
    "bottleneck.codes_NKd": "quantize.codes",
    "bottleneck.to_keys_Ndd": "quantize.to_k.weight",
    "bottleneck.to_values_Ndd": "quantize.to_v.weight",
    "encoder.project.": "encoder.proj.",
    "encoder.trunk.": "encoder.",
    "decoder.project.": "decoder.out_proj.",
    "decoder.trunk.": "decoder.",
    "decoder.output_blocks.": "decoder.out_conv.",
    "decoder.time_in.": "decoder.time_embed.0.",
    "decoder.time_out.": "decoder.time_embed.2.",
    "decoder.down.": "decoder.input_blocks.",
    "decoder.middle.": "decoder.middle_block.",
    "decoder.up.": "decoder.output_blocks.",
    "decoder.norm_out.": "decoder.out.0.",
    "decoder.conv_out.": "decoder.out.2.",
}
TRUNK = {
    ".position_1Dhw": ".pos_emb",
    ".post_norm.": ".norm_mlp.",
    ".post_mlp.up.": ".post_mlp.fc1.",
    ".post_mlp.down.": ".post_mlp.fc2.",
    ".attention_norm.": ".norm1.",
    ".qkv.": ".attn.qkv.",
    ".out.": ".attn.proj.",
    ".mlp_norm.": ".norm2.",
    ".mlp.up.": ".mlp.fc1.",
    ".mlp.down.": ".mlp.fc2.",
}
CONVNEXT = {".spatial.": ".dwconv.", ".mlp.up.": ".pwconv1.", ".mlp.down.": ".pwconv2.", ".scale_C": ".gamma"}
VECTOR_MLP = {
    ".enter.": ".linear_in.",
    ".leave.": ".linear_out.",
    ".norms.": ".layernorms.",
    ".up.": ".block.0.",
    ".down.": ".block.2.",
}
UNET = {
    ".norm_in.": ".in_layers.0.",
    ".conv_in.": ".in_layers.2.",
    ".time.": ".emb_layers.1.",
    ".norm_out.": ".out_layers.0.",
    ".conv_out.": ".out_layers.3.",
    ".skip.": ".skip_connection.",
    ".out.": ".proj_out.",
}
INITIALIZED = "quantize._codebook.initted"  # tells the reference not to run k-means at the first batch


def released_name(ours: str) -> str:
    """Return the name in released files of one of our tensors."""
    start = next((start for start in PREFIXES if ours.startswith(start)), "")
    if not start:  # the MLPs of vectors: `encoder.blocks.0.up.weight`
        side, _, rest = ours.partition(".")
        return f"{side}." + _renamed(rest, VECTOR_MLP)
    rest = ours.removeprefix(start)
    if start in ("encoder.trunk.", "decoder.trunk."):
        return PREFIXES[start] + _renamed(rest, TRUNK)
    if start == "decoder.output_blocks.":
        return PREFIXES[start] + _renamed(rest, CONVNEXT)
    if start in ("decoder.down.", "decoder.middle.", "decoder.up."):
        inner = _renamed(rest, UNET)
        # released files call the halving convolution `op` and the doubling one `conv`
        return PREFIXES[start] + (inner.replace(".conv.", ".op.") if start == "decoder.down." else inner)
    return PREFIXES[start] + rest


def unet_of(theirs: Tensors, channels: int, latent_width: int) -> UNetConfig:
    """Return the configuration of a U-Net from the names and shapes of its tensors."""
    numbers = {int(found[1]) for key in theirs if (found := re.match(r"decoder\.input_blocks\.(\d+)\.", key))}
    if not numbers or numbers != set(range(len(numbers))):
        missing = next(number for number in range(len(numbers) + 1) if number not in numbers)
        raise ValueError(lacking([f"decoder.input_blocks.{missing}"]))
    embed = "decoder.time_embed"
    width = theirs.commonest((f"{embed}.0.bias", 0), *((f"{embed}.2.{part}", 0) for part in ("weight", "bias"))) // 4
    levels: list[list[int]] = [[]]
    attention = set()
    for number in range(1, len(numbers)):
        start = f"decoder.input_blocks.{number}."
        if theirs.below(f"{start}0.op."):
            levels.append([])
            continue
        layers = ("in_layers.2", "out_layers.0", "out_layers.3")
        places = [(f"{start}0.{layer}.{part}", 0) for layer in layers for part in ("weight", "bias")]
        levels[-1].append(theirs.commonest(*places))
        attention |= {2 ** (len(levels) - 1)} if theirs.below(f"{start}1.") else set()
    if not width or not all(levels):
        raise ValueError("its U-Net has a level without blocks; every level must have some. Download it again.")
    return UNetConfig(
        patch_size=_patch_size(theirs, channels, latent_width),
        width=width,
        multipliers=tuple(widths[-1] // width for widths in levels),
        blocks_per_level=len(levels[0]),
        attention_at=tuple(sorted(attention)),
    )


def _patch_size(theirs: Tensors, channels: int, latent_width: int) -> int:
    """Return the side of the patches that become channels, from the output and, if that is damaged, from the input."""
    entry = "decoder.input_blocks.0.0.weight"
    found = [theirs[key].shape[0] for part in ("weight", "bias") if (key := f"decoder.out.2.{part}") in theirs]
    found += [theirs[entry].shape[1] - latent_width] if entry in theirs and theirs[entry].ndim > 1 else []
    if not found:
        raise ValueError(lacking(["decoder.out.2.weight"]))
    return max(1, round((max(0, Counter(found).most_common(1)[0][0]) / channels) ** 0.5))


def _renamed(name: str, table: dict[str, str]) -> str:
    renamed = f".{name}"
    for ours, theirs in table.items():
        renamed = renamed.replace(ours, theirs)
    return renamed[1:]
