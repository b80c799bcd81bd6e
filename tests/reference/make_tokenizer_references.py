#!/usr/bin/env python3
"""Writes tests/data/tokenizers/hf_*.json and hf_*.cases.json with Hugging Face's `tokenizers` (0.23.3).

Each shape is a small tokenizer, trained here, of the kind that a family of models uses. hf_texts.json holds the
texts of all of them, and the cases the ids that `tokenizers` gives for texts, and what it decodes them to:

    {"cases": [{"text": index, "ids": [...], "plain": [...], "decoded": ..., "decoded_all": ...}, ...]}

`ids` is encode(text); `plain` is encode(text, add_special_tokens=False) with special tokens in the text not looked
for (left out where it equals ids); `decoded` skips special tokens (left out where it equals the text), `decoded_all`
doesn't (left out where it equals `decoded`).

    python tests/reference/make_tokenizer_references.py     # needs: pip install tokenizers
"""

import json
import pathlib
import random
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE.parent / "data" / "tokenizers"

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's what they'd do, and we'll see that they've done it.",
    "In the beginning was the word, and the word was with the reader; nothing was written that was not read.",
    "int main(int argc, char** argv) {\n    for (int i = 0; i < 10; ++i) {\n        return i + 1;\n    }\n}\n",
    "Größe, Straße, Äpfel und Öfen: über allen Gipfeln ist Ruh. Ça va très bien, n'est-ce pas? Le café déjà vu.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Нещо на български.",
    "我想在苹果工作。你好，世界！今天的天气很好，我们去公园吧。日本語のテキストと、カタカナ。한국어 텍스트입니다.",
    "שלום עולם مرحبا بالعالم हिन्दी में लिखा हुआ पाठ ភាសាខ្មែរ ไทย",
    "3.14159 2.71828 1000000 42 7 1234567890 2024-08-01 12:30:45",
    "😀 😁 🚀 ✅ 👩‍👩‍👧‍👦 🏳️‍🌈 emoji and text 🦙.cpp",
    "    indented\n\tand tabs\r\nand carriage returns   and   spaces   ",
] * 4

NASTY = [
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r\n\r\n  \r\n", " \n ", "\t\n", "a", " a", "a ", "  a  ",
    "Hello world", " Hello world", "Hello  world", "Hello, y'all! How are you 😁 ?", "HELLO World", "'S 'T 'RE 'lL",
    "I've you'd we'LL DON'T o'clock 'tis", "it\u2019s", "'\u017f \u017ft \u212aelvin 'm'M", "İstanbul IĞDIR ẞ ß ΑΣ ς",
    "e\u0301 \u00e9 a\u0308\u0323 \u1ea1\u0308 \u0041\u030a \u212b \u00c5", "\ufb01 \ufb03 \u00bd \u2460 \uff21\uff42\u3000\uff01",
    "\u0301 leading mark", "\uac00\u1100\u1161 \u1112\u1161\u11ab", "\u0958 \u2adc \U0001d15e",
    "👩‍👩‍👧‍👦🏳️‍🌈🚀 😶‍🌫️", "🦙🦙🦙", "我想在apple工作1314151天～", "日本語のテキスト", "한국어", "ភាសាខ្មែរ កាន់តែពិសេស",
    "שָׁלוֹם עוֹלָם مَرْحَبًا \u202eabc\u202c \u200fx\u200e", "हिन्दी क्षत्रिय", "\u0000", "a\u0000b\u0001\u0002\u001f\u007f",
    "\u0080\u0085\u009f a\u0085b \u0085\u0085", "\u00a0nbsp\u00a0 \u2003em \u2028line \u2029para \u200bzwsp \ufeffbom \u180emvs",
    "1", "12", "123", "1234", "12345678901234567890", "3.14 1,000,000 ½ ² ٣٤ ४५ Ⅷ ㊿ 一二", "a1b22c333",
    "!!!!!!", "...---...", "?!?! (a) [b] {c} <d> «e» „f“", "x=y+z*(a-b)/c^2 && d||e; // f", "\\ \" ' ` ~ @ # $ % & _",
    "snake_case camelCase kebab-case SCREAMING_CASE", "http://example.com/a?b=c&d=%20e#f", "user@example.com",
    "    for i in range(10):\n        print(i)\n\n\n    return\n", "\ttab\tseparated\t\tvalues", "trailing   \n   leading",
    " " * 40, "\n" * 20, "\t" * 9 + "x", "a" * 100, "ab" * 70, "é" * 40, "😀" * 12, "word " * 20, ("x" * 33 + " ") * 3,
    "\u2581already \u2581\u2581escaped\u2581", "<0x41><0xE4>", "Ġbyte Ċ level ĉ", "\ufffd \ufffe \U0010ffff",
]
ADDED = [
    "<s>", "</s>", "<unk>", "<s>Hello", "Hello<s> world</s>", "<s><s>", " <s> ", "<|im_start|>user\nHi<|im_end|>\n", "<mask>",
    "a <mask> b", "a   <mask>   b", "<mask><mask>", "  <mask>", "<mask>  ", "left <L>x   <L>  <L>", "x<R>   y<R> <R>", "foo", "foobar",
    "a foo b", "a foobar foo, foo_ _foo foo.", "fooéfoo foo\u0301 ²foo² ①foo", "NORM Norm norm nórm", "<|im_st", "<|im_start|",
    "<both>  <both>x <both>", "\u2003<mask>\u2003\u0085<L>", "longest <x><xx><xxx><xxxx>", "\n<R>\n\nx", "<mask>  foo  <mask>",
]


def assigned_long_ago(c):
    """Characters of Unicode 3.2: classes and normal forms of newer ones depend on the version of everyone's tables."""
    return unicodedata.ucd_3_2_0.category(chr(c)) not in ("Cn", "Cs")


def fuzzed(rng, count):
    ranges = [(0, 0x7F), (0x80, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0x1100, 0x11FF),
              (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x27BF), (0x3000, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3),
              (0xF900, 0xFAFF), (0xFB00, 0xFFFD), (0x1D100, 0x1D7FF), (0x20000, 0x2A6D6)]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 24)):
            low, high = ranges[0] if rng.random() < 0.4 else rng.choice(ranges)
            c = rng.randint(low, high)
            if assigned_long_ago(c):
                parts.append(chr(c))
            if rng.random() < 0.2:
                parts.append(rng.choice([" ", "  ", "\n", "\r\n", "'s", "the", "<mask>", "</s>", "foo", "12"]))
        texts.append("".join(parts))
    return texts


def byte_level_trainer(size, special):
    return trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False,
                               initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def llama_bytes():
    return [f"<0x{b:02X}>" for b in range(256)]


def gpt2():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.train_from_iterator(CORPUS, byte_level_trainer(600, ["<|endoftext|>"]))
    return t


def gpt2_prefix_space():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=True)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, byte_level_trainer(500, ["<|endoftext|>"]))
    return t


def llama3():
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, byte_level_trainer(600, []))
    t.add_special_tokens(["<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", t.token_to_id("<s>"))])])
    return t


def qwen2():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.train_from_iterator(CORPUS, byte_level_trainer(600, []))
    t.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return t


def o200k():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFKC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(O200K), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, byte_level_trainer(450, []))
    return t


def deepseek():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r), "isolated") for r in ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")]
        + [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, byte_level_trainer(450, []))
    return t


def falcon():
    """ByteLevel in the middle: later steps see the byte alphabet."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Digits(False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, byte_level_trainer(450, []))
    return t


def sentencepiece_like(normalizer, pre_tokenizer, decoder, size=700, alphabet=60, **model):
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True, **model))
    if normalizer:
        t.normalizer = normalizer
    if pre_tokenizer:
        t.pre_tokenizer = pre_tokenizer
    t.decoder = decoder
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<unk>", "<s>", "</s>"] + llama_bytes(), limit_alphabet=alphabet, show_progress=False,
        max_token_length=16))
    # The trainer makes the byte tokens special; in models they are ordinary tokens.
    text = json.loads(t.to_str())
    text["added_tokens"] = text["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(text))
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B", special_tokens=[("<s>", 1), ("</s>", 2)])
    return t


LLAMA_DECODER = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])


def llama2():
    return sentencepiece_like(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, LLAMA_DECODER)


def metaspace(scheme, split, **model):
    return sentencepiece_like(None, pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split),
                              decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme, split=split)]), **model)


def words():
    """No byte tokens: unknown characters, single or fused, and no decoder."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    t.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>"], limit_alphabet=50, show_progress=False))
    t.add_tokens([AddedToken("NORM"), AddedToken("foo", single_word=True)])
    return t


def splits(behavior, invert):
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.Replace(Regex(r"\s{2,}"), "--"), normalizers.Strip(right=False)])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("-", behavior, invert), pre_tokenizers.Split(Regex(r"[aeiou]\w?|\W"), behavior, invert)])
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], limit_alphabet=80, show_progress=False))
    return t


def added_tokens():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, byte_level_trainer(300, ["<s>", "</s>"]))
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True), AddedToken("<L>", lstrip=True, special=True),
                          AddedToken("<R>", rstrip=True, special=True), AddedToken("<both>", lstrip=True, rstrip=True, special=True)])
    t.add_tokens([AddedToken("foo", single_word=True), AddedToken("<x>"), AddedToken("<xx>"), AddedToken("<xxx>"), AddedToken("   "),
                  AddedToken("é\u0301", normalized=False)])
    return t


def added_tokens_metaspace():
    t = metaspace("first", True)
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True), AddedToken("<|im_start|>", special=True), "<|im_end|>"])
    t.add_tokens([AddedToken("foo", single_word=True), AddedToken("<R>", rstrip=True)])
    return t


def added_tokens_prepended():
    t = llama2()
    t.add_special_tokens([AddedToken("<mask>", special=True, normalized=False)])
    t.add_tokens([AddedToken("foo", normalized=True), AddedToken("<x>", normalized=False)])
    return t


SHAPES = {
    "hf_gpt2": gpt2, "hf_gpt2_prefix_space": gpt2_prefix_space, "hf_llama3": llama3, "hf_qwen2": qwen2, "hf_o200k": o200k,
    "hf_deepseek": deepseek, "hf_falcon": falcon, "hf_llama2": llama2,
    "hf_metaspace_always": lambda: metaspace("always", True),
    "hf_metaspace_first": lambda: metaspace("first", False),
    "hf_metaspace_never": lambda: metaspace("never", True, ignore_merges=True),
    "hf_words": words,
    "hf_split_previous": lambda: splits("merged_with_previous", False),
    "hf_split_next": lambda: splits("merged_with_next", False),
    "hf_split_contiguous": lambda: splits("contiguous", True),
    "hf_added": added_tokens, "hf_added_metaspace": added_tokens_metaspace, "hf_added_prepended": added_tokens_prepended,
}


def main():
    total = 0
    fuzz = fuzzed(random.Random(1), 100)
    texts = NASTY + ADDED + fuzz
    (OUT / "hf_texts.json").write_text(json.dumps({"texts": texts}, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    for index, (name, make) in enumerate(SHAPES.items()):
        tokenizer = make()
        text = tokenizer.to_str()
        tokenizer = Tokenizer.from_str(text)  # what the file says, not what was built
        (OUT / f"{name}.json").write_text(json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
        cases = []
        fuzz_of_shape = [len(NASTY + ADDED) + (7 * index + i) % len(fuzz) for i in range(25)]
        for number in [*range(len(NASTY + ADDED)), *fuzz_of_shape]:
            case = texts[number]
            ids = tokenizer.encode(case).ids
            entry = {"text": number, "ids": ids}
            decoded = tokenizer.decode(ids)
            if decoded != case:
                entry["decoded"] = decoded
            tokenizer.encode_special_tokens = True
            plain = tokenizer.encode(case, add_special_tokens=False).ids
            tokenizer.encode_special_tokens = False
            if plain != ids:
                entry["plain"] = plain
            everything = tokenizer.decode(ids, skip_special_tokens=False)
            if everything != decoded:
                entry["decoded_all"] = everything
            cases.append(entry)
        (OUT / f"{name}.cases.json").write_text(
            json.dumps({"cases": cases}, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
        total += sum((OUT / f"{name}{end}").stat().st_size for end in (".json", ".cases.json"))
        print(f"{name}: {tokenizer.get_vocab_size()} tokens, {len(cases)} cases")
    print(f"{total} bytes")


if __name__ == "__main__":
    main()
