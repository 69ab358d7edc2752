"""Checkpoints with random weights in the format of the Hugging Face hub, of a few kilobytes to a megabyte each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

hf.utils.logging.disable_progress_bar()

CLASSES = {0: "wall", 1: "sky", 2: "person", 3: "car", 4: "dog"}
LABELS = {"id2label": CLASSES, "label2id": {name: i for i, name in CLASSES.items()}}
VIT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
PATCHES = VIT | {"image_size": 28, "patch_size": 14}
DINO = {"out_features": [f"stage{i}" for i in range(1, 5)], "apply_layernorm": True, "reshape_hidden_states": False}
NECK = {
    "reassemble_hidden_size": 16,
    "reassemble_factors": [4, 2, 1, 0.5],
    "neck_hidden_sizes": [4, 4, 8, 8],
    "fusion_hidden_size": 8,
}
SWIN = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "window_size": 2, "image_size": 32, "patch_size": 2}
RESNET = {
    "embedding_size": 8,
    "hidden_sizes": [8, 8, 8, 16],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}
DETR = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "num_queries": 6,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}

Built = tuple[Any, Any]  # model, processor


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def depth_anything(kind: str = "relative") -> Built:
    config = hf.DepthAnythingConfig(
        backbone_config=hf.Dinov2Config(**PATCHES, **DINO), **NECK, head_hidden_size=4, depth_estimation_type=kind, max_depth=9
    )
    processor = hf.DPTImageProcessor(size=_square(42), keep_aspect_ratio=True, ensure_multiple_of=14)
    return hf.DepthAnythingForDepthEstimation(config), processor


def dpt() -> Built:
    config = hf.DPTConfig(
        **VIT,
        image_size=32,
        patch_size=8,
        is_hybrid=False,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
    )
    return hf.DPTForDepthEstimation(config), hf.DPTImageProcessor(size=_square(32))


def glpn() -> Built:
    config = hf.GLPNConfig(
        hidden_sizes=[4, 4, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=8
    )
    return hf.GLPNForDepthEstimation(config), hf.GLPNImageProcessor()


def zoedepth() -> Built:
    backbone = hf.BeitConfig(
        **VIT,
        image_size=32,
        patch_size=8,
        out_features=[f"stage{i}" for i in range(1, 5)],
        reshape_hidden_states=False,
        use_relative_position_bias=True,
    )
    config = hf.ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
        bottleneck_features=8,
        num_relative_features=8,
        bin_embedding_dim=8,
        num_attractors=[4, 2, 2, 1],
        patch_transformer_hidden_size=8,
        patch_transformer_intermediate_size=8,
        patch_transformer_num_attention_heads=2,
        num_patch_transformer_layers=1,
        bin_configurations=[{"n_bins": 4, "min_depth": 0.1, "max_depth": 9.0, "name": "tiny"}],
    )
    return hf.ZoeDepthForDepthEstimation(config), hf.ZoeDepthImageProcessor(size=_square(32), ensure_multiple_of=8)


def depth_pro() -> Built:
    vit = hf.Dinov2Config(**VIT, image_size=32, patch_size=8)
    config = hf.DepthProConfig(
        fusion_hidden_size=16,
        patch_size=32,
        intermediate_hook_ids=[3, 1],
        intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.25, 0.5, 1.0],
        scaled_images_overlap_ratios=[0.0, 0.5, 0.25],
        scaled_images_feature_dims=[16, 16, 8],
        image_model_config=vit,
        patch_model_config=vit,
        fov_model_config=vit,
        use_fov_model=True,
    )
    return hf.DepthProForDepthEstimation(config), hf.DepthProImageProcessor(size=_square(128))


def segformer() -> Built:
    config = hf.SegformerConfig(
        hidden_sizes=[4, 4, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=8, **LABELS
    )
    return hf.SegformerForSemanticSegmentation(config), hf.SegformerImageProcessor(size=_square(64))


def upernet() -> Built:
    backbone = hf.ConvNextConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], out_features=[f"stage{i}" for i in range(1, 5)]
    )
    config = hf.UperNetConfig(backbone_config=backbone, hidden_size=8, auxiliary_in_channels=8, auxiliary_channels=8, **LABELS)
    return hf.UperNetForSemanticSegmentation(config), hf.SegformerImageProcessor(size=_square(64))


def beit() -> Built:
    config = hf.BeitConfig(**VIT, image_size=32, patch_size=8, out_indices=[1, 2, 3, 4], pool_scales=(1, 2), **LABELS)
    return hf.BeitForSemanticSegmentation(config), hf.BeitImageProcessor(size=_square(32), do_center_crop=False)


def mask2former() -> Built:
    config = hf.Mask2FormerConfig(
        backbone_config=hf.SwinConfig(**SWIN, out_features=[f"stage{i}" for i in range(1, 5)]),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=8,
        **LABELS,
    )
    return hf.Mask2FormerForUniversalSegmentation(config), hf.Mask2FormerImageProcessor(size=_square(64))


def maskformer() -> Built:
    config = hf.MaskFormerConfig(
        backbone_config=hf.SwinConfig(**SWIN, out_features=[f"stage{i}" for i in range(1, 5)]),
        fpn_feature_size=32,
        mask_feature_size=32,
        decoder_config=hf.DetrConfig(**DETR | {"d_model": 32}),
        **LABELS,
    )
    return hf.MaskFormerForInstanceSegmentation(config), hf.MaskFormerImageProcessor(size=_square(64))


def oneformer(folder: Path) -> Built:
    """A segmentation that reads its task; its class file is in `folder`, which must exist."""
    known = {str(i): {"name": name, "isthing": int(name in ("person", "car", "dog"))} for i, name in CLASSES.items()}
    (folder / "class_info.json").write_text(json.dumps(known))
    config = hf.OneFormerConfig(
        backbone_config=hf.SwinConfig(**SWIN, out_features=[f"stage{i}" for i in range(1, 5)]),
        num_queries=8,
        text_encoder_width=16,
        text_encoder_context_length=8,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=16,
        task_seq_len=32,
        conv_dim=32,
        mask_dim=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        query_dec_layers=1,
        num_attention_heads=2,
        **LABELS,
    )
    images = hf.OneFormerImageProcessor(size=_square(64), repo_path=str(folder), class_info_file="class_info.json")
    tokenizer = clip_tokenizer(folder)
    processor = hf.OneFormerProcessor(image_processor=images, tokenizer=tokenizer, max_seq_length=8, task_seq_length=32)
    return hf.OneFormerForUniversalSegmentation(config), processor


def blip(folder: Path) -> Built:
    """A captioner that continues a prompt."""
    text = TEXT | {"vocab_size": 15, "max_position_embeddings": 32, "encoder_hidden_size": 16, "projection_dim": 8}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = hf.BlipConfig(text_config=text, vision_config=PATCHES | {"image_size": 42}, projection_dim=8)
    config.image_text_hidden_size = 16
    images = hf.BlipImageProcessor(size=_square(42))
    return hf.BlipForConditionalGeneration(config), hf.BlipProcessor(images, hf.BertTokenizer(vocab=str(words(folder))))


def florence(folder: Path) -> Built:
    """A captioner whose prompts name tasks."""
    names = ["<s>", "<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyzWD?.,", "Ġ", "<image>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    tokenizer = hf.BartTokenizer(**files, model_max_length=128, extra_special_tokens={"image_token": "<image>"})
    vision = {"depths": (1, 1), "patch_size": (7, 3), "patch_stride": (4, 2), "patch_padding": (3, 1), "window_size": 2}
    vision |= {"patch_prenorm": (False, True), "embed_dim": (8, 16), "num_heads": (2, 2), "num_groups": (2, 2)}
    text = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    text |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": len(names)}
    config = hf.Florence2Config(
        vision_config=vision | {"projection_dim": 16}, text_config=text | {"model_type": "bart"}, image_token_id=len(names) - 1
    )
    images = hf.CLIPImageProcessor(size=_square(32), do_center_crop=False, image_seq_length=17)
    return hf.Florence2ForConditionalGeneration(config), hf.Florence2Processor(images, tokenizer)


def detr() -> Built:
    config = hf.DetrConfig(backbone_config=hf.ResNetConfig(**RESNET | {"out_features": ["stage4"]}), **DETR, **LABELS)
    return hf.DetrForObjectDetection(config), hf.DetrImageProcessor(size={"shortest_edge": 48, "longest_edge": 80})


def conditional_detr() -> Built:
    config = hf.ConditionalDetrConfig(
        backbone_config=hf.ResNetConfig(**RESNET | {"out_features": ["stage4"]}), **DETR, **LABELS
    )
    processor = hf.ConditionalDetrImageProcessor(size={"shortest_edge": 48, "longest_edge": 80})
    return hf.ConditionalDetrForObjectDetection(config), processor


def deformable_detr() -> Built:
    wide = DETR | {"d_model": 32}  # normalized in 32 groups
    config = hf.DeformableDetrConfig(backbone_config=hf.ResNetConfig(**RESNET), **wide, num_feature_levels=3, **LABELS)
    processor = hf.DeformableDetrImageProcessor(size={"shortest_edge": 48, "longest_edge": 80})
    return hf.DeformableDetrForObjectDetection(config), processor


def rt_detr() -> Built:
    backbone = hf.RTDetrResNetConfig(**RESNET | {"hidden_sizes": [8, 8, 8, 16]})
    config = hf.RTDetrConfig(
        backbone_config=backbone,
        d_model=16,
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 8, 16],
        decoder_in_channels=[16, 16, 16],
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        num_queries=10,
        anchor_image_size=None,
        **LABELS,
    )
    return hf.RTDetrForObjectDetection(config), hf.RTDetrImageProcessor(size=_square(64))


def yolos() -> Built:
    config = hf.YolosConfig(**VIT, image_size=[32, 48], patch_size=16, num_detection_tokens=6, **LABELS)
    return hf.YolosForObjectDetection(config), hf.YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})


def words(folder: Path) -> Path:
    """Write the vocabulary of a BERT tokenizer, and return its path."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "a", "photo", "of", "wall", "person", "car", "dog", "sky"]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    return folder / "vocab.txt"


def grounding_dino(folder: Path) -> Built:
    """A detector that reads words."""
    config = hf.GroundingDinoConfig(
        backbone_config=hf.SwinConfig(**SWIN, out_features=["stage2", "stage3", "stage4"]),
        text_config=hf.BertConfig(**TEXT, vocab_size=15),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=8,
        num_feature_levels=3,
        max_text_len=16,
        use_timm_backbone=False,
    )
    tokenizer = hf.BertTokenizer(vocab=str(words(folder)))
    images = hf.GroundingDinoImageProcessor(size={"shortest_edge": 48, "longest_edge": 80})
    return hf.GroundingDinoForObjectDetection(config), hf.GroundingDinoProcessor(image_processor=images, tokenizer=tokenizer)


def clip_tokenizer(folder: Path) -> Any:
    vocabulary = {
        token: i for i, token in enumerate(["<|startoftext|>", "<|endoftext|>", *"adgo", *[f"{c}</w>" for c in "adgo"]])
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return hf.CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=16)


def clip(folder: Path) -> Built:
    config = hf.CLIPConfig(
        text_config=TEXT | {"vocab_size": 16, "max_position_embeddings": 16, "eos_token_id": 1, "bos_token_id": 0},
        vision_config=PATCHES | {"image_size": 42},
        projection_dim=8,
    )
    images = hf.CLIPImageProcessor(size={"shortest_edge": 42}, crop_size=_square(42))
    return hf.CLIPModel(config), hf.CLIPProcessor(image_processor=images, tokenizer=clip_tokenizer(folder))


def siglip() -> Built:
    config = hf.SiglipConfig(
        text_config=TEXT | {"vocab_size": 16, "max_position_embeddings": 16}, vision_config=PATCHES | {"image_size": 42}
    )
    return hf.SiglipModel(config), hf.SiglipImageProcessor(size=_square(42))


def siglip2() -> Built:
    config = hf.Siglip2Config(
        text_config=TEXT | {"vocab_size": 16, "max_position_embeddings": 16},
        vision_config=VIT | {"num_patches": 16, "patch_size": 8},
    )
    return hf.Siglip2Model(config), hf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)


def dinov2() -> Built:
    images = hf.BitImageProcessor(size={"shortest_edge": 42}, crop_size=_square(42))
    return hf.Dinov2Model(hf.Dinov2Config(**PATCHES)), images


def dinov2_with_registers() -> Built:
    images = hf.BitImageProcessor(size={"shortest_edge": 42}, crop_size=_square(42))
    return hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**PATCHES, num_register_tokens=4)), images


def dinov3() -> Built:
    config = hf.DINOv3ViTConfig(**VIT, image_size=32, patch_size=8, num_register_tokens=4)
    return hf.DINOv3ViTModel(config), hf.DINOv3ViTImageProcessor(size=_square(32))


DEPTH = {
    "depth_anything": depth_anything,
    "depth_anything_metric": lambda: depth_anything("metric"),
    "dpt": dpt,
    "glpn": glpn,
    "zoedepth": zoedepth,
    "depth_pro": depth_pro,
}
SEGMENTATION = {"segformer": segformer, "upernet": upernet, "beit": beit, "mask2former": mask2former, "maskformer": maskformer}
BOXES = {
    "detr": detr,
    "conditional_detr": conditional_detr,
    "deformable_detr": deformable_detr,
    "rt_detr": rt_detr,
    "yolos": yolos,
}
FEATURES = {
    "siglip": siglip,
    "siglip2": siglip2,
    "dinov2": dinov2,
    "dinov2_with_registers": dinov2_with_registers,
    "dinov3": dinov3,
}


def save(folder: Path, build: Callable[[], Built], seed: int = 0) -> Path:
    """Write a checkpoint with weights from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = build()
        with torch.no_grad():  # wider than the library's initial values, so that outputs differ between pixels
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1 and "embed" not in name:
                    parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
