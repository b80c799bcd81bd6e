#!/usr/bin/env python3
"""What including effinfer costs a user: processor seconds, the compiler's peak memory, and bytes of object code.

    python3 bench/compile_time.py [--repetitions 5] [--compilers g++ clang++] [--flags=-O2] [--only one_kernel]

Prints one line a compiler and program: the median of the processor seconds (which other programs on the
machine disturb least) and their spread from least to greatest, the peak memory in MB, and the bytes of code and data in the object file. A program that does not compile fails the run.
"""
import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]

PROGRAMS = {
    "nothing": "int main() {}\n",
    "umbrella": "#include <effinfer/effinfer.hpp>\nint main() {}\n",
    "one_kernel": """\
#include <effinfer/decoding/top_p.hpp>
#include <vector>
int main() {
  std::vector<float> logits(128256, 0.0f);
  effinfer::decoding::workspace scratch;
  return effinfer::decoding::top_p{.p = 0.9f}(logits, {}, {7}, 0, scratch);
}
""",
    "matmul": """\
#include <effinfer/quantization/matmul.hpp>
#include <vector>
using namespace effinfer;
int main() {
  const execution::cpu::context exec;
  std::vector<float> x(4096), y(4096);
  std::vector<std::byte> weights(4096 * 4096 * 2);
  const quantization::weight_matrix w{.format = weight_format::bf16, .data = weights.data(), .rows = 4096, .columns = 4096};
  std::vector<std::byte> workspace(quantization::matmul_workspace_bytes(1, 4096));
  quantization::matmul(exec, {x.data(), 1, 4096}, w, {y.data(), 1, 4096}, workspace);
}
""",
    "one_pipeline": """\
#include <effinfer/effinfer.hpp>
#include <iostream>
namespace ei = effinfer;
using chat = ei::pipeline<ei::models::llama, ei::attention::sliding_window<4096>, ei::quantization::int4<128>,
                          ei::decoding::speculative<ei::decoding::prompt_lookup<3>, ei::decoding::top_p>, ei::execution::cpu>;
int main() {
  chat llm = chat::load("path/to/checkpoint");
  for (std::string_view piece : llm.generate("Once upon a time", {.max_tokens = 64})) std::cout << piece << std::flush;
}
""",
    "any_format": """\
#include <effinfer/effinfer.hpp>
namespace ei = effinfer;
using chat = ei::pipeline<ei::decoding::greedy, ei::execution::cpu>;
int main() { return chat::load("path/to/checkpoint").generate("Once upon a time").text().empty(); }
""",
}
PROGRAMS["compiled_apart"] = "#define EFFINFER_COMPILED\n" + PROGRAMS["any_format"]  # as with the target effinfer::compiled


def compile_once(command):
    """Processor seconds, and the peak resident memory of the compiler in MB. (wait4 gives the greatest of the driver and its children.)"""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode != 0:
        raise RuntimeError(" ".join(command) + "\n" + message.decode(errors="replace")[:2000])
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def object_bytes(path):
    """Text, data and bss, as `size` counts them."""
    text, data, bss = subprocess.check_output(["size", path], text=True).splitlines()[1].split()[:3]
    return int(text) + int(data) + int(bss)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--compilers", nargs="+", default=["g++", "clang++"])
    parser.add_argument("--flags", default="-O2", help="besides -std=c++20 -pthread")
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    arguments = parser.parse_args()

    failed = False
    print(f"{'compiler':<10} {'program':<14} {'seconds':>8} {'spread':>14} {'peak MB':>8} {'object bytes':>13}")
    with tempfile.TemporaryDirectory() as folder:
        for compiler in arguments.compilers:
            if not shutil.which(compiler):
                print(f"{compiler:<10} is not installed")
                continue
            for name in arguments.only:
                source, target = pathlib.Path(folder, name + ".cpp"), str(pathlib.Path(folder, name + ".o"))
                source.write_text(PROGRAMS[name])
                command = [compiler, "-std=c++20", "-pthread", *arguments.flags.split(), "-I", str(ROOT / "include"), "-c",
                           str(source), "-o", target]
                try:
                    runs = [compile_once(command) for _ in range(arguments.repetitions)]
                except RuntimeError as error:
                    print(f"{compiler:<10} {name:<14} does not compile\n{error}", file=sys.stderr)
                    failed = True
                    continue
                seconds = sorted(run[0] for run in runs)
                spread = f"{seconds[0]:.2f}-{seconds[-1]:.2f}"
                print(f"{compiler:<10} {name:<14} {statistics.median(seconds):8.2f} {spread:>14} "
                      f"{max(run[1] for run in runs):8.0f} {object_bytes(target):13d}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
