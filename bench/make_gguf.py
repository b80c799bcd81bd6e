#!/usr/bin/env python3
"""Writes GGUF files of real models' shapes with random weights: for measuring speed without anybody's weights.

    python3 bench/make_gguf.py FOLDER [--shapes llama-3.2-1b qwen2.5-0.5b] [--types BF16 F16 Q8_0 Q4_0 Q4_K_M] [--seed 1]

Needs numpy and gguf (PyPI). Writes FOLDER/SHAPE-TYPE.gguf; the same seed gives the same bytes. Which tensor gets which type is
what llama.cpp's quantizer chooses for each name. Quantized weights are random blocks, valid ones, with scales such that a weight
has the mean 0 and the variance 1 / inputs: activations stay near 1 through all layers. The vocabulary is the 256 bytes and
names of numbers; it reads any text, byte by byte.
"""
import argparse
import dataclasses
import math
import pathlib
import statistics
import time
import zlib

import gguf
import numpy as np

Type = gguf.GGMLQuantizationType


@dataclasses.dataclass(frozen=True)
class Shape:
    architecture: str
    width: int
    feed_forward_width: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int
    rope_base: float
    pre_tokenizer: str
    has_qkv_bias: bool = False
    has_rope_factors: bool = False


SHAPES = {
    "llama-3.2-1b": Shape("llama", 2048, 8192, 16, 32, 8, 64, 128256, 131072, 500000.0, "llama-bpe", has_rope_factors=True),
    "qwen2.5-0.5b": Shape("qwen2", 896, 4864, 24, 14, 2, 64, 151936, 32768, 1000000.0, "qwen2", has_qkv_bias=True),
}

# The type of most matrices, and general.file_type.
FILE_TYPES = {
    "BF16": (Type.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "F16": (Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "Q8_0": (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "Q4_0": (Type.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    "Q4_K_M": (Type.Q4_K, gguf.LlamaFileType.MOSTLY_Q4_K_M),
}


def type_of(file_type, name, layer, shape, inputs):
    """What llama.cpp's quantizer stores the matrix `name` as, in a file of this type with tied embeddings."""
    chosen = FILE_TYPES[file_type][0]
    if not file_type.startswith("Q"):
        return chosen
    if name == "token_embd":
        chosen = Type.Q6_K if chosen != Type.Q8_0 and inputs % gguf.GGML_QUANT_SIZES[chosen][0] == 0 else Type.Q8_0
    elif file_type == "Q4_K_M" and name in ("attn_v", "ffn_down"):
        eighth = shape.layers // 8
        if layer < eighth or layer >= 7 * shape.layers // 8 or (layer - eighth) % 3 == 2:
            chosen = Type.Q6_K
    if inputs % gguf.GGML_QUANT_SIZES[chosen][0] != 0:
        chosen = {Type.Q4_K: Type.Q5_0, Type.Q6_K: Type.Q8_0}[chosen]
    return chosen


def random_bytes(random, *shape):
    return np.frombuffer(random.bytes(math.prod(shape)), np.uint8).reshape(shape)


def scales(random, blocks, deviation):
    """f16 factors [blocks, 2 bytes] that give codes of this standard deviation the variance asked for. Their signs are random, as
    those of Q4_0 are: codes from -8 to 7 have the mean -1/2, which would add up."""
    factors = random.uniform(0.8, 1.2, blocks) * random.choice([-1.0, 1.0], blocks) / deviation
    return factors.astype("<f2").view(np.uint8).reshape(blocks, 2)


def joined(*parts):
    return np.concatenate(parts, axis=1)


def q8_0(random, blocks, root):  # d, 32 codes
    codes = random_bytes(random, blocks, 32)
    return joined(scales(random, blocks, 73.9 * root), codes)


def q4_0(random, blocks, root):  # d, 32 codes of 4 bits less 8
    return joined(scales(random, blocks, 4.61 * root), random_bytes(random, blocks, 16))


def q5_0(random, blocks, root):  # d, 32 fifth bits, 32 codes of 4 bits; less 16
    return joined(scales(random, blocks, 9.23 * root), random_bytes(random, blocks, 20))


def q4_k(random, blocks, root):  # d, dmin, 8 scales and 8 minima of 6 bits, 256 codes of 4 bits
    # Each minimum is its scale, and dmin is 7.5 d: the mean of codes from 0 to 15 is taken off exactly.
    d = random.uniform(0.8, 1.2, blocks) / (223.0 * root)
    ends = np.stack([d, 7.5 * d], axis=1).astype("<f2").view(np.uint8)
    s = random.integers(32, 64, (blocks, 8), dtype=np.uint8)
    low, high = s[:, :4], s[:, 4:]
    first = low | (high >> 4 << 6)
    return joined(ends, first, first, high & 15 | (high & 15) << 4, random_bytes(random, blocks, 128))


def q6_k(random, blocks, root):  # 256 low bits of 4, 256 high bits of 2, 16 signed scales, d; codes less 32
    s = random.integers(64, 128, (blocks, 16), dtype=np.int8) * random.choice(np.array([-1, 1], np.int8), (blocks, 16))
    return joined(random_bytes(random, blocks, 192), s.view(np.uint8), scales(random, blocks, 1797.0 * root))


BLOCKS = {Type.Q8_0: q8_0, Type.Q4_0: q4_0, Type.Q5_0: q5_0, Type.Q4_K: q4_k, Type.Q6_K: q6_k}

# 65536 values that cut the normal distribution into equal parts: a random 16-bit index draws from it.
NORMAL = np.array([statistics.NormalDist().inv_cdf((i + 0.5) / 65536) for i in range(65536)])


def matrix(random, kind, rows, inputs):
    """Rows of random weights as they lie in the file: bytes [rows, bytes a row]."""
    root = math.sqrt(inputs)
    if kind in (Type.BF16, Type.F16):
        table = (NORMAL / root).astype(np.float16).view(np.uint16) if kind == Type.F16 else (
            (NORMAL / root).astype(np.float32).view(np.uint32) + 0x8000 >> 16).astype(np.uint16)
        return table[random_bytes(random, rows, 2 * inputs).view(np.uint16)].view(np.uint8)
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = rows * inputs // block_size
    out = np.empty((blocks, block_bytes), np.uint8)
    step = 1 << 18
    for i in range(0, blocks, step):
        part = out[i:i + step]
        part[:] = BLOCKS[kind](random, len(part), root)
    return out.reshape(rows, -1)


def tensors(shape, file_type):
    """(name, rows, inputs, type) of each tensor; vectors have no inputs."""
    f32 = Type.F32

    def weight(name, rows, inputs, layer=0, prefix=""):
        return prefix + name + ".weight", rows, inputs, type_of(file_type, name, layer, shape, inputs)

    e, f, q, kv = shape.width, shape.feed_forward_width, shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    yield weight("token_embd", shape.vocabulary, e)
    if shape.has_rope_factors:
        yield "rope_freqs.weight", shape.head_size // 2, 0, f32
    for i in range(shape.layers):
        p = f"blk.{i}."
        yield p + "attn_norm.weight", e, 0, f32
        for name, rows in (("attn_q", q), ("attn_k", kv), ("attn_v", kv)):
            yield weight(name, rows, e, i, p)
            if shape.has_qkv_bias:
                yield p + name + ".bias", rows, 0, f32
        yield weight("attn_output", e, q, i, p)
        yield p + "ffn_norm.weight", e, 0, f32
        yield weight("ffn_gate", f, e, i, p)
        yield weight("ffn_up", f, e, i, p)
        yield weight("ffn_down", e, f, i, p)
    yield "output_norm.weight", e, 0, f32


def vector(random, name, size, shape):
    if name == "rope_freqs.weight":  # as Llama 3.2 stretches its positions: factor 32, from 8192
        wavelengths = 2 * math.pi * shape.rope_base ** (np.arange(size) / size)
        return (1 / np.interp(8192 / wavelengths, [1, 4], [1 / 32, 1])).astype(np.float32)
    around = 0.0 if name.endswith("bias") else 1.0
    return random.uniform(around - 0.1, around + 0.1, size).astype(np.float32)


def add_vocabulary(writer, shape):
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in visible]
    letters = [chr(b) for b in visible] + [chr(256 + i) for i in range(len(hidden))]
    tokens = [*letters, "ab", *(f"<{i}>" for i in range(257, shape.vocabulary))]
    types = [gguf.TokenType.NORMAL] * shape.vocabulary
    bos, eos = shape.vocabulary - 256, shape.vocabulary - 255
    for special in (bos, eos):
        types[special] = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(shape.pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(bos)
    writer.add_eos_token_id(eos)
    writer.add_add_bos_token(False)


def write(path, name, shape, file_type, seed):
    writer = gguf.GGUFWriter(None, shape.architecture)
    writer.add_name(f"{name} with random weights")
    writer.add_file_type(FILE_TYPES[file_type][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward_width)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(1e-5)
    add_vocabulary(writer, shape)
    all_tensors = list(tensors(shape, file_type))
    for tensor, rows, inputs, kind in all_tensors:
        block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        extents = (rows, inputs) if inputs else (rows,)
        writer.add_tensor_info(tensor, extents, np.dtype(np.float32), math.prod(extents) // block_size * block_bytes, kind)
    partial = path.with_suffix(".partial")
    writer.write_header_to_file(partial)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, rows, inputs, kind in all_tensors:
        # A generator for each tensor: its values depend on nothing but seed, name and type.
        random = np.random.Generator(np.random.SFC64([seed, zlib.crc32(tensor.encode())]))
        writer.write_tensor_data(matrix(random, kind, rows, inputs) if inputs else vector(random, tensor, rows, shape))
    writer.close()
    partial.rename(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--types", nargs="+", choices=FILE_TYPES, default=list(FILE_TYPES))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.shapes:
        for file_type in options.types:
            path = options.folder / f"{name}-{file_type}.gguf"
            start = time.monotonic()
            write(path, name, SHAPES[name], file_type, options.seed)
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB in {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
