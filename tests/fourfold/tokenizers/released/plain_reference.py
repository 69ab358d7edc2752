"""Released tokenizers computed from their files in plain torch, by the reference's key names, without our modules."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


class Plain:
    """Functions of the tensors of one released file; `p` is a prefix of the keys."""

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors = tensors

    def get(self, key: str) -> Tensor:
        return self.tensors[key]

    def linear(self, p: str, x: Tensor) -> Tensor:
        return x @ self.get(f"{p}.weight").T + self.get(f"{p}.bias")

    def conv(self, p: str, x: Tensor, **options) -> Tensor:
        return F.conv2d(x, self.get(f"{p}.weight"), self.get(f"{p}.bias"), **options)

    def layer_norm(self, p: str, x: Tensor, eps: float) -> Tensor:
        centered = x - x.mean(-1, keepdim=True)
        unit = centered / (x.var(-1, correction=0, keepdim=True) + eps).sqrt()
        return unit * self.get(f"{p}.weight") + self.get(f"{p}.bias")

    def group_norm(self, p: str, x: Tensor) -> Tensor:
        groups = x.reshape(len(x), 32, -1)
        unit = (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        shape = (1, -1, *[1] * (x.ndim - 2))
        return unit.reshape(x.shape) * self.get(f"{p}.weight").view(shape) + self.get(f"{p}.bias").view(shape)

    # Global vectors
    # ------------------------------------------------------------------------------------------------------

    def mlp(self, p: str, x: Tensor, num_blocks: int) -> Tensor:
        """(B, C) → (B, C')."""
        x = self.linear(f"{p}.linear_in", x)
        for i in range(num_blocks):
            inner = self.layer_norm(f"{p}.layernorms.{i}", x, 1e-5)
            x = x + self.linear(f"{p}.blocks.{i}.block.2", F.gelu(self.linear(f"{p}.blocks.{i}.block.0", inner)))
        return self.linear(f"{p}.linear_out", x)

    def pointwise(self, p: str, x: Tensor) -> Tensor:
        """Apply a 1 × 1 convolution to vectors (B, C)."""
        return x @ self.get(f"{p}.weight").flatten(1).T + self.get(f"{p}.bias")

    def memcodes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) → ids (B, N), values (B, D)."""
        codes, to_k, to_v = self.get("quantize.codes"), self.get("quantize.to_k.weight"), self.get("quantize.to_v.weight")
        ids, values = [], []
        for codes_Kd, key_dd, value_dd, part in zip(codes, to_k, to_v, x.chunk(len(codes), dim=-1), strict=True):
            scores = (part / math.sqrt(part.shape[-1])) @ (codes_Kd @ key_dd).T
            ids.append(scores.argmax(-1))
            values.append((codes_Kd @ value_dd)[ids[-1]])
        return torch.stack(ids, 1), torch.cat(values, 1)

    def vector_tokenizer(self, vectors: Tensor, num_blocks: int) -> tuple[Tensor, Tensor]:
        """(B, C) → ids (B, N), reconstruction (B, C)."""
        ids, values = self.memcodes(self.pointwise("quant_proj", self.mlp("encoder", vectors, num_blocks)))
        return ids, self.mlp("decoder", self.pointwise("post_quant_proj", values), num_blocks)

    # Averaged codebooks
    # ---------------------------------------------------------------------------------------------------

    def averaged(self, latents: Tensor, heads: int, unit: bool, cosine: bool) -> tuple[Tensor, Tensor, Tensor]:
        """(T, D) → ids (T, N), codes (T, D) as they leave the quantizer, commitment loss."""
        x = self.linear("quantize.project_in", latents) if heads > 1 else latents
        parts = x.reshape(len(x), heads, -1)
        parts = parts / parts.norm(dim=-1, keepdim=True) if unit else parts
        table = self.get("quantize._codebook.embed")
        if cosine:
            near = (parts / parts.norm(dim=-1, keepdim=True)) @ (table / table.norm(dim=-1, keepdim=True)).T
        else:
            near = -(parts[:, :, None] - table).norm(dim=-1)
        ids = near.argmax(-1)
        codes = table[ids]
        merged = codes.reshape(len(x), -1)
        merged = self.linear("quantize.project_out", merged) if heads > 1 else merged
        return ids, merged, ((codes - parts) ** 2).mean()

    def convnext(self, p: str, x: Tensor) -> Tensor:
        inner = self.conv(f"{p}.dwconv", x, padding=3, groups=x.shape[1]).permute(0, 2, 3, 1)
        inner = self.linear(f"{p}.pwconv1", self.layer_norm(f"{p}.norm", inner, 1e-6))
        inner = self.linear(f"{p}.pwconv2", F.gelu(inner)) * self.get(f"{p}.gamma")
        return x + inner.permute(0, 3, 1, 2)

    # The diffusion decoder
    # -------------------------------------------------------------------------------------------------

    def unet(self, image: Tensor, step: Tensor, codes: Tensor, patch: int) -> Tensor:
        """(B, C, H, W), (B,), (B, D, h, w) → (B, C, H, W)."""
        batch, channels, height, width = image.shape
        x = image.reshape(batch, channels, height // patch, patch, width // patch, patch)
        x = x.permute(0, 1, 3, 5, 2, 4).reshape(batch, -1, height // patch, width // patch)
        rows = torch.arange(x.shape[2]) * codes.shape[2] // x.shape[2]
        columns = torch.arange(x.shape[3]) * codes.shape[3] // x.shape[3]
        x = torch.cat([x, codes[:, :, rows][:, :, :, columns]], 1)
        half = self.get("decoder.time_embed.0.weight").shape[1] // 2
        angles = step[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)
        time = self.linear("decoder.time_embed.0", torch.cat([angles.cos(), angles.sin()], 1))
        time = self.linear("decoder.time_embed.2", F.silu(time))
        kept = []
        for i in range(self.count("decoder.input_blocks")):
            x = self.stage(f"decoder.input_blocks.{i}", x, time)
            kept.append(x)
        x = self.stage("decoder.middle_block", x, time)
        for i in range(self.count("decoder.output_blocks")):
            x = self.stage(f"decoder.output_blocks.{i}", torch.cat([x, kept.pop()], 1), time)
        x = self.conv("decoder.out.2", F.silu(self.group_norm("decoder.out.0", x)), padding=1)
        x = x.reshape(batch, channels, patch, patch, height // patch, width // patch)
        return x.permute(0, 1, 4, 2, 5, 3).reshape(image.shape)

    def count(self, p: str) -> int:
        return 1 + max(int(key.removeprefix(f"{p}.").split(".")[0]) for key in self.tensors if key.startswith(f"{p}."))

    def stage(self, p: str, x: Tensor, time: Tensor) -> Tensor:
        for j in range(self.count(p)):
            x = self.layer(f"{p}.{j}", x, time)
        return x

    def layer(self, p: str, x: Tensor, time: Tensor) -> Tensor:
        if f"{p}.in_layers.0.weight" in self.tensors:
            inner = self.conv(f"{p}.in_layers.2", F.silu(self.group_norm(f"{p}.in_layers.0", x)), padding=1)
            inner = inner + self.linear(f"{p}.emb_layers.1", F.silu(time))[:, :, None, None]
            inner = self.conv(f"{p}.out_layers.3", F.silu(self.group_norm(f"{p}.out_layers.0", inner)), padding=1)
            return inner + (self.conv(f"{p}.skip_connection", x) if f"{p}.skip_connection.weight" in self.tensors else x)
        if f"{p}.qkv.weight" in self.tensors:
            flat = x.flatten(2)
            q, k, v = F.conv1d(
                self.group_norm(f"{p}.norm", flat), self.get(f"{p}.qkv.weight"), self.get(f"{p}.qkv.bias")
            ).chunk(3, 1)
            shares = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(q.shape[1]), -1)
            out = F.conv1d(v @ shares.transpose(1, 2), self.get(f"{p}.proj_out.weight"), self.get(f"{p}.proj_out.bias"))
            return (flat + out).reshape(x.shape)
        if f"{p}.op.weight" in self.tensors:
            return self.conv(f"{p}.op", x, stride=2, padding=1)
        if f"{p}.conv.weight" in self.tensors:
            return self.conv(f"{p}.conv", x.repeat_interleave(2, 2).repeat_interleave(2, 3), padding=1)
        return self.conv(p, x, padding=1)
