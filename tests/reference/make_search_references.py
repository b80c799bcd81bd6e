#!/usr/bin/env python3
"""Writes tests/data/decoding/search.json: what searches find on tests/data/models/llama3.

Beam search: transformers' generate. Diverse beam search and contrastive search, which transformers gave away: written here from
the papers, over whole passes in float64 without a cache. Needs torch, transformers:  python3 tests/reference/make_search_references.py

A case is kept only if noise of 1e-3 on every logit changes no token of it, so that no answer hangs on rounding.
"""
import json
import pathlib

import torch
import transformers
from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList

DATA = pathlib.Path(__file__).parents[1] / "data"
V, NOISE, TRIALS = 288, 1e-3, 4
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
MODEL = AutoModelForCausalLM.from_pretrained(DATA / "models/llama3", attn_implementation="eager").double().eval()


class Noise(LogitsProcessor):
    def __init__(self, seed):
        self.g = torch.Generator().manual_seed(seed)

    def __call__(self, ids, scores):
        return scores + NOISE * torch.randn(scores.shape, generator=self.g, dtype=scores.dtype)


def ended(tokens, prompt, stops):
    out = []
    for t in tokens[len(prompt):]:
        out.append(int(t))
        if t in stops:
            break
    return out


def transformers_beams(prompt, stops, c, noise):
    extra = {}
    if c["no_repeat"]:
        extra["no_repeat_ngram_size"] = c["no_repeat"]
    if c["repetition"] != 1:
        extra["repetition_penalty"] = c["repetition"]
    out = MODEL.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False, num_beams=c["beams"],
                         num_return_sequences=c["beams"], length_penalty=c["length_penalty"], max_new_tokens=c["max_tokens"],
                         early_stopping={"no": False, "yes": True, "never": "never"}[c["stop"]], eos_token_id=list(stops),
                         pad_token_id=0, return_dict_in_generate=True, output_scores=True,
                         logits_processor=LogitsProcessorList([Noise(noise)] if noise else []), **extra)
    return [dict(tokens=ended(s.tolist(), prompt, stops), score=float(p)) for s, p in zip(out.sequences, out.sequences_scores)]


@torch.no_grad()
def log_probabilities(tokens, g):
    logits = MODEL(torch.tensor([tokens])).logits[0, -1]
    return (logits + (NOISE * torch.randn(V, generator=g, dtype=logits.dtype) if g else 0)).log_softmax(-1)


def diverse_beams(prompt, stops, c, noise):
    """Vijayakumar et al., algorithm 1 with Hamming diversity; each group a beam search that ends early_stopping = no."""
    g = torch.Generator().manual_seed(noise) if noise else None
    size, lp = c["beams"] // c["groups"], c["length_penalty"]
    live = [[(0.0, [])] for _ in range(c["groups"])]
    found = [[] for _ in range(c["groups"])]
    for length in range(1, c["max_tokens"] + 1):
        taken = torch.zeros(V, dtype=torch.float64)
        for group in range(c["groups"]):
            if not live[group]:
                continue
            candidates = []
            for score, tokens in live[group]:
                row = score + log_probabilities(prompt + tokens, g) - c["diversity"] * taken
                candidates += [(float(row[t]), tokens + [t]) for t in range(V)]
            candidates.sort(key=lambda x: -x[0])
            ends = lambda tokens: tokens[-1] in stops or length == c["max_tokens"]
            found[group] += [(s / length ** lp, t) for s, t in candidates[:size] if ends(t)]
            found[group] = sorted(found[group], key=lambda x: -x[0])[:size]
            if length == c["max_tokens"]:
                for _, t in candidates[:size]:
                    taken[t[-1]] += t[-1] not in stops
            live[group] = [x for x in candidates if not ends(x[1])][:size]
            for _, t in live[group]:
                taken[t[-1]] += 1
            if len(found[group]) == size and (not live[group] or live[group][0][0] / length ** lp <= found[group][-1][0]):
                live[group] = []
    return [dict(tokens=t, score=s) for s, t in sorted(sum(found, []), key=lambda x: -x[0])]


@torch.no_grad()
def contrastive(prompt, stops, c, noise):
    """Su et al., equation 5; states behind the final norm."""
    g = torch.Generator().manual_seed(noise) if noise else None
    tokens = list(prompt)
    unit = torch.nn.functional.normalize
    for _ in range(c["max_tokens"]):
        p, v = log_probabilities(tokens, g).exp().topk(c["k"])
        before = unit(MODEL.model(torch.tensor([tokens])).last_hidden_state[0], dim=-1)
        alike = torch.stack([(before @ unit(MODEL.model(torch.tensor([tokens + [int(t)]])).last_hidden_state[0, -1], dim=-1)).max() for t in v])
        if g:
            alike = alike + NOISE * torch.randn(alike.shape, generator=g, dtype=alike.dtype)
        tokens.append(int(v[((1 - c["penalty"]) * p - c["penalty"] * alike).argmax()]))
        if tokens[-1] in stops:
            break
    return [dict(tokens=tokens[len(prompt):], score=0.0)]


def cases():
    beam = dict(kind="beam", beams=4, length_penalty=1.0, stop="no", max_tokens=16, no_repeat=0, repetition=1.0)
    yield beam
    yield beam | dict(beams=2, stop="yes")
    yield beam | dict(beams=3, stop="never")
    yield beam | dict(length_penalty=0.0, stop="never")
    yield beam | dict(length_penalty=2.0, stop="never", max_tokens=12)
    yield beam | dict(length_penalty=-1.0)
    yield beam | dict(beams=7, stop="yes", length_penalty=0.5)
    yield beam | dict(no_repeat=2)
    yield beam | dict(repetition=1.3, beams=3)
    group = dict(kind="diverse", beams=4, groups=2, length_penalty=1.0, diversity=0.5, max_tokens=10)
    yield group
    yield group | dict(groups=4, diversity=1.5)
    yield group | dict(beams=6, groups=3, diversity=0.2, length_penalty=0.5)
    search = dict(kind="contrastive", k=4, penalty=0.6, max_tokens=16)
    yield search
    yield search | dict(k=6, penalty=0.3)


def main():
    kept = []
    for number, c in enumerate(cases()):
        find = dict(beam=transformers_beams, diverse=diverse_beams, contrastive=contrastive)[c["kind"]]
        for seed in range(100 * number, 100 * number + 100):
            g = torch.Generator().manual_seed(seed)
            prompt = [1] + torch.randint(3, V, (7,), generator=g).tolist()
            stops = sorted(set(torch.randint(3, V, (25 if c["kind"] != "contrastive" else 3,), generator=g).tolist()))
            answer = find(prompt, stops, c, 0)
            if all([x["tokens"] for x in find(prompt, stops, c, 1 + t)] == [x["tokens"] for x in answer] for t in range(TRIALS)):
                break
        else:
            raise SystemExit(f"no stable prompt for {c}")
        print(seed, c["kind"], [len(x["tokens"]) for x in answer], flush=True)
        kept.append(dict(c, prompt=prompt, stop_tokens=stops, found=answer))
    text = ",\n".join(json.dumps(c) for c in kept)
    (DATA / "decoding/search.json").write_text(f'{{"made_with": "transformers {transformers.__version__}", "cases": [\n{text}\n]}}\n')


if __name__ == "__main__":
    main()
