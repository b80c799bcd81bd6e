#!/usr/bin/env python3
"""Trains the drafters and exits that go with a frozen model of this folder, and measures them.

    shakespeare-medusa   Medusa heads: each guesses one token further ahead from the last hidden state (Cai et al. 2024)
    shakespeare-eagle    an EAGLE drafter: one layer that continues the model's features and its own (Li et al. 2024)
    shakespeare-eagle3   the same with the features of three depths, its own small vocabulary, and no constraint to
                         the model's features (EAGLE-3, Li et al. 2025)
    shakespeare-mtp      a multi-token-prediction layer (DeepSeek-V3, 2024, section 2.2)
    shakespeare-exits    an affine map behind each layer but the last, that makes its state one to predict from:
                         the tuned lens (Belrose et al. 2023), for leaving early and for drafting with the first layers

Each folder has a config.json, a safetensors file (bfloat16) with the names of the published checkpoints of its kind,
and a README.md. The model itself is not changed.

    venv/bin/python models/train_drafters.py --text tinyshakespeare.txt            # all, into models/
    venv/bin/python models/train_drafters.py --text tinyshakespeare.txt --only shakespeare-medusa
    venv/bin/python models/train_drafters.py --text tinyshakespeare.txt --evaluate

The drafters learn what the model says (self-distillation): it continues beginnings from its training text, half of the rows
with the likeliest token, half drawn at temperature 1, and a drafter's loss is the cross entropy to the model's own
distribution at each position. The rows, with the model's hidden states, are kept in --cache; it can be deleted.

Measure: the model continues 256 beginnings of 16 tokens from the held-out text by 128 tokens, with the likeliest one each. From each
position, accepted(k) is the share of positions where the drafter's first k guesses, one after the other, are all the model's
(no tree); tokens a step = 1 + their sum. Also the same with each guess anywhere in the drafter's best three.

Seeds are fixed; the same versions on the same machine and number of threads give the same weights.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

from train import HERE, RMSNorm, Rows, load, rotate, split

TARGET = "shakespeare-llama"
PROMPT, NEW = 16, 128
ROWS = 6000                     # half greedy, half drawn
DEPTH = 4                       # how many guesses in a row a drafter is trained for

# epochs, rows a step, peak learning rate
RECIPES = {
    "shakespeare-eagle3": dict(seed=13, epochs=6, size=32, peak=3e-3),
    "shakespeare-medusa": dict(seed=11, epochs=3, size=32, peak=1e-3),
    "shakespeare-exits": dict(seed=15, epochs=2, size=32, peak=1e-3),
    "shakespeare-eagle": dict(seed=12, epochs=5, size=32, peak=3e-3),
    "shakespeare-mtp": dict(seed=14, epochs=4, size=32, peak=3e-3),
}
MEDUSA_HEADS = 3
DRAFTER = dict(num_attention_heads=4, num_key_value_heads=1, head_dim=32, intermediate_size=256)
DRAFT_VOCABULARY = 640          # of EAGLE-3
EAGLE3_LAYERS = [2, 3, 4]       # the states behind so many layers are its features


# ---------------------------------------------------------------- what the model says

def states(model, ids):
    """The hidden states [layers + 1][B, T, E]: the embedding, then what is behind each layer (no final norm)."""
    x = model.model.embed_tokens(ids)
    out = [x]
    for layer in model.model.layers:
        x = layer(x)
        out.append(x)
    return out


@torch.no_grad()
def continuations(model, prompts, new, temperature, generator):
    """prompts [B, P] -> [B, P + new]; temperature [B], 0 takes the likeliest."""
    b, p = prompts.shape
    attention = [layer.self_attn for layer in model.model.layers]
    keys = [torch.zeros(b, a.kv, p + new, a.size) for a in attention]
    values = [torch.zeros_like(k) for k in keys]
    theta, size = attention[0].theta, attention[0].size
    rate = theta ** (-torch.arange(0, size, 2).float() / size)

    def run(ids, start):
        x = model.model.embed_tokens(ids)
        t = ids.shape[1]
        angle = torch.outer(torch.arange(start, start + t).float(), rate)
        mask = torch.full((t, start + t), -math.inf).triu(start + 1)
        for i, layer in enumerate(model.model.layers):
            a, y = attention[i], layer.input_layernorm(x)
            q, k, v = a.project(y)
            q = rotate(q, angle.cos(), angle.sin()) * size ** -0.5
            keys[i][:, :, start:start + t] = rotate(k, angle.cos(), angle.sin())
            values[i][:, :, start:start + t] = v
            k, v = keys[i][:, :, :start + t], values[i][:, :, :start + t]
            q = q.reshape(b, a.kv, -1, size)                    # the heads of one kv head as rows
            w = torch.softmax((q @ k.transpose(2, 3)).view(b, a.heads, t, -1) + mask, -1)
            y = (w.view(b, a.kv, -1, start + t) @ v).view(b, a.heads, t, size)
            x = x + a.o_proj(y.transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return F.linear(model.model.norm(x[:, -1]), model.model.embed_tokens.weight)

    ids, start, step = prompts, 0, prompts
    for _ in range(new):
        logits = run(step, start)
        start = ids.shape[1]
        drawn = torch.multinomial(torch.softmax(logits / temperature.clamp(min=0.01)[:, None], -1), 1, generator=generator)
        step = torch.where(temperature[:, None] > 0, drawn, logits.argmax(-1, keepdim=True))
        ids = torch.cat((ids, step), 1)
    return ids


def beginnings(text, tokenizer, rows, seed):
    """[rows, PROMPT] with <|begin_of_text|> in front: half begin anywhere, half where a speech does."""
    source = Rows(text, tokenizer, PROMPT - 1, seed)
    return torch.tensor([source.one(3 * (i % 2))[:PROMPT] for i in range(rows)])


def data(arguments, model, tokenizer, log):
    """dict of tokens [R, T] and their states [layers][R, T, E], from the cache where they are."""
    file = Path(arguments.cache) / "rows.pt"
    if file.exists():
        return torch.load(file, mmap=True)
    text, heldout = split(Path(arguments.text).read_text())
    start, g = time.time(), torch.Generator().manual_seed(10)
    rows = []
    prompts = beginnings(text, tokenizer, arguments.rows, 10)
    for i in range(0, arguments.rows, 500):
        part = prompts[i:i + 500]
        rows.append(continuations(model, part, NEW, (torch.arange(len(part)) % 4 >= 2).float(), g))
        log(f"rows {i + len(part)}, {time.time() - start:.0f} s")
    check = continuations(model, beginnings(heldout, tokenizer, 256, 20), NEW, torch.zeros(256), g)
    out = dict(tokens=torch.cat(rows), check=check)
    for name in ("tokens", "check"):
        with torch.no_grad():
            parts = [torch.stack(states(model, part)[1:]).to(torch.bfloat16) for part in out[name].split(50)]
        out[name + "_states"] = torch.cat(parts, 1)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(out, file)
    log(f"{out['tokens'].numel()} tokens with their states, {time.time() - start:.0f} s")
    return out


# ---------------------------------------------------------------- the drafters

class Target:
    """What the drafters take from the model, frozen: tokens' embeddings, the final norm, the output head."""

    def __init__(self, model):
        self.embedding = model.model.embed_tokens.weight.detach()
        self.norm, self.width, self.vocabulary = model.model.norm, self.embedding.shape[1], self.embedding.shape[0]

    def embed(self, ids):
        return F.embedding(ids, self.embedding)

    @torch.no_grad()
    def features(self, last):
        return self.norm(last.float())

    def logits(self, features):
        return F.linear(features, self.embedding)


class ResBlock(nn.Module):
    def __init__(self, e):
        super().__init__()
        self.linear = nn.Linear(e, e)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x):
        return x + F.silu(self.linear(x))


class Medusa(nn.ModuleList):
    """Head i guesses, from the feature behind token t, token t + 2 + i."""

    def __init__(self, target):
        heads = [nn.Sequential(ResBlock(target.width), nn.Linear(target.width, target.vocabulary, bias=False))
                 for _ in range(MEDUSA_HEADS)]
        for h in heads:
            h[1].weight.data.copy_(target.embedding)
        super().__init__(heads)

    def guesses(self, target, tokens, hidden):
        """Logits [B, T', V] of guess k from position t, k = 0 ...; guess k is of token t + 2 + k."""
        f = target.features(hidden[-1])
        return [head(f) for head in self]

    def wanted(self, target, distribution, k):
        return distribution

    def to_target(self, ids):
        return ids


class DraftAttention(nn.Module):
    """The layer's attention, also behind its own guesses: those of earlier steps are one key each."""

    def __init__(self, e, inputs, theta):
        super().__init__()
        self.heads, self.kv, self.size, self.theta = (
            DRAFTER["num_attention_heads"], DRAFTER["num_key_value_heads"], DRAFTER["head_dim"], theta)
        self.q_proj = nn.Linear(inputs, self.heads * self.size, bias=False)
        self.k_proj = nn.Linear(inputs, self.kv * self.size, bias=False)
        self.v_proj = nn.Linear(inputs, self.kv * self.size, bias=False)
        self.o_proj = nn.Linear(self.heads * self.size, e, bias=False)

    def forward(self, x, past):
        """x [B, T, inputs]: row t stands at position t + len(past). `past`: (key, value) of the steps before, added to."""
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, self.heads, self.size).transpose(1, 2)
        k = self.k_proj(x).view(b, t, self.kv, self.size).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.kv, self.size).transpose(1, 2)
        rate = self.theta ** (-torch.arange(0, self.size, 2).float() / self.size)
        angle = torch.outer(torch.arange(t).float() + len(past), rate)
        q, k = rotate(q, angle.cos(), angle.sin()) * self.size ** -0.5, rotate(k, angle.cos(), angle.sin())
        past.append((k, v))
        group = self.heads // self.kv
        first, value = past[0]
        mask = torch.full((t, t), -math.inf).triu(1)
        grouped = q.reshape(b, self.kv, group * t, self.size)
        scores = [(grouped @ first.transpose(2, 3)).view(b, self.heads, t, t) + mask]
        own = [(q * key.repeat_interleave(group, 1)).sum(-1, keepdim=True) for key, _ in past[1:]]
        w = torch.softmax(torch.cat(scores + own, -1).float(), -1).to(q.dtype)
        y = (w[..., :t].reshape(b, self.kv, group * t, t) @ value).view(b, self.heads, t, self.size)
        for i, (_, later) in enumerate(past[1:]):
            y = y + w[..., t + i:t + i + 1] * later.repeat_interleave(group, 1)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, e):
        super().__init__()
        f = DRAFTER["intermediate_size"]
        self.gate_proj = nn.Linear(e, f, bias=False)
        self.up_proj = nn.Linear(e, f, bias=False)
        self.down_proj = nn.Linear(f, e, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class FeatureDrafter(nn.Module):
    """A layer that takes the feature behind token t and token t + 1, and gives the feature behind token t + 1 and from it
    guesses token t + 2; its own features stand in for the model's from there on."""

    def guesses(self, target, tokens, hidden):
        feature, past, out = self.fuse(target, hidden), [], []
        for k in range(DEPTH):
            # Row t of step k stands at position t + k: the feature behind token t + k, and token t + k + 1.
            ids = F.pad(tokens[:, k + 1:], (0, k + 1))
            feature = self.layer(target.embed(ids), feature, past)
            out.append(self.predict(target, feature))
            self.last_features = feature if k == 0 else self.last_features
        return out

    def wanted(self, target, distribution, k):
        return distribution

    def to_target(self, ids):
        return ids


class Eagle(FeatureDrafter):
    """The published layer 0: no norm in front of the attention; the feature is that behind the model's final norm."""

    class Layer(nn.Module):
        def __init__(self, e, theta):
            super().__init__()
            self.self_attn = DraftAttention(e, e, theta)
            self.mlp = FeedForward(e)
            self.post_attention_layernorm = RMSNorm(e, 1e-5)

    def __init__(self, target, theta):
        super().__init__()
        e = target.width
        self.fc = nn.Linear(2 * e, e)
        self.layers = nn.ModuleList([Eagle.Layer(e, theta)])

    def fuse(self, target, hidden):
        return target.features(hidden[-1])

    def layer(self, embedded, feature, past):
        x, layer = self.fc(torch.cat((embedded, feature), -1)), self.layers[0]
        x = x + layer.self_attn(x, past)
        return x + layer.mlp(layer.post_attention_layernorm(x))

    def predict(self, target, feature):
        return target.logits(feature)


class Mtp(FeatureDrafter):
    """DeepSeek-V3's module with a dense layer; embedding and output head are the model's."""

    class Head(nn.Module):
        def __init__(self, e):
            super().__init__()
            self.norm = RMSNorm(e, 1e-5)

    def __init__(self, target, theta):
        super().__init__()
        e = target.width
        self.enorm, self.hnorm = RMSNorm(e, 1e-5), RMSNorm(e, 1e-5)
        self.eh_proj = nn.Linear(2 * e, e, bias=False)
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(e, 1e-5), RMSNorm(e, 1e-5)
        self.self_attn, self.mlp = DraftAttention(e, e, theta), FeedForward(e)
        self.shared_head = Mtp.Head(e)

    fuse = Eagle.fuse

    def layer(self, embedded, feature, past):
        x = self.eh_proj(torch.cat((self.enorm(embedded), self.hnorm(feature)), -1))
        x = x + self.self_attn(self.input_layernorm(x), past)
        return x + self.mlp(self.post_attention_layernorm(x))

    def predict(self, target, feature):
        return target.logits(self.shared_head.norm(feature))


class Eagle3(FeatureDrafter):
    class Layer(nn.Module):
        def __init__(self, e, theta):
            super().__init__()
            self.self_attn = DraftAttention(e, 2 * e, theta)
            self.mlp = FeedForward(e)
            self.hidden_norm, self.input_layernorm = RMSNorm(e, 1e-5), RMSNorm(e, 1e-5)
            self.post_attention_layernorm = RMSNorm(e, 1e-5)

    def __init__(self, target, theta, kept):
        super().__init__()
        e = target.width
        self.fc = nn.Linear(3 * e, e, bias=False)
        self.midlayer = Eagle3.Layer(e, theta)
        self.norm = RMSNorm(e, 1e-5)
        self.lm_head = nn.Linear(e, len(kept), bias=False)
        self.lm_head.weight.data.copy_(target.embedding[kept])
        self.register_buffer("d2t", kept - torch.arange(len(kept)))          # draft id -> model id, as a difference
        self.register_buffer("t2d", torch.zeros(target.vocabulary, dtype=torch.bool).index_fill_(0, kept, True))

    def fuse(self, target, hidden):
        return self.fc(torch.cat([hidden[i - 1].float() for i in EAGLE3_LAYERS], -1))

    def layer(self, embedded, feature, past):
        m = self.midlayer
        x = feature + m.self_attn(torch.cat((m.input_layernorm(embedded), m.hidden_norm(feature)), -1), past)
        return x + m.mlp(m.post_attention_layernorm(x))

    def predict(self, target, feature):
        return self.lm_head(self.norm(feature))

    def wanted(self, target, distribution, k):
        return distribution[..., self.t2d]            # not normalized: what the draft vocabulary lacks has no loss

    def to_target(self, ids):
        return ids + self.d2t[ids]


class Exits(nn.ModuleList):
    """Entry i maps the state behind layer i + 1 to one that the final norm and the output head understand: h + W h + b."""

    def __init__(self, target, layers):
        super().__init__([nn.Linear(target.width, target.width) for _ in range(layers - 1)])
        for p in self.parameters():
            nn.init.zeros_(p)

    def logits(self, target, hidden):
        hidden = [h.float() for h in hidden[:len(self)]]
        norm = target.norm                            # its weight is frozen, the gradient goes through
        return [target.logits(norm(h + map(h))) for map, h in zip(self, hidden)]


# ---------------------------------------------------------------- train and measure

def distributions(target, last, temperature=1.0):
    return torch.softmax(target.logits(target.features(last)) / temperature, -1)


def loss_of(kind, drafter, target, tokens, hidden):
    p = distributions(target, hidden[-1])
    if kind == "exits":
        return sum(-(p * F.log_softmax(y.float(), -1)).sum(-1).mean() for y in drafter.logits(target, hidden))
    total, length = 0.0, tokens.shape[1]
    for k, logits in enumerate(drafter.guesses(target, tokens, hidden)):
        # Row t of guess k is of token t + 2 + k: the model's row t + 1 + k has its distribution.
        n = length - 1 - k
        q = F.log_softmax(logits[:, :n].float(), -1)
        total = total - 0.8 ** k * (drafter.wanted(target, p[:, 1 + k:], k) * q).sum(-1).mean()
    if kind == "eagle":                               # EAGLE's own: the feature itself too
        total = total + F.smooth_l1_loss(drafter.last_features[:, :-1].float(), target.features(hidden[-1])[:, 1:])
    return total


@torch.no_grad()
def measure(kind, drafter, target, rows):
    """For drafters (accepted(1), accepted(2), ...), the same with the best three, and each guess's share of being the
    j-th best (j = 1 ... 8); for exits the share of equal best tokens an exit."""
    tokens, hidden = rows["check"], rows["check_states"]
    best = distributions(target, hidden[-1]).argmax(-1)             # [R, T]
    used = slice(PROMPT - 1, None)                                  # roots behind the prompt
    if kind == "exits":
        return [(y.argmax(-1) == best)[:, used].float().mean().item() for y in drafter.logits(target, hidden)]
    ranks = []
    for k, logits in enumerate(drafter.guesses(target, tokens, hidden)):
        n = tokens.shape[1] - DEPTH
        ids = drafter.to_target(logits[:, :n].topk(8).indices)
        ranks.append((ids == best[:, 1 + k:1 + k + n, None])[:, used])     # [R, n, 8]
    chain = torch.stack([r[..., 0] for r in ranks]).float().cumprod(0).mean((1, 2)).tolist()
    three = torch.stack([r[..., :3].any(-1) for r in ranks]).float().cumprod(0).mean((1, 2)).tolist()
    return chain, three, [r.float().mean((0, 1)).tolist() for r in ranks]


def make(name, target, layers, theta, rows):
    kind = name.split("-")[1]
    if kind == "medusa":
        return kind, Medusa(target)
    if kind == "eagle3":
        counts = torch.bincount(rows["tokens"].flatten(), minlength=target.vocabulary)
        kept = counts.topk(DRAFT_VOCABULARY).indices.sort().values
        return kind, Eagle3(target, theta, kept)
    if kind == "exits":
        return kind, Exits(target, layers)
    return kind, {"eagle": Eagle, "mtp": Mtp}[kind](target, theta)


def train(name, recipe, target, layers, theta, rows, log):
    torch.manual_seed(recipe["seed"])
    kind, drafter = make(name, target, layers, theta, rows)
    tokens, hidden = rows["tokens"], rows["tokens_states"]
    steps = recipe["epochs"] * (len(tokens) // recipe["size"])
    matrices = [p for p in drafter.parameters() if p.dim() > 1]
    optimizer = torch.optim.AdamW([dict(params=matrices, weight_decay=0.05),
                                   dict(params=[p for p in drafter.parameters() if p.dim() == 1], weight_decay=0.0)],
                                  lr=recipe["peak"], betas=(0.9, 0.98))
    start, step = time.time(), 0
    log(f"{name}: {sum(p.numel() for p in drafter.parameters())} parameters, {steps} steps")
    for epoch in range(recipe["epochs"]):
        order = torch.randperm(len(tokens))
        for i in range(0, len(order) - recipe["size"] + 1, recipe["size"]):
            step += 1
            rate = recipe["peak"] * min(step / 50, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            which = order[i:i + recipe["size"]]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = loss_of(kind, drafter, target, tokens[which], hidden[:, which])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(drafter.parameters(), 1.0)
            optimizer.step()
            if step % 50 == 0:
                log(f"{step:6d}  loss {loss.item():.4f}  {time.time() - start:.0f} s")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            log(f"epoch {epoch + 1}: {shown(kind, measure(kind, drafter, target, rows))}, {time.time() - start:.0f} s")
    return kind, drafter.to(torch.bfloat16).float(), time.time() - start, steps


def shown(kind, result):
    if kind == "exits":
        return "equal best token behind layer 1, 2 ...: " + ", ".join(f"{x:.3f}" for x in result)
    chain, three, _ = result
    return (f"accepted {', '.join(f'{x:.3f}' for x in chain)}: {1 + sum(chain):.2f} tokens a step; best three "
            f"{', '.join(f'{x:.3f}' for x in three)}: {1 + sum(three):.2f}")


# ---------------------------------------------------------------- write

WHAT = {
    "medusa": ("Medusa heads", "Head i is `W2 (f + silu(W1 f + b))`, f the model's last hidden state behind its final norm, and guesses "
               "the token i + 2 ahead (i = 0, 1, ...); tensors `{i}.0.linear.weight`, `{i}.0.linear.bias`, `{i}.1.weight`, as "
               "published (Cai et al. 2024). `rank_accuracy` in config.json is each head's share of being right with its best "
               "token, its second best ..., from which the tree is built."),
    "eagle": ("An EAGLE drafter", "One layer over `fc([embedding; feature])`, no norm in front of its attention, the model's own embedding and "
              "output head; tensor names as published (Li et al. 2024). Trained over its own features too, as EAGLE-3 is."),
    "eagle3": ("An EAGLE-3 drafter", "`fc` joins the states behind three of the model's layers (`eagle_aux_hidden_state_layer_ids`); one layer "
               "`midlayer.*` over `[norm(embedding); norm(feature)]`, `norm`, and an output head of its own over the most frequent "
               "tokens (`d2t`, `t2d`); tensor names as published (Li et al. 2025)."),
    "mtp": ("A multi-token-prediction layer", "DeepSeek-V3's module (2024, section 2.2) with a dense layer: `eh_proj [enorm(embedding); "
            "hnorm(feature)]`, a layer, `shared_head.norm`, the model's own embedding and output head. It is used for several "
            "tokens in a row."),
    "exits": ("Exits", "For each layer but the last a map `h + W h + b` whose result goes through the model's own final norm and output head: a "
              "tuned lens (Belrose et al. 2023). Tensors `{i}.weight`, `{i}.bias`; entry i stands behind i + 1 layers."),
}
CARD = """# {name}

{title} for `{target}`, trained by `models/train_drafters.py` on what that model says: {rows} continuations of {new} tokens of
beginnings from its training text (half greedy, half drawn at temperature 1), the loss being the cross entropy to its own distribution.
The licence and the remarks of `{target}` hold.

{what}

| | |
|---|---|
| parameters, stored as | {parameters:,}, bfloat16 |
| trained | {steps} steps of {size} rows, {minutes:.0f} minutes on one CPU thread of a busy, shared machine |
{figures}
Measured on greedy continuations of 256 beginnings of {prompt} tokens from the held-out text, in PyTorch, from the weights as stored.
"""


def write(folder, kind, drafter, target_config, result, recipe, seconds, steps, rows):
    from safetensors.torch import save_file
    folder.mkdir(parents=True, exist_ok=True)
    c = target_config
    tensors = {n: (t.to(torch.bfloat16) if t.is_floating_point() else t).contiguous() for n, t in drafter.state_dict().items()}
    if kind == "medusa":
        config = dict(model_type="medusa", base_model_name_or_path=TARGET, medusa_num_heads=MEDUSA_HEADS, medusa_num_layers=1,
                      hidden_size=c["hidden_size"], vocab_size=c["vocab_size"], rank_accuracy=[[round(x, 4) for x in r] for r in result[2]])
    elif kind == "exits":
        config = dict(model_type="exits", base_model_name_or_path=TARGET, num_hidden_layers=c["num_hidden_layers"],
                      hidden_size=c["hidden_size"])
    else:
        config = dict(architectures=[dict(eagle="LlamaForCausalLMEagle", eagle3="LlamaForCausalLMEagle3", mtp="LlamaForCausalLMMtp")[kind]],
                      model_type="llama", base_model_name_or_path=TARGET, hidden_size=c["hidden_size"], num_hidden_layers=1, **DRAFTER,
                      vocab_size=c["vocab_size"], max_position_embeddings=c["max_position_embeddings"], rms_norm_eps=1e-5,
                      rope_theta=c["rope_theta"], hidden_act="silu", torch_dtype="bfloat16", tie_word_embeddings=False)
        if kind == "eagle":
            config["bias"] = True
        if kind == "eagle3":
            config.update(draft_vocab_size=DRAFT_VOCABULARY,
                          eagle_config=dict(eagle_aux_hidden_state_layer_ids=EAGLE3_LAYERS))
        if kind == "mtp":
            config["num_nextn_predict_layers"] = 1
            tensors = {f"model.layers.{c['num_hidden_layers']}.{n}": t for n, t in tensors.items()}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, folder / ("medusa_lm_head.safetensors" if kind == "medusa" else "model.safetensors"),
              metadata={"format": "pt"})
    if kind == "exits":
        figures = "".join(f"| behind layer {i + 1}: same best token as the whole model | **{x:.3f}** |\n" for i, x in enumerate(result))
    else:
        chain, three, _ = result
        figures = (f"| accepted(1), accepted(2), ... | {', '.join(f'{x:.3f}' for x in chain)} |\n"
                   f"| tokens a step, one sequence | **{1 + sum(chain):.2f}** |\n"
                   f"| tokens a step, each guess in the best three | {1 + sum(three):.2f} |\n")
    (folder / "README.md").write_text(CARD.format(
        name=folder.name, title=WHAT[kind][0], what=WHAT[kind][1], target=TARGET, rows=len(rows["tokens"]), new=NEW, prompt=PROMPT,
        parameters=sum(t.numel() for t in tensors.values() if t.is_floating_point()), steps=steps, size=recipe["size"],
        minutes=seconds / 60, figures=figures))


def stored(name, output, target, layers, theta, rows):
    from safetensors.torch import load_file
    kind, drafter = make(name, target, layers, theta, rows)
    file = output / name / ("medusa_lm_head.safetensors" if kind == "medusa" else "model.safetensors")
    weights = load_file(file)
    if kind == "mtp":
        weights = {n.split(".", 3)[3]: t for n, t in weights.items()}
    drafter.load_state_dict(weights)
    return kind, drafter.float()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, help="the training text (tiny Shakespeare)")
    parser.add_argument("--output", default=str(HERE), help="where the folders go")
    parser.add_argument("--cache", default="drafter-rows", help="a folder for the model's rows; may be deleted afterwards")
    parser.add_argument("--only", nargs="*", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--epochs", type=int, help="for a quick try")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--evaluate", action="store_true", help="print the figures of the folders that are there, no training")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    log = lambda s: print(s, flush=True)
    model, tokenizer, c = load(HERE / TARGET, torch.device("cpu"))
    model.eval().requires_grad_(False)
    rows = data(arguments, model, tokenizer, log)
    target, layers, theta, output = Target(model), c["num_hidden_layers"], c["rope_theta"], Path(arguments.output)
    for name in arguments.only:
        if arguments.evaluate:
            kind, drafter = stored(name, output, target, layers, theta, rows)
            log(f"{name}: {shown(kind, measure(kind, drafter, target, rows))}")
            continue
        recipe = dict(RECIPES[name], **(dict(epochs=arguments.epochs) if arguments.epochs else {}))
        kind, drafter, seconds, steps = train(name, recipe, target, layers, theta, rows, log)
        result = measure(kind, drafter, target, rows)
        write(output / name, kind, drafter, c, result, recipe, seconds, steps, rows)
        log(f"{name}: as stored, {shown(kind, result)}, {seconds:.0f} s")


if __name__ == "__main__":
    main()
