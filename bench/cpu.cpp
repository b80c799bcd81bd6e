// Whole models beside the machine's limits, and beside llama.cpp where its programs are at hand: prefill, decode, decode behind a
// long context, batches, the time to the first token, memory. bench/README.md says how to run it.
//
// Before each repetition the machine's limits are measured; then it is our turn and the peer's, in alternating order, so
// that a machine that slows down slows all of them. What other programs disturbed is taken again (quiet.hpp).
//
// "of limit" is the least time that the machine needs for the bytes or the operations, whichever is more, divided by the time
// taken. Bytes: all weights that a pass reads, once, and the cache. Operations: two for each multiply-add of the linear
// layers, the vocabulary's not counted in prefill, which needs it for one token only.

#include "child_process.hpp"
#include "machine_limits.hpp"
#include "model_report.hpp"
#include "quiet.hpp"

#include <effinfer/core/json.hpp>
#include <effinfer/model.hpp>
#include <effinfer/quantization/at_load.hpp>
#include <effinfer/text/tokenizer.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace {

namespace ei = effinfer;
using weight_policy = ei::quantization::at_load;
using model = ei::model<weight_policy, ei::execution::cpu>;
using machine_limits::seconds_now;
using model_report::figure;
using model_report::work;

struct arguments {
  std::string model, weights = "none", llama_bench, llama_batched_bench, json, child, packed_cache, peer_options,
                     peer = "llama.cpp";
  std::vector<std::string> only;
  int threads = 0, repetitions = 5, retries = 5, context = 4096;

  [[nodiscard]] bool wants(const std::string& what) const {
    return only.empty() || std::find(only.begin(), only.end(), what) != only.end();
  }
  [[nodiscard]] weight_policy::choice choice() const {
    return weights == "int8"   ? weight_policy::choice::int8
           : weights == "int4" ? weight_policy::choice::int4_32
                               : weight_policy::choice::none;
  }
};

arguments parse(int argc, char** argv) {
  arguments a;
  CLI::App app{"Measures a model on the CPU beside the machine's limits."};
  app.add_option("--model", a.model, "Hugging Face folder, or .gguf file")->required();
  app.add_option("--weights", a.weights, "none (as stored), int8 or int4, quantized on load")
      ->check(CLI::IsMember({"none", "int8", "int4"}));
  app.add_option("--threads", a.threads, "0 is one a core")->capture_default_str();
  app.add_option("--repetitions", a.repetitions, "of each figure")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--retries", a.retries, "how often a disturbed measurement is taken again")->capture_default_str();
  app.add_option("--context", a.context, "tokens in front of those of decode-deep")->capture_default_str();
  app.add_option("--only", a.only, "what to measure")
      ->delimiter(',')
      ->check(CLI::IsMember({"first-token", "memory", "prefill", "decode", "decode-deep", "batch-4", "batch-16"}));
  app.add_option("--llama-bench", a.llama_bench, "llama.cpp's program, to be run in turns with us");
  app.add_option("--llama-batched-bench", a.llama_batched_bench, "the same for batches");
  app.add_option("--llama-bench-options", a.peer_options, "more options for it, separated by spaces");
  app.add_option("--peer-name", a.peer, "what it is called in the output")->capture_default_str();
  app.add_option("--json", a.json, "write all samples there");
  app.add_option("--packed-cache", a.packed_cache, "load from packed weights that are kept in this file or folder");
  app.add_option("--child", a.child, "")->group("");  // how this program starts itself: see before_loading
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e));
  }
  return a;
}

/// Tokens from all over the vocabulary.
std::vector<int> some_tokens(int count, const model& m) {
  std::vector<int> tokens;
  for (int i = 0; i < count; ++i)
    tokens.push_back(static_cast<int>((std::int64_t{i} * 7919 + 13) % (m.config().vocabulary_size - 2)));
  return tokens;
}

/// The peer's programs. Errors: std::runtime_error where one fails.
class llama_cpp {
 public:
  explicit llama_cpp(const arguments& a) : a_(a) {}

  [[nodiscard]] bool has_bench() const { return !a_.llama_bench.empty(); }
  /// Whether there is a bench that, of whatever age, knows an option. One that fails is told of when it is measured (in_turns).
  [[nodiscard]] bool knows(const std::string& option) const try {
    return has_bench() && child_process::run({a_.llama_bench, "--help"}).output.find(option) != std::string::npos;
  } catch (const std::exception&) {
    return false;
  }

  [[nodiscard]] child_process::result bench(const std::vector<std::string>& more) const {
    auto command = start_of(a_.llama_bench);
    command.insert(command.end(), {"-r", "1", "-o", "json"});
    std::istringstream options(a_.peer_options);
    command.insert(command.end(), std::istream_iterator<std::string>(options), {});
    command.insert(command.end(), more.begin(), more.end());
    return child_process::run(command);
  }
  [[nodiscard]] double bench_speed(const std::vector<std::string>& more) const {
    return number(bench(more).output, '[', ']', "avg_ts");
  }
  [[nodiscard]] double batched_speed(int sessions, int prompt, int steps) const {
    auto command = start_of(a_.llama_batched_bench);
    const int context = std::max(sessions * (prompt + steps), 1024);
    command.insert(command.end(),
                   {"-c", std::to_string(context), "-npp", std::to_string(prompt), "-ntg", std::to_string(steps),
                    "-npl", std::to_string(sessions), "--output-format", "jsonl"});
    return number(child_process::run(command).output, '{', '}', "speed_tg");
  }

 private:
  [[nodiscard]] std::vector<std::string> start_of(const std::string& program) const {
    std::vector<std::string> command{program, "-m", a_.model};
    if (a_.threads > 0) command.insert(command.end(), {"-t", std::to_string(a_.threads)});
    return command;
  }

  /// The field `key` of the last object in what it printed, which may begin with other lines.
  static double number(const std::string& output, char opens, char closes, const char* key) {
    const std::size_t begin = output.find(opens), end = output.rfind(closes);
    if (begin == std::string::npos || end == std::string::npos || end < begin)
      throw std::runtime_error("there is no JSON in what it printed");
    const ei::json::document all(std::string_view(output).substr(begin, end + 1 - begin), "its output");
    return (opens == '[' ? all.root()[all.root().size() - 1] : all.root()).at(key).number();
  }

  const arguments& a_;
};

/// A folder of its own among the system's temporary ones, removed at the end.
class scratch_folder {
 public:
  scratch_folder() {
    std::string name = (std::filesystem::temp_directory_path() / "bench-cpu-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error(name + ": can't be made");
    path_ = name;
  }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;
  ~scratch_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Reads the model's files, so that neither of two programs that load them finds them in memory and the other doesn't.
void warm_files(const std::string& path) {
  std::vector<std::filesystem::path> files{path};
  if (std::filesystem::is_directory(path)) files.assign(std::filesystem::directory_iterator(path), {});
  std::vector<char> block(1 << 20);
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    while (in.read(block.data(), static_cast<std::streamsize>(block.size()))) {
    }
  }
}

class bench {
 public:
  explicit bench(arguments a) : a_(std::move(a)), peer_(a_) { quiet_.retries = a_.retries; }

  void run() {
    out_.model = a_.model.substr(a_.model.rfind('/') + 1);
    out_.weights = a_.weights, out_.peer = a_.peer;
    before_loading();
    load();
    passes();
    out_.disturbed = quiet_.worst;
    out_.print();
    if (!a_.json.empty()) out_.write_json(a_.json);
  }

  /// What this program does when it is its own child: reads one token or 512, and ends.
  static void as_child(const arguments& a) {
    const auto m = model::load(
        a.model,
        {.progress = {}, .session = {.context_tokens = 512, .prefill_chunk = 512}, .packed_cache = a.packed_cache},
        weight_policy{a.choice()}, ei::execution::cpu{.threads = a.threads});
    // The peers' programs load it too.
    std::optional<ei::text::tokenizer> tokenizer;
    if (m.files().is_gguf() || std::filesystem::exists(m.files().folder() + "/tokenizer.json"))
      tokenizer = ei::text::tokenizer::load(m.files());
    auto session = m.start();
    session.prefill(some_tokens(a.child == "first-token" ? 1 : 512, m));
  }

 private:
  /// Loading and memory are measured on programs that do nothing else, and while this one is small (see child_process).
  void before_loading() {
    const auto ourselves = [&](const std::string& child, const std::string& packed_cache = {}) {
      warm_files(a_.model);
      std::vector<std::string> command{
          "/proc/self/exe",           "--model", a_.model, "--weights", a_.weights, "--threads",
          std::to_string(a_.threads), "--child", child};
      if (!packed_cache.empty()) command.insert(command.end(), {"--packed-cache", packed_cache});
      return child_process::run(command);
    };
    const auto theirs = [&](const std::vector<std::string>& options) {
      warm_files(a_.model);
      return peer_.bench(options);
    };
    if (a_.wants("first-token")) {
      const scratch_folder kept;
      // An old peer warms up by one token more, some hundredths of a second.
      std::vector<std::string> options{"-p", "0", "-n", "1"};
      if (peer_.knows("--no-warmup")) options.emplace_back("--no-warmup");
      // Once before: a virtual machine may have to fetch memory that nobody used lately.
      out_.packing_start.push_back(ourselves("first-token", kept.path()).seconds);
      in_turns(
          "first-token", [] {},
          [&] {
            out_.first_ours.push_back(quiet_.take([&] { return ourselves("first-token").seconds; }));
            out_.second_ours.push_back(quiet_.take([&] { return ourselves("first-token", kept.path()).seconds; }));
          },
          [&] {
            if (peer_.has_bench()) {
              out_.first_theirs.push_back(quiet_.take([&] { return theirs(options).seconds; }));
            }
          });
    }
    if (a_.wants("memory")) {
      out_.memory_ours.push_back(static_cast<double>(ourselves("memory").peak_bytes));
      if (peer_.has_bench())
        out_.memory_theirs.push_back(static_cast<double>(theirs({"-p", "512", "-n", "0"}).peak_bytes));
    }
  }

  /// All repetitions: `first`, then the two in alternating order. A peer that fails says so once and is left out.
  template <class First, class Ours, class Theirs>
  void in_turns(const std::string& name, const First& first, const Ours& ours, const Theirs& theirs) const {
    bool peer_failed = false;
    const auto their_turn = [&] {
      try {
        if (!peer_failed) theirs();
      } catch (const std::exception& e) {
        std::fprintf(stderr, "%s: %s\n", a_.peer.c_str(), e.what());
        peer_failed = true;
      }
    };
    for (int i = 0; i < a_.repetitions; ++i) {
      std::fprintf(stderr, "%s %d of %d\n", name.c_str(), i + 1, a_.repetitions);
      first();
      if (i % 2 == 0) ours();
      their_turn();
      if (i % 2 != 0) ours();
    }
  }

  void load() {
    model_ =
        std::make_unique<model>(model::load(a_.model, {.packed_cache = a_.packed_cache}, weight_policy{a_.choice()},
                                            ei::execution::cpu{.threads = a_.threads}));
    const auto& c = model_->config();
    const double e = c.width, q = static_cast<double>(c.heads) * c.head_size;
    const double kv = static_cast<double>(c.kv_heads) * c.head_size;
    last_layer_ = q * e + 3 * e * c.feed_forward_width;
    linear_ = c.layers * (e * (q + 2 * kv) + last_layer_);
    vocabulary_ = e * c.vocabulary_size;
    attention_ = 2 * c.layers * q;
    cache_bytes_ = 2 * 2 * c.layers * kv;
    for (const auto& t : model_->files().tensors()) {
      const bool is_looked_up = !c.tied_embeddings && t.name.find("emb") != std::string::npos;
      if (!is_looked_up) stored_bytes_ += static_cast<double>(t.data.size());
    }
    const auto format = model_->decoder_model().weights().blocks.at(0).up.weight.format;
    const bool has_bf16_dot = machine_limits::bf16_dot_peak(exec(), 1) > 0;
    out_.format = std::string(to_string(format));
    using enum ei::weight_format;
    const bool is_float = format == f32 || format == f16 || format == bf16;
    out_.kind = format == bf16 && has_bf16_dot ? "bf16" : is_float ? "f32" : "int8";
    out_.threads = exec().threads();
    out_.instruction_set = std::string(to_string(exec().set()));
  }
  [[nodiscard]] const ei::execution::cpu::context& exec() const { return model_->decoder_model().execution(); }
  [[nodiscard]] double pass_bytes() const {
    return static_cast<double>(model_->decoder_model().weights().bytes_per_token);
  }

  void passes() {
    if (a_.wants("prefill")) prefill();
    if (a_.wants("decode")) decode("decode", 64, 0, bench_peer({"-p", "0", "-n", "64"}));
    if (a_.wants("decode-deep")) decode("decode-deep", 32, a_.context, deep_peer(32));
    for (const int sessions : {4, 16}) {
      if (a_.wants("batch-" + std::to_string(sessions))) batch(sessions);
    }
  }

  /// Samples of `body`, which does `w` once, and of the peer: a function that returns its tokens a second, or nothing.
  template <class Body, class Peer>
  void measure(const work& w, const Body& body, const Peer& peer) {
    figure f{.of = w};
    body();  // once before, as the peers do
    in_turns(
        w.name,
        [&] {
          auto& l = f.around;  // each takes 50 to 100 ms, so that the system's counters see a disturbance
          l.f32.push_back(quiet_.take([&] { return machine_limits::fma_peak(exec(), 300); }));
          l.bf16.push_back(quiet_.take([&] { return machine_limits::bf16_dot_peak(exec(), 300); }));
          l.int8.push_back(quiet_.take([&] { return machine_limits::byte_dot_peak(exec(), 300); }));
        },
        [&] {
          // Memory's speed changes within seconds on a shared machine: measured right before and right after.
          const auto read = [&] { return machine_limits::sustained_read_bandwidth(exec(), 0.25); };
          const double before = quiet_.take(read);
          f.ours.push_back(quiet_.take([&] {
            const double start = seconds_now();
            body();
            return w.tokens / (seconds_now() - start);
          }));
          f.around.read.push_back((before + quiet_.take(read)) / 2);
        },
        [&] {
          const double speed = quiet_.take(peer);
          if (speed > 0) f.theirs.push_back(speed);
        });
    out_.figures.push_back(std::move(f));
  }

  [[nodiscard]] std::function<double()> bench_peer(const std::vector<std::string>& options) const {
    return [this, options] { return peer_.has_bench() ? peer_.bench_speed(options) : 0; };
  }
  /// An old llama-bench has no depth: its batched sister has, with a batch of one.
  [[nodiscard]] std::function<double()> deep_peer(int steps) const {
    if (peer_.knows("--n-depth"))
      return bench_peer({"-p", "0", "-n", std::to_string(steps), "-d", std::to_string(a_.context)});
    return [this, steps] { return a_.llama_batched_bench.empty() ? 0 : peer_.batched_speed(1, a_.context, steps); };
  }

  void prefill() {
    const int tokens = 512;
    auto session = model_->start({.context_tokens = tokens, .prefill_chunk = tokens});
    const auto prompt = some_tokens(tokens, *model_);
    const double cache = cache_bytes_ * tokens;
    measure(
        {.name = "prefill",
         .tokens = tokens,
         .operations = 2 * (linear_ * tokens - last_layer_ * (tokens - 1)),
         .bytes = pass_bytes() + cache,
         .peer_bytes = stored_bytes_ + cache},
        [&] {
          session.truncate(0);
          session.prefill(prompt);
        },
        bench_peer({"-p", "512", "-n", "0"}));
  }

  /// `sessions` sequences that decode `steps` tokens each behind `context` tokens.
  [[nodiscard]] work decoding(std::string name, int sessions, int steps, int context) const {
    const double tokens = static_cast<double>(sessions) * steps, positions = context + (steps + 1) / 2.0;
    const double cache = tokens * cache_bytes_ * positions;
    return {.name = std::move(name),
            .tokens = tokens,
            .operations = 2 * tokens * (linear_ + vocabulary_ + attention_ * positions),
            .bytes = steps * pass_bytes() + cache,
            .peer_bytes = steps * stored_bytes_ + cache};
  }

  void decode(const std::string& name, int steps, int context, const std::function<double()>& peer) {
    auto session = model_->start({.context_tokens = context + steps, .prefill_chunk = 512});
    if (context > 0) session.prefill(some_tokens(context, *model_));
    const auto tokens = some_tokens(steps, *model_);
    measure(
        decoding(name, 1, steps, context),
        [&] {
          session.truncate(context);
          for (std::size_t i = 0; i < tokens.size(); ++i) session.append(std::span(tokens).subspan(i, 1));
        },
        peer);
  }

  void batch(int count) {
    const int steps = 32, prompt = 8;
    std::vector<model::session_type> sessions;
    std::vector<model::session_type*> pointers;
    for (int i = 0; i < count; ++i) {
      sessions.push_back(model_->start({.context_tokens = prompt + steps, .prefill_chunk = prompt}));
      sessions.back().prefill(some_tokens(prompt, *model_));
    }
    for (auto& s : sessions) pointers.push_back(&s);
    auto together = model_->make_batch(count);
    const auto tokens = some_tokens(count * steps, *model_);
    measure(
        decoding("batch-" + std::to_string(count), count, steps, prompt),
        [&] {
          for (auto& s : sessions) s.truncate(prompt);
          for (std::size_t i = 0; i < tokens.size(); i += sessions.size())
            together.step(pointers, std::span(tokens).subspan(i, sessions.size()));
        },
        [&] { return a_.llama_batched_bench.empty() ? 0 : peer_.batched_speed(count, prompt, steps); });
  }

  arguments a_;
  llama_cpp peer_;
  quiet::taker quiet_;
  model_report::report out_;
  std::unique_ptr<model> model_;
  double linear_ = 0, vocabulary_ = 0;  ///< multiply-adds a token
  double last_layer_ = 0;               ///< those of the last layer that only tokens with logits need
  double attention_ = 0;                ///< multiply-adds a token and position that it looks at
  double cache_bytes_ = 0,
         stored_bytes_ = 0;  ///< of a token's keys and values in f16; of all weights that a pass reads
};

}  // namespace

int main(int argc, char** argv) {
  try {
    const arguments a = parse(argc, argv);
    if (a.child.empty()) {
      bench(a).run();
    } else {
      bench::as_child(a);
    }
  } catch (const std::exception& e) {
    std::cerr << "bench_cpu: " << e.what() << std::endl;
    return 1;
  }
}
