#!/usr/bin/env python3
"""Writes tests/data/drafters/: small random drafters in their published layouts for the model tests/data/models/llama3, and what
they answer. Needs torch, numpy, safetensors:  python3 tests/reference/make_drafter_references.py

Written from the papers and the published modelling code's equations, in float32 and one node after the other: each node of a
draft is a sequence of its own (what was read, then its ancestors), so no mask comes in.

Inputs, in every folder: the tokens READ, NODES (token, parent) in two levels, and states (t, j) = sin(0.3 t + 0.7 j).
logits.f32: float32, little endian, [1 + nodes, vocabulary of the drafter], row 0 behind what was read. Medusa: [heads, V],
exits: [1, V] behind the one exit, both from state row 0.
"""
import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parents[1] / "data"
TARGET = load_file(HERE / "models/llama3/model.safetensors")
E, V, EPS, THETA = 64, 288, 1e-5, 10000.0
HEADS, KV, D, FF, DRAFT_V = 4, 2, 16, 48, 40
READ = [17, 45, 101, 260, 33, 8, 90]
NODES = [(12, 0), (200, 0), (77, 1), (31, 2), (150, 2), (5, 3)]
EMBEDDING, FINAL_NORM = TARGET["model.embed_tokens.weight"], TARGET["model.norm.weight"]


def rms(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * weight


def rotate(x, positions):                     # [T, heads, D]
    rate = THETA ** (-torch.arange(0, D, 2).float() / D)
    angle = positions[:, None].float() * rate
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def attention(w, p, x):
    t = x.shape[0]
    lin = lambda n: F.linear(x, w[p + n + ".weight"], w.get(p + n + ".bias"))
    q = rotate(lin("q_proj").view(t, HEADS, D), torch.arange(t))
    k = rotate(lin("k_proj").view(t, KV, D), torch.arange(t)).repeat_interleave(HEADS // KV, 1)
    v = lin("v_proj").view(t, KV, D).repeat_interleave(HEADS // KV, 1)
    s = torch.einsum("qhd,khd->hqk", q, k) / D ** 0.5
    s = s + torch.full((t, t), -torch.inf).triu(1)
    y = torch.einsum("hqk,khd->qhd", s.softmax(-1), v).reshape(t, HEADS * D)
    return F.linear(y, w[p + "o_proj.weight"])


def mlp(w, p, x):
    return F.linear(F.silu(F.linear(x, w[p + "gate_proj.weight"])) * F.linear(x, w[p + "up_proj.weight"]), w[p + "down_proj.weight"])


def layer(kind, w, tokens, feature):
    """[T] tokens and [T, E] features in front of them -> [T, E]."""
    e = EMBEDDING[tokens]
    if kind == "eagle":
        p, x = "layers.0.", F.linear(torch.cat((e, feature), -1), w["fc.weight"], w["fc.bias"])
        x = x + attention(w, p + "self_attn.", x)
    elif kind == "mtp":
        p = "model.layers.2."
        x = F.linear(torch.cat((rms(e, w[p + "enorm.weight"]), rms(feature, w[p + "hnorm.weight"])), -1), w[p + "eh_proj.weight"])
        x = x + attention(w, p + "self_attn.", rms(x, w[p + "input_layernorm.weight"]))
    else:
        p = "midlayer."
        x = torch.cat((rms(e, w[p + "input_layernorm.weight"]), rms(feature, w[p + "hidden_norm.weight"])), -1)
        x = feature + attention(w, p + "self_attn.", x)
    return x + mlp(w, p + "mlp.", rms(x, w[p + "post_attention_layernorm.weight"]))


def head(kind, w, g):
    if kind == "eagle":
        return F.linear(g, EMBEDDING)
    if kind == "mtp":
        return F.linear(rms(g, w["model.layers.2.shared_head.norm.weight"]), EMBEDDING)
    return F.linear(rms(g, w["norm.weight"]), w["lm_head.weight"])


def answers(kind, w, states):
    """states [T, k E]: the features are made of these."""
    feature = F.linear(states, w["fc.weight"]) if kind == "eagle3" else rms(states, FINAL_NORM)
    paths = [(list(READ), feature)]
    last = [layer(kind, w, torch.tensor(READ), feature)[-1]]
    for token, parent in NODES:
        tokens, features = paths[parent]
        paths.append((tokens + [token], torch.cat((features, last[parent][None]))))
        last.append(layer(kind, w, torch.tensor(paths[-1][0]), paths[-1][1])[-1])
    return torch.stack([head(kind, w, g) for g in last])


def make(kind, g):
    m = lambda *shape: (torch.randn(*shape, generator=g) * shape[-1] ** -0.5).to(torch.bfloat16).float()
    n = lambda: (1 + 0.2 * torch.randn(E, generator=g)).to(torch.bfloat16).float()
    def block(p, inputs):
        out = {p + "self_attn.q_proj.weight": m(HEADS * D, inputs), p + "self_attn.k_proj.weight": m(KV * D, inputs),
               p + "self_attn.v_proj.weight": m(KV * D, inputs), p + "self_attn.o_proj.weight": m(E, HEADS * D),
               p + "mlp.gate_proj.weight": m(FF, E), p + "mlp.up_proj.weight": m(FF, E), p + "mlp.down_proj.weight": m(E, FF),
               p + "post_attention_layernorm.weight": n()}
        return out
    config = dict(hidden_size=E, num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=D, intermediate_size=FF,
                  max_position_embeddings=256, rms_norm_eps=EPS, rope_theta=THETA, vocab_size=V)
    if kind == "eagle":
        w = dict(block("layers.0.", E), **{"fc.weight": m(E, 2 * E), "fc.bias": 0.1 * m(1, E)[0]})
    elif kind == "mtp":
        p = "model.layers.2."
        w = dict(block(p, E), **{p + "eh_proj.weight": m(E, 2 * E), p + "enorm.weight": n(), p + "hnorm.weight": n(),
                                 p + "input_layernorm.weight": n(), p + "shared_head.norm.weight": n()})
    elif kind == "eagle3":
        kept = torch.randperm(V, generator=g)[:DRAFT_V].sort().values
        w = dict(block("midlayer.", 2 * E), **{"fc.weight": m(E, 3 * E), "midlayer.input_layernorm.weight": n(), "norm.weight": n(),
                                               "midlayer.hidden_norm.weight": n(), "lm_head.weight": m(DRAFT_V, E),
                                               "d2t": kept - torch.arange(DRAFT_V)})
        config.update(draft_vocab_size=DRAFT_V, eagle_config=dict(eagle_aux_hidden_state_layer_ids=[0, 1, 2]))
    elif kind == "medusa":
        w = {}
        for i in range(2):
            w.update({f"{i}.0.linear.weight": m(E, E), f"{i}.0.linear.bias": 0.1 * m(1, E)[0], f"{i}.1.weight": m(V, E)})
        config = dict(medusa_num_heads=2, medusa_num_layers=1, rank_accuracy=[[0.5, 0.2, 0.1], [0.4, 0.1, 0.05]])
    else:
        w = {"0.weight": m(E, E), "0.bias": 0.1 * m(1, E)[0]}
        config = dict(hidden_size=E, num_hidden_layers=2)
    return config, {k: (t.to(torch.bfloat16) if t.is_floating_point() else t).contiguous() for k, t in w.items()}


def main():
    for seed, kind in enumerate(("eagle", "eagle3", "mtp", "medusa", "exits")):
        config, stored = make(kind, torch.Generator().manual_seed(40 + seed))
        w = {k: t.float() if t.is_floating_point() else t for k, t in stored.items()}
        width = 3 * E if kind == "eagle3" else E
        t, j = torch.meshgrid(torch.arange(len(READ)).double(), torch.arange(width).double(), indexing="ij")
        states = torch.sin(0.3 * t + 0.7 * j).float()
        if kind == "medusa":
            f = rms(states[0], FINAL_NORM)
            r = [f + F.silu(F.linear(f, w[f"{i}.0.linear.weight"], w[f"{i}.0.linear.bias"])) for i in range(2)]
            logits = torch.stack([F.linear(r[i], w[f"{i}.1.weight"]) for i in range(2)])
        elif kind == "exits":
            x = states[:1]
            logits = F.linear(rms(x + F.linear(x, w["0.weight"], w["0.bias"]), FINAL_NORM), EMBEDDING)
        else:
            logits = answers(kind, w, states)
        folder = HERE / "drafters" / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        save_file(stored, folder / ("medusa_lm_head.safetensors" if kind == "medusa" else "model.safetensors"))
        logits.numpy().astype(np.float32).tofile(folder / "logits.f32")
        print(kind, tuple(logits.shape))


if __name__ == "__main__":
    main()
