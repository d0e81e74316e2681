"""Diffusers pipelines small enough for a test: the real classes, a few kilobytes of random weights.

They keep the compression of the published models (Wan 8 x 8 pixels and 4 frames to one latent,
LTX-2 32 x 32 and 8), so that the same sizes and frame counts fit. Everything is made here, the
tokenizer included: nothing is fetched.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before the library is imported: a test never asks the hub

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    Kandinsky5I2VPipeline,
    Kandinsky5T2VPipeline,
    Kandinsky5Transformer3DModel,
    Kandinsky6TI2VAPipeline,
    Kandinsky6Transformer3DModel,
    LTX2ImageToVideoPipeline,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    MMAudioVAE,
    MMAudioVocoder,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
TEXT_WIDTH = 16
MEL_BINS = 16
SAMPLE_RATE = 16_000
MEL_HOP = 160  # samples; the vocoder's upsampling factors must multiply to it


def byte_tokenizer(padding_side: str) -> PreTrainedTokenizerFast:
    """One token per byte, and an end-of-text token, as the real tokenizers add."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL.values(), *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", vocabulary["<eos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side=padding_side,
        model_max_length=2048,
        **SPECIAL,
    )


def _vocabulary_size() -> int:
    return len(SPECIAL) + len(pre_tokenizers.ByteLevel.alphabet())


def save_wan(folder: Path, *, image: bool, seed: int = 0) -> Path:
    """Wan: text to video, or, as in Wan 2.2, image to video without an image encoder."""
    torch.manual_seed(seed)
    if image:
        # Beside the noise: the image's latents and a mask of four channels.
        parts = {**_wan_parts(), "transformer": _wan_transformer(16 + 16 + 4)}
        pipe = WanImageToVideoPipeline(**parts, image_encoder=None, image_processor=None)
    else:
        pipe = WanPipeline(**_wan_parts())
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def _wan_transformer(channels: int, **changes: Any) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=channels,
        out_channels=16,
        text_dim=TEXT_WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
        **changes,
    )


def _wan_parts() -> dict[str, Any]:
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )
    text_encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=_vocabulary_size(),
            d_model=TEXT_WIDTH,
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            decoder_start_token_id=0,
        )
    )
    return {
        "tokenizer": byte_tokenizer("right"),
        "text_encoder": text_encoder.eval(),
        "vae": vae,
        "transformer": _wan_transformer(16),
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }


def save_ltx2(folder: Path, *, image: bool, seed: int = 0) -> Path:
    """LTX-2: joint video and stereo sound, from text or from text and an image."""
    torch.manual_seed(seed)
    text = {
        "vocab_size": _vocabulary_size(),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }
    sight = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    text_encoder = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=sight, mm_tokens_per_image=4)
    )
    video_heads, audio_heads, head_width = 2, 2, 8
    connectors = LTX2TextConnectors(
        caption_channels=TEXT_WIDTH,
        text_proj_in_factor=text["num_hidden_layers"] + 1,  # every layer's states, and the input's
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=TEXT_WIDTH // 2,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=None,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=TEXT_WIDTH // 2,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None,
        connector_rope_base_seq_len=32,
        rope_double_precision=False,
    )
    audio_latents = 2
    audio_width = audio_latents * MEL_BINS // 4  # the audio VAE makes one bin of four
    transformer = LTX2VideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=video_heads,
        attention_head_dim=head_width,
        cross_attention_dim=video_heads * head_width,
        audio_in_channels=audio_width,
        audio_out_channels=audio_width,
        audio_num_attention_heads=audio_heads,
        audio_attention_head_dim=head_width,
        audio_cross_attention_dim=audio_heads * head_width,
        audio_sampling_rate=SAMPLE_RATE,
        audio_hop_length=MEL_HOP,
        num_layers=2,
        caption_channels=TEXT_WIDTH,
        rope_double_precision=False,
    )
    vae = AutoencoderKLLTX2Video(
        latent_channels=4,
        block_out_channels=(8, 16, 32, 64),
        decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    audio_vae = AutoencoderKLLTX2Audio(
        base_channels=audio_width,  # the library keeps the latents' mean in a vector of this size
        ch_mult=(1, 1, 1),
        num_res_blocks=1,
        resolution=MEL_BINS * 2,
        latent_channels=audio_latents,
        mel_bins=MEL_BINS,
        sample_rate=SAMPLE_RATE,
        mel_hop_length=MEL_HOP,
    )
    vocoder = LTX2Vocoder(
        in_channels=2 * MEL_BINS,  # both channels' bins side by side
        hidden_channels=16,
        out_channels=2,
        upsample_kernel_sizes=[32, 20],
        upsample_factors=[16, 10],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3]],
        output_sampling_rate=SAMPLE_RATE,
    )
    kind = LTX2ImageToVideoPipeline if image else LTX2Pipeline
    pipe = kind(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        audio_vae=audio_vae,
        text_encoder=text_encoder.eval(),
        tokenizer=byte_tokenizer("left"),
        connectors=connectors,
        transformer=transformer,
        vocoder=vocoder,
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def save_wan22(folder: Path, *, seed: int = 0) -> Path:
    """Wan 2.2 A14B: one network for much noise, one for little."""
    torch.manual_seed(seed)
    pipe = WanPipeline(**_wan_parts(), transformer_2=_wan_transformer(16), boundary_ratio=0.5)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def save_wan_5b(folder: Path, *, seed: int = 0) -> Path:
    """Wan 2.2 TI2V-5B: a VAE twice as coarse, and one repository for both tasks."""
    torch.manual_seed(seed)
    vae = AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )
    pipe = WanPipeline(**{**_wan_parts(), "vae": vae}, expand_timesteps=True)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def save_wan21_image(folder: Path, *, seed: int = 0) -> Path:
    """Wan 2.1 image to video: a CLIP encoder looks at the image as well."""
    torch.manual_seed(seed)
    sight = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=16,
    )
    parts = {**_wan_parts(), "transformer": _wan_transformer(36, image_dim=16)}
    pipe = WanImageToVideoPipeline(
        **parts,
        image_encoder=CLIPVisionModel(sight).eval(),
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def save_cogvideox(folder: Path, *, image: bool, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    blocks = 4
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * blocks,
        up_block_types=("CogVideoXUpBlock3D",) * blocks,
        block_out_channels=(8,) * blocks,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=8 if image else 4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=TEXT_WIDTH,
        num_layers=1,
        sample_width=8,
        sample_height=8,
        sample_frames=17,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=32,
        use_rotary_positional_embeddings=image,
        use_learned_positional_embeddings=image,
    )
    kind = CogVideoXImageToVideoPipeline if image else CogVideoXPipeline
    pipe = kind(
        tokenizer=byte_tokenizer("right"),
        text_encoder=_t5(),
        vae=vae,
        transformer=transformer,
        scheduler=CogVideoXDDIMScheduler(),
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def save_hunyuan15(folder: Path, *, image: bool, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer("right")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        patch_size=1,
        patch_size_t=1,
        text_embed_dim=TEXT_WIDTH,
        text_embed_2_dim=TEXT_WIDTH,
        image_embed_dim=TEXT_WIDTH,
        rope_axes_dim=(2, 2, 4),
        target_size=64,  # pixels: an image of 64x64 stays as it is
        task_type="i2v" if image else "t2v",
    )
    vae = AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(8,) * 5,
        layers_per_block=1,
        spatial_compression_ratio=16,
        temporal_compression_ratio=4,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    parts = {
        "tokenizer": tokenizer,
        "text_encoder": Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**_qwen_text(3))).eval(),
        "tokenizer_2": byte_tokenizer("right"),
        "text_encoder_2": _t5(),
        "transformer": transformer.eval(),
        "vae": vae.eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=5.0),
        "guider": ClassifierFreeGuidance(guidance_scale=6.0),
    }
    if image:
        sight = SiglipVisionConfig(
            hidden_size=TEXT_WIDTH,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=54,
            patch_size=2,  # 27 x 27 tokens, as many as the pipeline counts on
        )
        pipe = HunyuanVideo15ImageToVideoPipeline(
            **parts,
            image_encoder=SiglipVisionModel(sight).eval(),
            feature_extractor=SiglipImageProcessor(size={"height": 54, "width": 54}),
        )
    else:
        pipe = HunyuanVideo15Pipeline(**parts)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def save_kandinsky5(folder: Path, *, image: bool, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    transformer = Kandinsky5Transformer3DModel(**_kandinsky_sizes())
    with torch.no_grad():  # they begin as zero, and then nothing that is asked reaches the picture
        for name, weights in transformer.named_parameters():
            if "modulation" in name:
                weights.normal_(std=0.1)
    kind = Kandinsky5I2VPipeline if image else Kandinsky5T2VPipeline
    pipe = kind(transformer=transformer, **_kandinsky_parts())
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def save_kandinsky6(folder: Path, *, seed: int = 0) -> Path:
    """Kandinsky 6: video and mono sound, from text or from text and an image."""
    torch.manual_seed(seed)
    hop = 160
    audio_vae = MMAudioVAE(
        mel_bins=8,
        latent_channels=4,
        hidden_channels=8,
        channel_multipliers=(1, 2),
        layers_per_block=1,
        sample_rate=SAMPLE_RATE,
        n_fft=320,
        hop_length=hop,
    )
    vocoder = MMAudioVocoder(
        num_mels=8,
        upsample_initial_channel=8,
        upsample_rates=(16, 10),  # their product is the hop
        upsample_kernel_sizes=(32, 20),
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3),),
    )
    transformer = Kandinsky6Transformer3DModel(
        **_kandinsky_sizes(), in_audio_dim=4, out_audio_dim=4, visual_token_type_num_embeddings=2
    )
    pipe = Kandinsky6TI2VAPipeline(
        transformer=transformer, audio_vae=audio_vae, vocoder=vocoder, **_kandinsky_parts()
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def _kandinsky_sizes() -> dict[str, Any]:
    return {
        "in_visual_dim": 4,
        "out_visual_dim": 4,
        "in_text_dim": TEXT_WIDTH,
        "in_text_dim2": TEXT_WIDTH,
        "time_dim": 16,
        "patch_size": (1, 2, 2),
        "model_dim": 16,
        "ff_dim": 32,
        "num_text_blocks": 1,
        "num_visual_blocks": 1,
        "axes_dims": (1, 1, 2),
        "visual_cond": True,
    }


def _kandinsky_parts() -> dict[str, Any]:
    blocks = 3  # of which each halves the size: 8 times coarser
    vae = AutoencoderKLHunyuanVideo(
        block_out_channels=(8,) * blocks,
        down_block_types=("HunyuanVideoDownBlock3D",) * blocks,
        up_block_types=("HunyuanVideoUpBlock3D",) * blocks,
        latent_channels=4,
        layers_per_block=1,
        mid_block_add_attention=False,
        norm_num_groups=2,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
    )
    sight = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": TEXT_WIDTH,
    }
    text_encoder = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=_qwen_text(2), vision_config=sight)
    )
    text_encoder_2 = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=_vocabulary_size(),
            hidden_size=TEXT_WIDTH,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            projection_dim=TEXT_WIDTH,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=2,
        )
    )
    return {
        "vae": vae.eval(),
        "text_encoder": text_encoder.eval(),
        "tokenizer": byte_tokenizer("right"),
        "text_encoder_2": text_encoder_2.eval(),
        "tokenizer_2": byte_tokenizer("right"),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=5.0),
    }


def _qwen_text(layers: int) -> dict[str, Any]:
    return {
        "vocab_size": _vocabulary_size(),
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        "rope_theta": 1_000_000.0,
    }


def _t5() -> T5EncoderModel:
    sizes = {"d_model": TEXT_WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=_vocabulary_size(), decoder_start_token_id=0, **sizes)
    return T5EncoderModel(config).eval()
