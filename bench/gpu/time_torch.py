#!/usr/bin/env python3
"""PyTorch's times for what time.cu measures: prefill attention and products of bf16. Needs torch with CUDA."""
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def seconds(f, calls):
    torch.cuda.synchronize()
    time.sleep(0.3)  # a hot device is slower: time.cu lets it rest as long
    times = []
    for group in range(10):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for i in range(calls):
            f(i)
        end.record()
        torch.cuda.synchronize()
        if group > 0:
            times.append(begin.elapsed_time(end) / 1e3 / calls)
    return sorted(times)[len(times) // 2]


# The best of PyTorch's own, over bf16 and 32 heads of 128; key heads are repeated beforehand, as not all of them know groups.
backends = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
for tokens in (512, 2048, 4096, 8192, 16384):
    q = torch.randn(1, 32, tokens, 128, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, 8, tokens, 128, device="cuda", dtype=torch.bfloat16).repeat_interleave(4, 1) for _ in range(2))
    for name, backend in backends.items():
        try:
            with sdpa_kernel(backend):
                s = seconds(lambda _: F.scaled_dot_product_attention(q, k, v, is_causal=True), 5)
        except RuntimeError as e:
            print(f"torch: prefill attention, {tokens} tokens, {name}: {str(e).splitlines()[0]}")
            continue
        print(f"torch: prefill attention, {tokens} tokens, {name}: {s * 1e6:.1f} us, {2 * 128 * 32 * tokens * (tokens + 1) / s / 1e12:.1f} TFLOP/s")
copies = [torch.randn(14336, 4096, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
for rows in (1, 4, 8, 16, 32, 64):
    x = torch.randn(rows, 4096, device="cuda", dtype=torch.bfloat16)
    s = seconds(lambda i: F.linear(x, copies[i % 4]), 20)
    print(f"torch: product of bf16, {rows} rows: {s * 1e6:.1f} us, {14336 * 4096 * 2 / s / 1e9:.1f} GB/s")
