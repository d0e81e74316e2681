"""Diffusers pipelines small enough for a test: the real classes, a few kilobytes of random weights.

They keep the compression of the published models (Wan 8 x 8 pixels and 4 frames to one latent,
LTX-2 32 x 32 and 8), so that the same sizes and frame counts fit. Everything is made here, the
tokenizer included: nothing is fetched.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before the library is imported: a test never asks the hub

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    LTX2ImageToVideoPipeline,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    PreTrainedTokenizerFast,
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
        model_max_length=64,
        **SPECIAL,
    )


def _vocabulary_size() -> int:
    return len(SPECIAL) + len(pre_tokenizers.ByteLevel.alphabet())


def save_wan(folder: Path, *, image: bool, seed: int = 0) -> Path:
    """Wan: text to video, or, as in Wan 2.2, image to video without an image encoder."""
    torch.manual_seed(seed)
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )
    # With an image: its latents and a mask of four channels beside the noise.
    channels = 16 + (16 + 4 if image else 0)
    transformer = WanTransformer3DModel(
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
    parts = {
        "tokenizer": byte_tokenizer("right"),
        "text_encoder": text_encoder.eval(),
        "vae": vae,
        "transformer": transformer,
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }
    if image:
        pipe = WanImageToVideoPipeline(**parts, image_encoder=None, image_processor=None)
    else:
        pipe = WanPipeline(**parts)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


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
