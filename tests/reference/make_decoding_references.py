#!/usr/bin/env python3
"""Writes tests/data/decoding/transformers.txt and transformers_rules.txt: what the logits processors of transformers make of some logits.

Needs torch and transformers:  python3 tests/reference/make_decoding_references.py
The processors and their order are transformers' own (GenerationMixin._get_logits_processor); the model is only there to ask it.

A case is five lines:
  case <temperature> <top_k> <top_p> <min_p> <repetition_penalty> <tokens of the history that the penalty ignores>
  history <ids>
  logits <V values>
  kept <ids>
  log_probability <of each kept id>
In transformers_rules.txt the first line is  case <rule> <its parameters>, and a rule is transformers' processor of that name alone.
"""
import pathlib

import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.generation.logits_process import (EpsilonLogitsWarper, EtaLogitsWarper, MinNewTokensLengthLogitsProcessor,
                                                    NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor,
                                                    SequenceBiasLogitsProcessor, TypicalLogitsWarper)

VOCABULARY = 48
OUT = pathlib.Path(__file__).parents[1] / "data" / "decoding" / "transformers.txt"


def row(values):
    return " ".join(f"{v:.9g}" for v in values)


def rule_cases():
    """(name, parameters, processor) of transformers_rules.txt."""
    for mass in (0.05, 0.2, 0.5, 0.8, 0.95):
        yield "locally_typical", [mass], TypicalLogitsWarper(mass)
    for epsilon in (0.001, 0.01, 0.05, 0.3, 0.9):
        yield "epsilon_cutoff", [epsilon], EpsilonLogitsWarper(epsilon)
        yield "eta_cutoff", [epsilon], EtaLogitsWarper(epsilon, device="cpu")
    for size in (1, 2, 3):
        yield "no_repeat_ngram", [size], NoRepeatNGramLogitsProcessor(size)
    yield "logit_bias", [3, 2.5, 7, -4.0, 11, float("-inf")], SequenceBiasLogitsProcessor({(3,): 2.5, (7,): -4.0, (11,): float("-inf")})
    for tokens in (7, 8, 9):  # behind a prompt of 4, in a history of 12
        yield "min_length", [tokens, 4, 2, 5], MinNewTokensLengthLogitsProcessor(4, tokens, [2, 5], device="cpu")


def write_rules():
    generator = torch.Generator().manual_seed(21)
    lines = []
    for name, parameters, processor in rule_cases():
        for spread in (0.7, 3.0):
            logits = torch.randn(1, 24, generator=generator) * spread
            history = torch.randint(0, 3, (1, 12), generator=generator) if name == "no_repeat_ngram" else \
                torch.randint(0, 24, (1, 12), generator=generator)
            scores = processor(history, logits.clone())[0]
            kept = [i for i in range(24) if scores[i] > float("-inf")]
            log_probability = torch.log_softmax(scores.double(), dim=-1)
            lines += [" ".join(["case", name] + [f"{p:.9g}" for p in parameters]),
                      "history " + " ".join(str(t) for t in history[0].tolist()), "logits " + row(logits[0].tolist()),
                      "kept " + " ".join(map(str, kept)), "log_probability " + row(log_probability[kept].tolist())]
    header = [f"# Written by tests/reference/make_decoding_references.py with transformers {transformers.__version__}, torch {torch.__version__}."]
    OUT.with_name("transformers_rules.txt").write_text("\n".join(header + lines) + "\n")


def main():
    write_rules()
    tiny = LlamaConfig(vocab_size=VOCABULARY, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                       num_attention_heads=1, num_key_value_heads=1)
    model = LlamaForCausalLM(tiny)
    generator = torch.Generator().manual_seed(20)
    cases = [(1.0, 0, 1.0, 0.0, 1.0, 0)]
    for temperature in (0.7, 1.0, 1.6):
        cases += [(temperature, 7, 1.0, 0.0, 1.0, 0), (temperature, 0, 0.8, 0.0, 1.0, 0), (temperature, 0, 1.0, 0.1, 1.0, 0),
                  (temperature, 0, 1.0, 0.0, 1.3, 0), (temperature, 0, 1.0, 0.0, 0.8, 0), (temperature, 12, 0.9, 0.0, 1.0, 0),
                  (temperature, 12, 0.9, 0.05, 1.0, 0), (temperature, 20, 0.6, 0.3, 1.2, 0), (temperature, 0, 0.95, 0.02, 1.1, 5),
                  (temperature, 1, 0.9, 0.1, 1.1, 0), (temperature, 5, 0.05, 0.0, 1.5, 0), (temperature, 47, 0.999, 1.0, 1.0, 0)]
    lines = []
    for temperature, top_k, top_p, min_p, penalty, ignored in cases:
        logits = torch.randn(1, VOCABULARY, generator=generator) * 2.5
        history = torch.randint(0, VOCABULARY, (1, 12), generator=generator)
        history[0, 3] = history[0, 9]
        config = GenerationConfig(do_sample=True, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                                  repetition_penalty=1.0 if ignored else penalty)
        processors = model._get_logits_processor(config, input_ids_seq_length=history.shape[1], device="cpu",
                                                 prefix_allowed_tokens_fn=None, logits_processor=[])
        if ignored:
            processors.insert(0, RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=ignored))
        scores = processors(history, logits.clone())[0]
        kept = [i for i in range(VOCABULARY) if scores[i] > float("-inf")]
        log_probability = torch.log_softmax(scores.double(), dim=-1)
        lines += [f"case {temperature} {top_k} {top_p} {min_p} {penalty} {ignored}",
                  "history " + " ".join(str(t) for t in history[0].tolist()), "logits " + row(logits[0].tolist()),
                  "kept " + " ".join(map(str, kept)), "log_probability " + row(log_probability[kept].tolist())]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    header = [f"# Written by tests/reference/make_decoding_references.py with transformers {transformers.__version__}, torch {torch.__version__}."]
    OUT.write_text("\n".join(header + lines) + "\n")


if __name__ == "__main__":
    main()
