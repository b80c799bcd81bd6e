#!/usr/bin/env python3
"""Trains the three small models in this folder, and measures them.

    shakespeare-llama    a Llama (grouped-query attention, rotary positions), the model of the examples
    shakespeare-draft    a much smaller Llama with the same tokenizer, to draft for the first one
    shakespeare-linear   the same layers as the first, but each attention is causal linear attention with
                         a decay a head: a recurrence with a state of fixed size (see LinearAttention below)

Each folder is a Hugging Face checkpoint: config.json, generation_config.json, model.safetensors (bfloat16),
tokenizer.json, tokenizer_config.json (with a chat template), README.md. `transformers` loads the two Llamas;
the third has an architecture of its own, of which this file is the reference.

Set up and run:

    python3 -m venv venv
    venv/bin/pip install torch numpy tokenizers safetensors        # transformers too, for --check
    venv/bin/python models/train.py --text tinyshakespeare.txt     # all three, into models/
    venv/bin/python models/train.py --evaluate models/shakespeare-llama
    venv/bin/python models/train.py --check models/shakespeare-llama

The text is "tiny Shakespeare" (1,115,394 characters, Andrej Karpathy's char-rnn repository). The last tenth of
its characters is held out (models/heldout.txt, written here): tokenizer and weights see only the first nine.
The held-out tenth also picks the step at which each training stops, so its perplexity is a little flattering.

Measure (--evaluate): the held-out text is tokenized without special tokens and cut into consecutive windows
of 256 tokens (the last one shorter); <|begin_of_text|> is put in front of each; every token of the window is
scored; perplexity = exp(mean negative log-likelihood over all tokens), from the weights as stored (bfloat16),
computed in float32. Bits per byte = the same sum / ln 2 / bytes of text.

Cost: the cards say how long each took, on two busy, shared CPU cores with AVX512_BF16. CUDA is used where there is one.
Seeds are fixed; the same versions on the same machine and number of threads give the same weights.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
BOS, EOS, HEADER, HEADER_END, TURN_END = SPECIAL = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
VOCABULARY = 1024
WINDOW = 256

SHAPES = {
    "shakespeare-llama": dict(hidden_size=256, intermediate_size=512, num_hidden_layers=4,
                              num_attention_heads=8, num_key_value_heads=2, head_dim=32),
    "shakespeare-draft": dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2,
                              num_attention_heads=4, num_key_value_heads=2, head_dim=32),
    "shakespeare-linear": dict(hidden_size=256, intermediate_size=512, num_hidden_layers=4,
                               num_attention_heads=8, num_key_value_heads=2, head_dim=32,
                               # memory of about 1 / (1 - decay) tokens: 2, 4, 8, 16, 32, 64, 256, all
                               decay=[0.5, 0.75, 0.875, 0.9375, 0.96875, 0.984375, 0.99609375, 1.0]),
}
# A stage is steps, rows a step, peak learning rate, dropout; a later stage starts from what the one before
# kept, as stored. Rows have 256 tokens. The first stage of the first model ran with --threads 2, all others with 1.
RECIPES = {
    "shakespeare-llama": dict(seed=1, decay=0.3, stages=[(1400, 24, 2e-3, 0.3), (300, 24, 1e-3, 0.15)]),
    "shakespeare-draft": dict(seed=2, decay=0.1, stages=[(1500, 16, 4e-3, 0.0)]),
    "shakespeare-linear": dict(seed=3, decay=0.3, stages=[(700, 16, 2e-3, 0.1)]),
}
ROW = 256


# ---------------------------------------------------------------- the models (names as in transformers)

class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        y = x.float()
        return (self.weight * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps))).to(x.dtype)


def rotate(x, cos, sin):                      # x [B, H, T, D]; the two halves of D are the pairs
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv, self.size = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        e = c["hidden_size"]
        self.q_proj = nn.Linear(e, self.heads * self.size, bias=False)
        self.k_proj = nn.Linear(e, self.kv * self.size, bias=False)
        self.v_proj = nn.Linear(e, self.kv * self.size, bias=False)
        self.o_proj = nn.Linear(self.heads * self.size, e, bias=False)

    def project(self, x):
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, self.heads, self.size).transpose(1, 2)
        k = self.k_proj(x).view(b, t, self.kv, self.size).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.kv, self.size).transpose(1, 2)
        return q, k, v

    # Each kv head serves heads / kv consecutive query heads, here as rows of one product.
    def products(self, q, k):                 # [B, H, T, D], [B, K, T, D] -> [B, H, T, T]
        b, h, t, d = q.shape
        return torch.bmm(q.reshape(b * self.kv, -1, d), k.reshape(b * self.kv, t, d).transpose(1, 2)).view(b, h, t, t)

    def mix(self, w, v):                      # [B, H, T, T], [B, K, T, D] -> [B, H, T, D]
        b, h, t, _ = w.shape
        return torch.bmm(w.reshape(b * self.kv, -1, t), v.reshape(b * self.kv, t, -1)).view(b, h, t, -1)


class SoftmaxAttention(Attention):
    def __init__(self, c):
        super().__init__(c)
        self.theta = c["rope_theta"]

    def forward(self, x):
        q, k, v = self.project(x)
        t = x.shape[1]
        rate = self.theta ** (-torch.arange(0, self.size, 2, device=x.device).float() / self.size)
        angle = torch.outer(torch.arange(t, device=x.device).float(), rate)
        cos, sin = angle.cos(), angle.sin()
        q, k = rotate(q, cos, sin) * self.size ** -0.5, rotate(k, cos, sin)
        # Written out: on a CPU, for short rows, faster than scaled_dot_product_attention.
        w = self.products(q, k)
        mask = torch.full((t, t), -math.inf, dtype=w.dtype, device=x.device).triu(1)
        y = self.mix(torch.softmax(w + mask, -1, dtype=w.dtype), v)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class LinearAttention(Attention):
    """Causal linear attention with a decay a query head, no rotary positions.

    With f(x) = elu(x) + 1, applied to q and k as projected (no scale), and g the head's decay:
        S_t = g S_{t-1} + f(k_t) v_t^T        z_t = g z_{t-1} + f(k_t)
        o_t = (f(q_t)^T S_t) / (f(q_t)^T z_t + 1e-6)
    Here as one masked product over the sequence: weight(t, s) = g^(t-s) f(q_t).f(k_s) for s <= t.
    """

    def __init__(self, c):
        super().__init__(c)
        self.register_buffer("rate", torch.tensor(c["decay"]), persistent=False)

    def forward(self, x):
        q, k, v = self.project(x)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        t = torch.arange(x.shape[1], device=x.device)
        distance = t[:, None] - t[None, :]
        mask = self.rate.view(-1, 1, 1) ** distance.clamp(min=0) * (distance >= 0)
        w = self.products(q, k)
        y = self.mix(w * mask.to(w.dtype), torch.cat((v, torch.ones_like(v[..., :1])), -1))   # with the sum beside
        y = y[..., :-1] / (y[..., -1:] + 1e-6)
        return self.o_proj(y.to(x.dtype).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        e, f = c["hidden_size"], c["intermediate_size"]
        self.gate_proj = nn.Linear(e, f, bias=False)
        self.up_proj = nn.Linear(e, f, bias=False)
        self.down_proj = nn.Linear(f, e, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c, dropout):
        super().__init__()
        self.self_attn = LinearAttention(c) if "decay" in c else SoftmaxAttention(c)
        self.mlp = FeedForward(c)
        self.input_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.post_attention_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = x + self.dropout(self.self_attn(self.input_layernorm(x)))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class Decoder(nn.Module):
    def __init__(self, c, dropout):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c, dropout) for _ in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids):
        x = self.dropout(self.embed_tokens(ids))
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class Model(nn.Module):
    """ids [B, T] -> logits [B, T, V]; the output matrix is the embedding (tied)."""

    def __init__(self, c, dropout=0.0):
        super().__init__()
        self.model = Decoder(c, dropout)
        depth = c["num_hidden_layers"]
        for name, p in self.named_parameters():
            if p.dim() > 1:
                narrow = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=0.02 if "embed" in name else
                                p.shape[1] ** -0.5 * (0.5 / math.sqrt(depth) if narrow else 0.7))

    def forward(self, ids):
        return F.linear(self.model(ids), self.model.embed_tokens.weight)


def configuration(name, tokenizer):
    linear = "decay" in SHAPES[name]
    c = dict(architectures=["EffinferLinearForCausalLM" if linear else "LlamaForCausalLM"],
             model_type="effinfer_linear" if linear else "llama", **SHAPES[name],
             vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=1024, rms_norm_eps=1e-5,
             hidden_act="silu", attention_bias=False, mlp_bias=False, tie_word_embeddings=True,
             bos_token_id=tokenizer.token_to_id(BOS),
             eos_token_id=[tokenizer.token_to_id(EOS), tokenizer.token_to_id(TURN_END)],
             torch_dtype="bfloat16", use_cache=True)
    if linear:
        c["feature_map"] = "elu_plus_one"
    else:
        c.update(rope_theta=10000.0, rope_scaling=None)
    return c


# ---------------------------------------------------------------- text

def split(text):
    cut = len(text) * 9 // 10
    return text[:cut], text[cut:]


def train_tokenizer(text):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    byte_level = processors.ByteLevel(trim_offsets=False, add_prefix_space=False, use_regex=False)
    t.post_processor = processors.Sequence([byte_level, processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B:1", special_tokens=[(BOS, t.token_to_id(BOS))])])
    return t


def ids_of(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


class Rows:
    """Training rows. Of eight, three begin anywhere with <|begin_of_text|>, two so at the start of a speech, two
    anywhere without it, one is a conversation: speeches, without names, taken in turn by user and assistant."""

    def __init__(self, text, tokenizer, row, seed):
        self.random, self.row = random.Random(seed), row
        ids = lambda s: ids_of(tokenizer, s)
        self.bos = tokenizer.token_to_id(BOS)
        self.plain = ids(text)
        blank = {i for i in range(tokenizer.get_vocab_size()) if tokenizer.decode([i]).endswith("\n\n")}
        self.starts = [0] + [i + 1 for i, x in enumerate(self.plain[:-row - 1]) if x in blank]
        header = [[tokenizer.token_to_id(HEADER), *ids(role), tokenizer.token_to_id(HEADER_END), *ids("\n\n")]
                  for role in ("user", "assistant")]
        turn_end = tokenizer.token_to_id(TURN_END)
        # A speech begins with its speaker's name, on a line of its own that ends with a colon.
        speeches = [s.split("\n", 1)[1].strip() for s in text.split("\n\n") if "\n" in s and s.split("\n", 1)[0].endswith(":")]
        self.turns = [[h + body + [turn_end] for h in header] for body in map(ids, speeches)]

    def one(self, kind):
        r, n = self.random, self.row + 1
        if kind < 3:
            i = r.randrange(len(self.plain) - n)
            return [self.bos] + self.plain[i:i + n - 1]
        if kind < 5:
            i = r.choice(self.starts)
            return [self.bos] + self.plain[i:i + n - 1]
        if kind < 7:
            i = r.randrange(len(self.plain) - n)
            return self.plain[i:i + n]
        out, i, who = [self.bos], r.randrange(len(self.turns)), 0
        while len(out) < n:
            out += self.turns[i % len(self.turns)][who]
            i, who = i + 1, 1 - who
        return out[:n]

    def batch(self, rows):
        return torch.tensor([self.one(i % 8) for i in range(rows)])


# ---------------------------------------------------------------- measure

@torch.no_grad()
def evaluate(model, tokenizer, text, device):
    """(mean negative log-likelihood a token, tokens, bits per byte), as the top of this file says."""
    model.eval()
    ids, bos = ids_of(tokenizer, text), tokenizer.token_to_id(BOS)
    windows = [ids[i:i + WINDOW] for i in range(0, len(ids), WINDOW)]
    total = 0.0
    for n in sorted({len(w) for w in windows}):
        same = [w for w in windows if len(w) == n]
        for i in range(0, len(same), 16):
            y = torch.tensor(same[i:i + 16], device=device)
            x = torch.cat((torch.full_like(y[:, :1], bos), y[:, :-1]), 1)
            total += F.cross_entropy(model(x).float().flatten(0, 1), y.flatten(), reduction="sum").item()
    return total / len(ids), len(ids), total / math.log(2) / len(text.encode())


@torch.no_grad()
def sample(model, tokenizer, prompt, tokens, seed, device, temperature=0.8, top_k=50):
    model.eval()
    g = torch.Generator().manual_seed(seed)
    ids = tokenizer.encode(prompt).ids
    for _ in range(tokens):
        logits = model(torch.tensor([ids], device=device))[0, -1].float().cpu() / temperature
        best = logits.topk(top_k)
        ids.append(best.indices[torch.multinomial(best.values.softmax(-1), 1, generator=g)].item())
    return tokenizer.decode(ids)


def load_weights(folder):
    from safetensors.torch import load_file
    return load_file(Path(folder) / "model.safetensors")


def load(folder, device):
    from tokenizers import Tokenizer
    folder = Path(folder)
    c = json.loads((folder / "config.json").read_text())
    model = Model(c)
    model.load_state_dict({k: v.float() for k, v in load_weights(folder).items()})
    return model.to(device), Tokenizer.from_file(str(folder / "tokenizer.json")), c


# ---------------------------------------------------------------- train

def train(name, recipe, text, heldout, tokenizer, device, weights=None, first=0, log=print):
    """Runs the stages from `first` on (from `weights`, where an earlier stage ended): (configuration, weights, steps run)."""
    c, run = configuration(name, tokenizer), 0
    for stage, (steps, size, peak, dropout) in list(enumerate(recipe["stages"]))[first:]:
        seed = recipe["seed"] + 100 * stage
        torch.manual_seed(seed)
        model, average = Model(c, dropout).to(device), Model(c).to(device)
        if weights:
            model.load_state_dict({k: v.float() for k, v in weights.items()})
        average.load_state_dict(model.state_dict())   # running mean of the weights: this is measured and kept
        rows = Rows(text, tokenizer, ROW, seed)
        optimizer = torch.optim.AdamW([dict(params=[p for p in model.parameters() if p.dim() > 1], weight_decay=recipe["decay"]),
                                       dict(params=[p for p in model.parameters() if p.dim() == 1], weight_decay=0.0)],
                                      lr=peak, betas=(0.9, 0.98))
        best, best_step, start, warm = math.inf, 0, time.time(), min(100, steps // 4)
        if weights:                                   # a stage that makes it no better leaves it as it was
            best = evaluate(average, tokenizer, heldout, device)[0]
        log(f"{name}: stage {stage + 1}, {sum(p.numel() for p in model.parameters())} parameters, {len(rows.plain)} training tokens")
        for step in range(1, steps + 1):
            rate = peak * min(step / warm, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            model.train()
            batch = rows.batch(size).to(device)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                logits = model(batch[:, :-1])
            loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            keep = min(0.99, step / (step + 10))
            with torch.no_grad():
                for a, p in zip(average.parameters(), model.parameters()):
                    a.lerp_(p, 1 - keep)
            if step % 100 == 0 and (step > steps // 2 or step % 500 == 0) or step == steps:
                with torch.autocast(device.type, dtype=torch.bfloat16):
                    nll, _, bits = evaluate(average, tokenizer, heldout, device)
                log(f"{step:6d}  train {loss.item():.4f}  held out {nll:.4f}  perplexity {math.exp(nll):.3f}  "
                    f"bits/byte {bits:.4f}  {time.time() - start:.0f} s")
                if nll < best:
                    best, best_step = nll, step
                    weights = {k: v.detach().cpu().to(torch.bfloat16).clone() for k, v in average.state_dict().items()}
                elif step - best_step >= 400:
                    break                                 # no better for that long: it won't be
        run += step
    return c, weights, run


def write(folder, c, weights, tokenizer):
    from safetensors.torch import save_file
    folder.mkdir(parents=True, exist_ok=True)
    put = lambda file, value: (folder / file).write_text(json.dumps(value, indent=2) + "\n")
    put("config.json", c)
    put("generation_config.json", dict(bos_token_id=c["bos_token_id"], eos_token_id=c["eos_token_id"],
                                       do_sample=True, temperature=0.8, top_k=50, top_p=1.0))
    put("tokenizer_config.json", dict(
        tokenizer_class="PreTrainedTokenizerFast", bos_token=BOS, eos_token=EOS, clean_up_tokenization_spaces=False,
        model_max_length=c["max_position_embeddings"], model_input_names=["input_ids", "attention_mask"],
        added_tokens_decoder={str(tokenizer.token_to_id(s)): dict(
            content=s, lstrip=False, normalized=False, rstrip=False, single_word=False, special=True) for s in SPECIAL},
        chat_template=CHAT_TEMPLATE))
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


CARD = """# {name}

{what} Trained from nothing by `models/train.py` on the first nine tenths of tiny Shakespeare; text of
Shakespeare's is in the public domain, and the weights are under this repository's licence. It is a model for
examples, tests and benchmarks: it writes verse, and knows nothing.

| | |
|---|---|
| layers, width, feed-forward | {num_hidden_layers}, {hidden_size}, {intermediate_size} |
| query heads, kv heads, head size | {num_attention_heads}, {num_key_value_heads}, {head_dim} |
| vocabulary | {vocab_size} (byte-level BPE, Llama 3 pre-tokenizer) |
| parameters, stored as | {parameters:,}, bfloat16 |
| held-out perplexity a token | **{perplexity:.3f}** |
| held-out bits per byte | **{bits:.4f}** |
| trained | {steps} steps, {tokens_seen:.1f} million tokens in rows of {row}, {minutes:.0f} minutes on {device} |

Held out: the last tenth of the text (`models/heldout.txt`, {tokens} tokens), in windows of {window} tokens, each after
`<|begin_of_text|>`, all tokens scored, from the weights as stored. The held-out tenth also picked the step to
stop at. Contexts in training: {row} tokens. An eighth of the training rows were conversations in the
form of the chat template (consecutive speeches, taken in turn by `user` and `assistant`), so a turn ends with
`<|eot_id|>`. There was no other chat training.
{more}
A sample (`ROMEO:` as prompt, temperature 0.8, top 50, {sampled} tokens, seed 0, not selected):

```
{sample}
```
"""
WHAT = {
    "shakespeare-llama": "A small Llama: grouped-query attention, rotary positions, tied embeddings.",
    "shakespeare-draft": "A very small Llama with the tokenizer of `shakespeare-llama`, to draft for it in speculative decoding.",
    "shakespeare-linear": "A decoder with the layers of Llama and causal linear attention in place of softmax attention: a state of "
                          "fixed size instead of a KV cache.",
}
MORE_LINEAR = """
The mixer, for each query head with decay `g` (`"decay"` in config.json) and `f(x) = elu(x) + 1`, no rotary positions, q
not scaled: `S = g S + f(k) v^T`, `z = g z + f(k)`, `o = (f(q)^T S) / (f(q)^T z + 1e-6)`. Tensor names are Llama's.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="the training text (tiny Shakespeare)")
    parser.add_argument("--output", default=str(HERE), help="where the folders go")
    parser.add_argument("--only", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--steps", type=int, help="for a quick try: this many in each stage")
    parser.add_argument("--stage", type=int, default=1, help="start with this stage, from the folder that the one before wrote")
    parser.add_argument("--seconds", type=float, default=0, help="how long the stages before took, for the card")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--evaluate", metavar="FOLDER", help="print the held-out perplexity of a folder, no training")
    parser.add_argument("--check", metavar="FOLDER", help="compare a Llama folder with transformers, no training")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    if arguments.evaluate:
        model, tokenizer, _ = load(arguments.evaluate, device)
        nll, tokens, bits = evaluate(model, tokenizer, (HERE / "heldout.txt").read_text(), device)
        print(f"{tokens} tokens, mean nll {nll:.6f}, perplexity {math.exp(nll):.4f}, bits per byte {bits:.5f}")
        return
    if arguments.check:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        model, tokenizer, _ = load(arguments.check, torch.device("cpu"))
        theirs = AutoModelForCausalLM.from_pretrained(arguments.check, dtype=torch.float32).eval()
        loaded = AutoTokenizer.from_pretrained(arguments.check)
        text = (HERE / "heldout.txt").read_text()[:1500]
        ids = tokenizer.encode(text).ids
        assert loaded(text)["input_ids"] == ids and loaded.decode(ids, skip_special_tokens=True) == text
        with torch.no_grad():
            x = torch.tensor([ids])
            print(f"{len(ids)} tokens, largest difference of logits {(model.eval()(x) - theirs(x).logits).abs().max():.2e}")
        print(loaded.apply_chat_template([dict(role="user", content="Who art thou?")], tokenize=False, add_generation_prompt=True))
        return

    text, heldout = split(Path(arguments.text).read_text())
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "heldout.txt").write_text(heldout)
    tokenizer = train_tokenizer(text)
    for name in arguments.only:
        recipe, start = dict(RECIPES[name]), time.time()
        if arguments.steps:
            recipe["stages"] = [(arguments.steps, *stage[1:]) for stage in recipe["stages"]]
        earlier = load_weights(output / name) if arguments.stage > 1 else None
        c, weights, steps = train(name, recipe, text, heldout, tokenizer, device, earlier, arguments.stage - 1,
                                  lambda s: print(s, flush=True))
        seconds = time.time() - start + arguments.seconds
        steps += sum(stage[0] for stage in recipe["stages"][:arguments.stage - 1])
        seen = sum(stage[0] * stage[1] for stage in recipe["stages"]) * ROW
        write(output / name, c, weights, tokenizer)
        model, tokenizer, _ = load(output / name, device)
        nll, tokens, bits = evaluate(model, tokenizer, heldout, device)
        sampled = 200
        (output / name / "README.md").write_text(CARD.format(
            name=name, what=WHAT[name], **SHAPES[name], vocab_size=c["vocab_size"], parameters=sum(v.numel() for v in weights.values()),
            perplexity=math.exp(nll), bits=bits, minutes=seconds / 60, steps=steps, tokens_seen=seen / 1e6, tokens=tokens,
            device="one GPU" if device.type == "cuda" else "one or two CPU threads of a busy, shared machine",
            window=WINDOW, row=ROW, sampled=sampled, more=MORE_LINEAR if "decay" in c else "",
            sample=sample(model, tokenizer, "ROMEO:", sampled, 0, device)))
        print(f"{name}: as stored, perplexity {math.exp(nll):.4f}, bits per byte {bits:.5f}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
