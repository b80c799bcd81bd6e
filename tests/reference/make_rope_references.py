"""Writes tests/data/rope: rotary frequencies and attention factors by transformers' modeling_rope_utils.

Each NAME.json: the settings in the names of core/rotary_settings.hpp, the sequence length where it matters, the factor on
sines and cosines, and the frequencies (float32, printed to 9 digits).

    venv/bin/python tests/reference/make_rope_references.py
"""

import json
from pathlib import Path

from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

OUT = Path(__file__).resolve().parent.parent / "data" / "rope"

CASES = {
    "none": dict(),
    "none_theta_5e5": dict(rope_theta=500000.0),
    "linear": dict(rope_scaling=dict(rope_type="linear", factor=4.0)),
    "dynamic_within": dict(rope_scaling=dict(rope_type="dynamic", factor=2.0), length=1000),
    "dynamic_beyond": dict(rope_scaling=dict(rope_type="dynamic", factor=2.0), length=5000),
    "llama3": dict(rope_theta=500000.0, rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                          original_max_position_embeddings=8192), max_position_embeddings=131072),
    "llama3_factor32": dict(rope_theta=500000.0, head_dim=64, rope_scaling=dict(
        rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192),
        max_position_embeddings=131072),
    "yarn": dict(rope_theta=1000000.0, rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768),
                 max_position_embeddings=131072),
    "yarn_betas_mscale": dict(rope_scaling=dict(rope_type="yarn", factor=40.0, original_max_position_embeddings=4096, beta_fast=16.0,
                                                beta_slow=2.0, mscale=1.0, mscale_all_dim=0.7), head_dim=64, max_position_embeddings=163840),
    "yarn_attention_factor": dict(rope_scaling=dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=4096,
                                                    attention_factor=1.25), max_position_embeddings=32768),
    "yarn_not_truncated": dict(rope_theta=150000.0, head_dim=64, rope_scaling=dict(
        rope_type="yarn", factor=32.0, original_max_position_embeddings=4096, beta_fast=32.0, beta_slow=1.0, truncate=False),
        max_position_embeddings=131072),
}

OUT.mkdir(parents=True, exist_ok=True)
for name, case in CASES.items():
    case = dict(case)
    length = case.pop("length", None)
    scaling = case.get("rope_scaling", {})
    config = LlamaConfig(**(dict(hidden_size=1024, num_attention_heads=8, head_dim=128, max_position_embeddings=4096, rope_theta=10000.0) | case))
    kind = scaling.get("rope_type", "default")
    if kind == "default":
        frequencies, factor = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    else:
        frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length)
    names = {"default": "none", "dynamic": "dynamic_ntk"}
    settings = dict(scaling=names.get(kind, kind), base=case.get("rope_theta", 10000.0), rotary_size=config.head_dim,
                    original_max_positions=scaling.get("original_max_position_embeddings", config.max_position_embeddings))
    settings |= {k: v for k, v in scaling.items() if k not in ("rope_type", "original_max_position_embeddings", "rope_theta")}
    out = dict(settings=settings, length=length or 0, attention_factor=factor, frequencies=[float(f"{f:.9g}") for f in frequencies.tolist()])
    (OUT / f"{name}.json").write_text(json.dumps(out) + "\n")
