#!/usr/bin/env python3
"""Writes tests/data/models and tests/data/quantization: small random checkpoints and what they must answer.

The answers come from Hugging Face transformers (eager attention, float32, CPU), for the linear decoder from
the float64 recurrence in this file, for the block formats from the gguf package. README.md beside this file
says how the files are laid out.

    python3 -m venv venv
    venv/bin/pip install torch transformers safetensors tokenizers numpy gguf jinja2
    venv/bin/python tests/reference/make_references.py            # everything, a minute or two
    venv/bin/python tests/reference/make_references.py llama3     # one model, or: quantization
"""

import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
from safetensors.torch import load_file, save_file

DATA = Path(__file__).resolve().parent.parent / "data"
STEPS, GAP = 64, 5e-3
BOS, EOS = 1, 2

# ---------------------------------------------------------------- configurations

LLAMA = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=64, intermediate_size=96,
             num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, vocab_size=96,
             max_position_embeddings=256, rms_norm_eps=1e-5, hidden_act="silu", rope_theta=10000.0,
             attention_bias=False, mlp_bias=False, tie_word_embeddings=False, bos_token_id=BOS, eos_token_id=EOS,
             torch_dtype="float32")
MISTRAL = {k: v for k, v in LLAMA.items() if k not in ("attention_bias", "mlp_bias")} | dict(
    architectures=["MistralForCausalLM"], model_type="mistral", num_key_value_heads=2, head_dim=16)
QWEN2 = {k: v for k, v in LLAMA.items() if k not in ("attention_bias", "mlp_bias")} | dict(
    architectures=["Qwen2ForCausalLM"], model_type="qwen2", num_key_value_heads=2, rope_theta=1000000.0, rms_norm_eps=1e-6,
    use_sliding_window=False, sliding_window=32, max_window_layers=2)
QWEN3 = {k: v for k, v in LLAMA.items() if k != "mlp_bias"} | dict(
    architectures=["Qwen3ForCausalLM"], model_type="qwen3", num_key_value_heads=2, head_dim=32, rope_theta=1000000.0,
    rms_norm_eps=1e-6, use_sliding_window=False, sliding_window=None, max_window_layers=2, tie_word_embeddings=True)
LINEAR = {k: v for k, v in LLAMA.items() if k != "rope_theta"} | dict(
    architectures=["EffinferLinearForCausalLM"], model_type="effinfer_linear", num_key_value_heads=2, head_dim=16,
    tie_word_embeddings=True, feature_map="elu_plus_one", decay=[0.75, 0.9375, 0.99609375, 1.0])

# name -> (config.json, what else to do with it). Keys of the second: new_style (rope_parameters and dtype as
# newer transformers write them), store (dtype of the file), shards, gguf (dtype of the matrices), prompt (length).
MODELS = {
    "llama2": (LLAMA, dict(gguf="BF16")),
    "llama3": (LLAMA | dict(num_key_value_heads=2, vocab_size=288, rope_theta=500000.0, tie_word_embeddings=True,
                            rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                              original_max_position_embeddings=64)), dict(gguf="F16", vocabulary=True)),
    "mistral": (MISTRAL | dict(sliding_window=16), dict(gguf="F16", prompt=64)),
    "qwen2": (QWEN2 | dict(num_hidden_layers=1, tie_word_embeddings=True), dict(gguf="F16")),
    "qwen3": (QWEN3 | dict(num_hidden_layers=1), dict(gguf="F16", prompt=70)),
    "llama-linear-rope": (LLAMA | dict(num_hidden_layers=1, rope_scaling=dict(type="linear", factor=4.0)), dict(gguf="F32", prompt=64)),
    "llama-dynamic-ntk": (LLAMA | dict(num_hidden_layers=1, max_position_embeddings=32, num_key_value_heads=2, tie_word_embeddings=True,
                                       rope_scaling=dict(type="dynamic", factor=2.0)), {}),
    "llama-yarn": (LLAMA | dict(num_hidden_layers=1, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True, rope_scaling=dict(
        rope_type="yarn", factor=8.0, original_max_position_embeddings=32, beta_fast=8.0, beta_slow=1.0)), dict(new_style=True)),
    "mistral-nowindow": (MISTRAL | dict(num_hidden_layers=1, sliding_window=None, tie_word_embeddings=True), dict(new_style=True)),
    "qwen2-untied": (QWEN2 | dict(num_hidden_layers=1), dict(new_style=True)),
    "llama-multi-query": (LLAMA | dict(num_hidden_layers=1, num_key_value_heads=1, tie_word_embeddings=True), {}),
    "llama-sharded": (LLAMA | dict(num_hidden_layers=1, num_key_value_heads=2, torch_dtype="bfloat16"),
                      dict(store=torch.bfloat16, shards="40KB")),
    "llama-f16": (LLAMA | dict(num_hidden_layers=1, num_key_value_heads=2, torch_dtype="float16"), dict(store=torch.float16)),
    "llama-bf16": (LLAMA | dict(num_hidden_layers=1, num_key_value_heads=2, torch_dtype="bfloat16"),
                   dict(store=torch.bfloat16, new_style=True)),
    "linear": (LINEAR, {}),
}
QUANTIZED = LLAMA | dict(hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
                         num_key_value_heads=1, vocab_size=64, tie_word_embeddings=True)
# name -> (type of the matrices, type of the feed-forward's matrices)
QUANTIZED_TYPES = {"llama-q8_0": (Q.Q8_0, Q.Q8_0), "llama-q4_0": (Q.Q4_0, Q.Q4_0), "llama-q4_1": (Q.Q4_1, Q.Q4_1),
                   "llama-q5_0-q5_1": (Q.Q5_0, Q.Q5_1), "llama-q4_k": (Q.Q4_K, Q.Q4_K), "llama-q5_k": (Q.Q5_K, Q.Q5_K),
                   "llama-q6_k": (Q.Q6_K, Q.Q6_K)}


def as_new_style(c):
    """The same configuration as transformers 5 writes it."""
    c = dict(c)
    rope = dict(c.pop("rope_scaling", None) or {})
    rope["rope_type"] = rope.pop("type", rope.get("rope_type", "default"))
    c["rope_parameters"] = rope | {"rope_theta": c.pop("rope_theta")}
    c["dtype"] = c.pop("torch_dtype")
    return c


# ---------------------------------------------------------------- weights

def random_weights(c, seed):
    """Random weights that make sharp and varied predictions, each exact in float32, bfloat16 and float16."""
    g = torch.Generator().manual_seed(seed)
    e, f, heads, kv = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"], c["num_key_value_heads"]
    d = c.get("head_dim") or e // heads
    out = {}

    def put(name, *shape):
        x = torch.randn(*shape, generator=g)
        if name.endswith("norm.weight"):
            x = 0.5 + torch.rand(*shape, generator=g)
        elif name.endswith(".bias"):
            x = 0.5 * x
        elif "embed" in name or "lm_head" in name:
            x = 0.4 * x * math.sqrt(64 / e)
        else:
            x = 1.6 * x / math.sqrt(shape[-1])          # std 0.2 for 64 columns
        out[name] = x.bfloat16().half().float()

    put("model.embed_tokens.weight", c["vocab_size"], e)
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for n, rows, cols in (("q", heads * d, e), ("k", kv * d, e), ("v", kv * d, e), ("o", e, heads * d)):
            put(at + f"self_attn.{n}_proj.weight", rows, cols)
            if c["model_type"] == "qwen2" and n != "o":
                put(at + f"self_attn.{n}_proj.bias", rows)
        if c["model_type"] == "qwen3":
            put(at + "self_attn.q_norm.weight", d)
            put(at + "self_attn.k_norm.weight", d)
        put(at + "mlp.gate_proj.weight", f, e)
        put(at + "mlp.up_proj.weight", f, e)
        put(at + "mlp.down_proj.weight", e, f)
        put(at + "input_layernorm.weight", e)
        put(at + "post_attention_layernorm.weight", e)
    put("model.norm.weight", e)
    if not c["tie_word_embeddings"]:
        put("lm_head.weight", c["vocab_size"], e)
    return out


# ---------------------------------------------------------------- answers

class Transformers:
    """Hugging Face's own model, loaded from a folder as anybody would."""

    def __init__(self, folder):
        from transformers import AutoModelForCausalLM
        self.load = lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        self.config = self.load().config

    @torch.no_grad()
    def logits(self, ids):                       # one pass over all of ids, no cache
        return self.load()(torch.tensor([ids]), use_cache=False).logits[0]

    @torch.no_grad()
    def greedy_cached(self, prompt):             # one pass over the prompt, then a token at a time, with the cache
        from transformers import DynamicCache
        model, ids, gaps = self.load(), list(prompt), []
        cache, x = DynamicCache(config=model.config), torch.tensor([prompt])
        for _ in range(STEPS):
            logits = model(x, past_key_values=cache, use_cache=True).logits[0, -1]
            top = logits.topk(2)
            gaps.append((top.values[0] - top.values[1]).item())
            ids.append(top.indices[0].item())
            x = torch.tensor([[ids[-1]]])
        return ids[len(prompt):], min(gaps)


class Linear:
    """The linear-attention decoder, float64, as the recurrence that defines it."""

    def __init__(self, folder):
        self.c = json.loads((folder / "config.json").read_text())
        self.w = {k: v.double() for k, v in load_file(folder / "model.safetensors").items()}

    def logits(self, ids):
        c, w = self.c, self.w
        heads, kv, d = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        norm = lambda x, n: x * torch.rsqrt((x * x).mean() + c["rms_norm_eps"]) * w[n + ".weight"]
        f = lambda x: torch.where(x > 0, x + 1, torch.exp(x))
        state = {}
        rows = []
        for token in ids:
            x = w["model.embed_tokens.weight"][token]
            for i in range(c["num_hidden_layers"]):
                at = f"model.layers.{i}."
                h = norm(x, at + "input_layernorm")
                q, k, v = (w[at + f"self_attn.{n}_proj.weight"] @ h for n in "qkv")
                out = []
                for head in range(heads):
                    s, z = state.get((i, head), (torch.zeros(d, d).double(), torch.zeros(d).double()))
                    shared = head // (heads // kv)
                    fq, fk, vh = f(q[head * d:][:d]), f(k[shared * d:][:d]), v[shared * d:][:d]
                    s, z = c["decay"][head] * s + torch.outer(fk, vh), c["decay"][head] * z + fk
                    state[i, head] = s, z
                    out.append(fq @ s / (fq @ z + 1e-6))
                x = x + w[at + "self_attn.o_proj.weight"] @ torch.cat(out)
                h = norm(x, at + "post_attention_layernorm")
                gate = w[at + "mlp.gate_proj.weight"] @ h
                x = x + w[at + "mlp.down_proj.weight"] @ (gate * torch.sigmoid(gate) * (w[at + "mlp.up_proj.weight"] @ h))
            rows.append(w["model.embed_tokens.weight"] @ norm(x, "model.norm"))
        return torch.stack(rows)


def greedy_uncached(model, prompt):
    ids, gap = list(prompt), math.inf
    for _ in range(STEPS):
        top = model.logits(ids)[-1].topk(2)
        gap = min(gap, (top.values[0] - top.values[1]).item())
        ids.append(top.indices[0].item())
    return ids[len(prompt):], gap


def varied(prompt, greedy):
    return EOS not in greedy and len(set(greedy)) >= 20


def write_reference(folder, prompt, logits, greedy, gap, seed, **more):
    logprobs = torch.log_softmax(logits.double(), -1).float().numpy().astype("<f4")
    (folder / "logprobs.f32").write_bytes(logprobs.tobytes())
    best = logits.topk(2, -1)
    reference = dict(prompt=prompt, greedy=greedy, **more, smallest_gap=round(gap, 6),
                     logprobs=dict(file="logprobs.f32", shape=list(logprobs.shape), argmax=best.indices[:, 0].tolist()), seed=seed)
    lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in reference.items())
    (folder / "reference.json").write_text("{\n" + lines + "\n}\n")


def make_prompt(c, length, seed):
    g = np.random.default_rng(seed)
    return [BOS] + g.integers(3, c["vocab_size"] - (8 if c["vocab_size"] > 256 else 0), length - 1).tolist()


def make_model(name):
    c, how = MODELS[name]
    folder = DATA / "models" / name
    first = 1 + 100 * list(MODELS).index(name)
    for seed in range(first, first + 100):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(as_new_style(c) if how.get("new_style") else c, indent=2) + "\n")
        weights = random_weights(c, seed)
        save_file({k: v.to(how.get("store", torch.float32)) for k, v in weights.items()},
                  folder / "model.safetensors", metadata={"format": "pt"})
        prompt = make_prompt(c, how.get("prompt", 48), seed)
        more = {}
        if name == "linear":
            model = Linear(folder)
            greedy, gap = greedy_uncached(model, prompt)
        else:
            model = Transformers(folder)
            greedy, gap = model.greedy_cached(prompt)
            if gap < GAP or not varied(prompt, greedy):
                continue
            again, gap_again = greedy_uncached(model, prompt)
            if name == "llama-dynamic-ntk":
                more["greedy_recomputed"], gap = again, min(gap, gap_again)
                if again == greedy:
                    continue                              # the two ways are there to be told apart
            else:
                assert again == greedy, name
        if gap >= GAP and varied(prompt, greedy):
            break
    else:
        raise SystemExit(f"{name}: no seed will do")
    logits = model.logits(prompt)
    write_reference(folder, prompt, logits, greedy, gap, seed, **more)
    if name != "linear":
        check_that_it_matters(folder, c, prompt, logits)
        check_other_style(folder, c, how, prompt, logits)
    if "shards" in how:
        from transformers import AutoModelForCausalLM
        whole = AutoModelForCausalLM.from_pretrained(folder, dtype=how.get("store", torch.float32))
        (folder / "model.safetensors").unlink()
        with tempfile.TemporaryDirectory() as at:
            whole.save_pretrained(at, max_shard_size=how["shards"])
            for file in Path(at).glob("model*"):
                shutil.copyfile(file, folder / file.name)
        assert torch.equal(Transformers(folder).logits(prompt), logits)
    tokenizer = make_tokenizer(folder) if how.get("vocabulary") else None
    if "gguf" in how:
        write_gguf(folder / "model.gguf", c, weights, Q[how["gguf"]], tokenizer)
    for file in folder.iterdir():
        file.chmod(0o644)
    print(f"{name}: seed {seed}, smallest gap {gap:.4f}, mean entropy "
          f"{-(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean():.2f} of {math.log(c['vocab_size']):.2f}, "
          f"{len(set(greedy))} different tokens, {sum(f.stat().st_size for f in folder.iterdir())} bytes", flush=True)


def check_other_style(folder, c, how, prompt, logits):
    """Old and new spelling of config.json load to the same model."""
    with tempfile.TemporaryDirectory() as at:
        at = Path(at)
        (at / "config.json").write_text(json.dumps(c if how.get("new_style") else as_new_style(c)))
        shutil.copyfile(folder / "model.safetensors", at / "model.safetensors")
        assert torch.equal(Transformers(at).logits(prompt), logits), folder


def check_that_it_matters(folder, c, prompt, logits):
    """Without its scaling, or its window, or with a window longer by one, the model would answer otherwise."""
    others = [c | dict(rope_scaling=None)] if c.get("rope_scaling") else []
    if c["model_type"] == "mistral" and c["sliding_window"]:
        others += [c | dict(sliding_window=None), c | dict(sliding_window=c["sliding_window"] + 1)]
    for other in others:
        with tempfile.TemporaryDirectory() as at:
            at = Path(at)
            (at / "config.json").write_text(json.dumps(other))
            shutil.copyfile(folder / "model.safetensors", at / "model.safetensors")
            assert (Transformers(at).logits(prompt) - logits).abs().max() > 0.1, (folder, other)


# ---------------------------------------------------------------- a tokenizer of 288 entries

TEXT = "the other day the weather was rather better than another: there and then, on the other hand, they gathered together. "


def make_tokenizer(folder):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    split = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
             r"|\s*[\r\n]+|\s+(?!\S)|\s+")
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), behavior="isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator([TEXT * 10], trainers.BpeTrainer(vocab_size=283, show_progress=False,
                                                           initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special])
    assert t.get_vocab_size() == 288
    t.post_processor = processors.TemplateProcessing(single=special[0] + " $A", special_tokens=[(special[0], t.token_to_id(special[0]))])
    t.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(
        tokenizer_class="PreTrainedTokenizerFast", bos_token=special[0], eos_token=special[1]), indent=2) + "\n")
    examples = ["the weather", "Hello, world! 12345", " two  spaces\n\nand lines\r\n", "caf\u00e9 \u4f60\u597d \U0001f600", "they're <|eot_id|>done", ""]
    (folder / "tokenizer_reference.json").write_text(json.dumps([dict(
        text=s, ids=t.encode(s).ids, ids_without_special=t.encode(s, add_special_tokens=False).ids) for s in examples], indent=1) + "\n")
    return t


# ---------------------------------------------------------------- GGUF, as llama.cpp's convert_hf_to_gguf.py writes it

NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def gguf_name(name):
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    stem, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[stem]}.{kind}"


def permute(w, heads):        # pairs (i, i + D/2) of each head become neighbours (2i, 2i + 1)
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def unpermute(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def gguf_heads(c, name):      # how many heads to permute by, or nothing
    if c["model_type"] not in ("llama", "mistral"):
        return None
    return {"self_attn.q_proj": c["num_attention_heads"], "self_attn.k_proj": c["num_key_value_heads"]}.get(".".join(name.split(".")[3:5]))


def llama3_factors(c):
    s, d = c["rope_scaling"], c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    rates = 1.0 / c["rope_theta"] ** (np.arange(0, d, 2, dtype=np.float32) / d)
    low, high = s["original_max_position_embeddings"] / s["low_freq_factor"], s["original_max_position_embeddings"] / s["high_freq_factor"]
    out = []
    for wave in 2 * math.pi / rates:
        smooth = (s["original_max_position_embeddings"] / wave - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
        out.append(1.0 if wave < high else s["factor"] if wave > low else 1 / ((1 - smooth) / s["factor"] + smooth))
    return np.array(out, dtype=np.float32)


def write_gguf(path, c, weights, kind, tokenizer=None, encode=None, ffn=None):
    """Writes the file; returns the matrices as a reader decodes them, under Hugging Face's names and row order."""
    encode = encode or gguf.quants.quantize
    arch = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}[c["model_type"]]
    d = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    w = gguf.GGUFWriter(path, arch)
    w.add_type("model")
    w.add_name(path.parent.name)
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_vocab_size(c["vocab_size"])
    if c.get("head_dim"):
        w.add_key_length(d)
        w.add_value_length(d)
    if arch == "llama":
        w.add_rope_dimension_count(d)
    if c["model_type"] == "mistral" and c.get("sliding_window"):
        w.add_sliding_window(c["sliding_window"])
    scaling = c.get("rope_scaling") or {}
    if scaling.get("type") == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(scaling["factor"])
    w.add_file_type(gguf.LlamaFileType[{"F32": "ALL_F32", "Q4_K": "MOSTLY_Q4_K_M", "Q5_K": "MOSTLY_Q5_K_M"}.get(kind.name, "MOSTLY_" + kind.name)])
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if tokenizer is None:
        w.add_tokenizer_model("none")
        w.add_bos_token_id(BOS)
        w.add_eos_token_id(EOS)
    else:
        model = json.loads(tokenizer.to_str())
        special = {t["content"] for t in model["added_tokens"]}
        tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("llama-bpe")
        w.add_token_list(tokens)
        w.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens])
        w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["model"]["merges"]])
        w.add_bos_token_id(tokenizer.token_to_id("<|begin_of_text|>"))
        w.add_eos_token_id(tokenizer.token_to_id("<|end_of_text|>"))
        w.add_add_bos_token(True)
    if scaling.get("rope_type") == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_factors(c))
    decoded = {}
    for name, value in weights.items():
        x, heads = value.numpy(), gguf_heads(c, name)
        if heads:
            x = permute(x, heads)
        if x.ndim == 1 or kind == Q.F32:
            w.add_tensor(gguf_name(name), np.ascontiguousarray(x))
        elif kind == Q.F16:
            x = x.astype(np.float16)
            w.add_tensor(gguf_name(name), np.ascontiguousarray(x))
        else:
            its = ffn if ffn and ".mlp." in name else kind
            data = encode(np.ascontiguousarray(x), its)
            w.add_tensor(gguf_name(name), data, raw_dtype=its)
            x = gguf.quants.dequantize(data, its)
        x = np.asarray(x, dtype=np.float32)
        decoded[name] = torch.from_numpy(np.ascontiguousarray(unpermute(x, heads) if heads else x))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    if encode is gguf.quants.quantize and kind in (Q.F32, Q.F16, Q.BF16):
        assert all(torch.equal(decoded[n], weights[n]) for n in weights), path
    return decoded


# ---------------------------------------------------------------- block formats

def encode(x, kind):
    """Rows of floats to bytes. The K types, which the gguf package only decodes, by plain rounding."""
    if kind in (Q.Q4_K, Q.Q5_K, Q.Q6_K):
        blocks = x.reshape(-1, 256).astype(np.float32)
        return (encode_6(blocks) if kind == Q.Q6_K else encode_45(blocks, kind)).reshape(*x.shape[:-1], -1)
    return gguf.quants.quantize(x, kind)


def half(x):
    return np.asarray(x, dtype=np.float16)


def divide(a, b):
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape, np.float32), where=b != 0)


def encode_45(blocks, kind):
    """d, dmin: float16; 8 scales and 8 mins of 6 bits in 12 bytes; x = d scale q - dmin min, q of 4 or 5 bits."""
    n, top = len(blocks), 15 if kind == Q.Q4_K else 31
    x = blocks.reshape(n, 8, 32)
    low = np.maximum(0, -x.min(-1))
    step = (x.max(-1) + low) / top
    d, dmin = half(step.max(-1, keepdims=True) / 63), half(low.max(-1, keepdims=True) / 63)
    scale = np.clip(np.rint(divide(step, d.astype(np.float32))), 0, 63).astype(np.uint8)
    low6 = np.clip(np.rint(divide(low, dmin.astype(np.float32))), 0, 63).astype(np.uint8)
    s, m = (d.astype(np.float32) * scale)[..., None], (dmin.astype(np.float32) * low6)[..., None]
    q = np.clip(np.rint(divide(x + m, s)), 0, top).astype(np.uint8)
    packed = np.zeros((n, 12), np.uint8)
    packed[:, 0:4] = scale[:, :4] | (scale[:, 4:] >> 4) << 6
    packed[:, 4:8] = low6[:, :4] | (low6[:, 4:] >> 4) << 6
    packed[:, 8:12] = (scale[:, 4:] & 15) | (low6[:, 4:] & 15) << 4
    parts = [d.view(np.uint8), dmin.view(np.uint8), packed]
    if kind == Q.Q5_K:
        parts.append(np.bitwise_or.reduce((q >> 4) << np.arange(8, dtype=np.uint8)[None, :, None], axis=1).astype(np.uint8))
    pairs = (q & 15).reshape(n, 4, 2, 32)
    parts.append((pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(n, 128))
    return np.concatenate(parts, axis=1)


def encode_6(blocks):
    """128 bytes of low nibbles, 64 of high pairs of bits, 16 signed scales, d: float16; x = d scale (q - 32)."""
    n = len(blocks)
    x = blocks.reshape(n, 16, 16)
    at = np.abs(x).argmax(-1)[..., None]
    step = -np.take_along_axis(x, at, -1)[..., 0] / 32           # the largest becomes -32
    d = half(np.abs(step).max(-1, keepdims=True) / 127)
    scale = np.clip(np.rint(divide(step, d.astype(np.float32))), -128, 127).astype(np.int8)
    q = (np.clip(np.rint(divide(x, (d.astype(np.float32) * scale)[..., None])), -32, 31) + 32).astype(np.uint8)
    q = q.reshape(n, 2, 4, 32)                                   # half, quarter, position
    low = np.stack((q[:, :, 0] & 15 | (q[:, :, 2] & 15) << 4, q[:, :, 1] & 15 | (q[:, :, 3] & 15) << 4), axis=2)
    high = np.bitwise_or.reduce((q >> 4) << np.array([0, 2, 4, 6], np.uint8)[None, None, :, None], axis=2)
    return np.concatenate([low.reshape(n, 128), high.reshape(n, 64), scale.view(np.uint8), d.view(np.uint8)], axis=1)


def make_quantized(name):
    kind, ffn = QUANTIZED_TYPES[name]
    folder = DATA / "models" / name
    for seed in range(1, 100):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        weights = random_weights(QUANTIZED, seed)
        decoded = write_gguf(folder / "model.gguf", QUANTIZED, weights, kind, encode=encode, ffn=ffn)
        with tempfile.TemporaryDirectory() as at:
            at = Path(at)
            (at / "config.json").write_text(json.dumps(QUANTIZED))
            save_file(decoded, at / "model.safetensors", metadata={"format": "pt"})
            model = Transformers(at)
            prompt = make_prompt(QUANTIZED, 32, seed)
            greedy, gap = model.greedy_cached(prompt)
            if gap < GAP or not varied(prompt, greedy):
                continue
            logits = model.logits(prompt)
        break
    error = torch.cat([(decoded[n] - weights[n]).flatten() for n in weights if weights[n].dim() == 2])
    size = torch.cat([weights[n].flatten() for n in weights if weights[n].dim() == 2])
    write_reference(folder, prompt, logits, greedy, gap, seed, relative_error=round((error.norm() / size.norm()).item(), 5))
    print(f"{name}: seed {seed}, smallest gap {gap:.4f}, {len(set(greedy))} different tokens, relative error "
          f"{error.norm() / size.norm():.4f}, {sum(f.stat().st_size for f in folder.iterdir())} bytes", flush=True)


# Where the float16 scales of a block lie.
SCALES = {Q.Q8_0: [0], Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q2_K: [80, 82], Q.Q3_K: [108], Q.Q4_K: [0, 2],
          Q.Q5_K: [0, 2], Q.Q6_K: [208], Q.IQ4_NL: [0], Q.IQ4_XS: [0], Q.MXFP4: []}


def make_quantization():
    folder = DATA / "quantization"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    g = np.random.default_rng(7)
    # ordinary, one, negative, zero, minus zero, smallest and largest subnormal, smallest normal, largest
    scales = half([0.0123, 1.0, -0.75, 0.0, -0.0, 2.0 ** -24, 2.0 ** -14 - 2.0 ** -24, 2.0 ** -14, 65504.0, -65504.0])
    index = {}
    for kind, places in SCALES.items():
        size, length = gguf.GGML_QUANT_SIZES[kind][1], gguf.GGML_QUANT_SIZES[kind][0]
        blocks = g.integers(0, 256, (len(scales), size), dtype=np.uint8)
        blocks[1, :] = 255                                       # all bits set, then none
        blocks[2, :] = 0
        for n, place in enumerate(places):
            blocks[:, place:place + 2] = np.roll(scales, 3 * n)[:, None].view(np.uint8)
        if kind == Q.MXFP4:
            blocks[:, 0] = [127, 0, 1, 2, 120, 126, 128, 140, 200, 235]
        with np.errstate(over="ignore"):
            values = gguf.quants.dequantize(blocks, kind).astype("<f4")
        assert np.isfinite(values).all() and values.shape == (len(scales), length), kind
        (folder / f"{kind.name}.bin").write_bytes(blocks.tobytes())
        (folder / f"{kind.name}.f32").write_bytes(values.tobytes())
        index[kind.name] = dict(ggml_type=int(kind), blocks=len(blocks), block_bytes=size, block_values=length)
    (folder / "index.json").write_text("{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in index.items()) + "\n}\n")
    print(f"quantization: {sum(f.stat().st_size for f in folder.iterdir())} bytes")


def main():
    import transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    for name in MODELS:
        if not wanted or name in wanted:
            make_model(name)
    for name in QUANTIZED_TYPES:
        if not wanted or name in wanted:
            make_quantized(name)
    if not wanted or "quantization" in wanted:
        make_quantization()


if __name__ == "__main__":
    main()
