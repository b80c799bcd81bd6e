// Whole models beside the machine's limits, and beside llama.cpp where its programs are at hand: prefill, decode, decode behind a
// long context, batches, the time to the first token, memory.
//
//   bench_cpu --model FILE.gguf [--weights none|int8|int4] [--threads N] [--repetitions 5] [--only prefill,decode ...]
//             [--llama-bench PATH] [--llama-batched-bench PATH] [--json FILE]
//
// Every figure is taken `repetitions` times and printed as median [least - greatest]. Before each repetition the machine's
// limits are measured; then it is our turn and the peer's, in alternating order, so that a machine that slows down slows all of
// them. A repetition during which other programs took more than a twentieth of a core is taken again (--retries).
//
// "of limit" is the least time that the machine needs for the bytes or the operations, whichever is more, divided by the time
// taken. Bytes: all weights that a pass reads, once, and the cache. Operations: two for each multiply-add of the linear
// layers, the vocabulary's not counted in prefill, which needs it for one token only.

#include "child_process.hpp"
#include "machine_limits.hpp"

#include <effinfer/core/json.hpp>
#include <effinfer/model.hpp>
#include <effinfer/quantization/at_load.hpp>
#include <effinfer/text/tokenizer.hpp>

#include <CLI/CLI.hpp>

#include <sys/times.h>

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
#include <string>
#include <vector>

namespace {

namespace ei = effinfer;
using weights = ei::quantization::at_load;
using model = ei::model<weights, ei::execution::cpu>;
using samples = std::vector<double>;
using machine_limits::seconds_now;

struct arguments {
  std::string model, weights = "none", llama_bench, llama_batched_bench, json, child, peer_options, peer = "llama.cpp";
  std::vector<std::string> only;
  int threads = 0, repetitions = 5, retries = 5, context = 4096;
};

arguments parse(int argc, char** argv) {
  arguments a;
  CLI::App app{"Measures a model on the CPU beside the machine's limits."};
  app.add_option("--model", a.model, "Hugging Face folder, or .gguf file")->required();
  app.add_option("--weights", a.weights, "none (as stored), int8 or int4, quantized on load")
      ->check(CLI::IsMember({"none", "int8", "int4"}));
  app.add_option("--threads", a.threads, "0 is one a core")->capture_default_str();
  app.add_option("--repetitions", a.repetitions, "of each figure")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--retries", a.retries, "how often a disturbed repetition is taken again")->capture_default_str();
  app.add_option("--context", a.context, "tokens before the decoding of decode-deep")->capture_default_str();
  app.add_option("--only", a.only, "what to measure")
      ->delimiter(',')
      ->check(CLI::IsMember({"first-token", "memory", "prefill", "decode", "decode-deep", "batch-4", "batch-16"}));
  app.add_option("--llama-bench", a.llama_bench, "llama.cpp's program, to be run in turns with us");
  app.add_option("--llama-batched-bench", a.llama_batched_bench, "the same for batches");
  app.add_option("--llama-bench-options", a.peer_options, "more options for it, separated by spaces");
  app.add_option("--peer-name", a.peer, "what it is called in the output")->capture_default_str();
  app.add_option("--json", a.json, "write all samples there");
  app.add_option("--child", a.child, "")->group("");  // how this program starts itself: see first_token, memory
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e));
  }
  return a;
}

double median(samples values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/// "142.1 [140.2 - 143.0]"
std::string range(const samples& values, double unit = 1.0) {
  if (values.empty()) return "-";
  const auto [least, greatest] = std::minmax_element(values.begin(), values.end());
  const double m = median(values) / unit;
  const int digits = m < 10 ? 2 : m < 1000 ? 1 : 0;
  char text[96];
  std::snprintf(&text[0], sizeof text, "%.*f [%.*f - %.*f]", digits, m, digits, *least / unit, digits,
                *greatest / unit);
  return &text[0];
}

samples ratios(const samples& a, const samples& b) {
  samples r;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) r.push_back(a[i] / b[i]);
  return r;
}

/// Cores' seconds that programs other than this one and its children have used since the machine started; steal by other
/// virtual machines is among them. 0 where the system doesn't tell.
double other_programs_seconds() {
  std::ifstream stat("/proc/stat");
  std::string name;
  double user = 0, nice = 0, system = 0, idle = 0, io = 0, irq = 0, soft_irq = 0, steal = 0;
  if (!(stat >> name >> user >> nice >> system >> idle >> io >> irq >> soft_irq >> steal)) return 0;
  tms own{};
  times(&own);
  const auto ours = static_cast<double>(own.tms_utime + own.tms_stime + own.tms_cutime + own.tms_cstime);
  return (user + nice + system + irq + soft_irq + steal - ours) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

/// One measurement of each a repetition.
struct limits {
  samples read, f32, bf16, int8;  ///< bytes or operations a second

  [[nodiscard]] const samples& peak(const std::string& kind) const {
    return kind == "int8" ? int8 : kind == "bf16" ? bf16 : f32;
  }
};

/// What is known of one kind of work beforehand; bytes and operations are of one repetition.
struct work {
  std::string name;
  double tokens = 0, operations = 0, bytes = 0, peer_bytes = 0;
};

struct figure {
  work of;
  samples ours, theirs;  ///< tokens a second
  limits around;
};

class bench {
 public:
  explicit bench(arguments a) : a_(std::move(a)) {}

  void run() {
    if (a_.child.empty()) {
      before_loading();  // while this process is small: see child_process
      load();
      passes();
      report();
      if (!a_.json.empty()) write_json();
    } else {
      as_child();
    }
  }

 private:
  [[nodiscard]] bool wanted(const std::string& what) const {
    return a_.only.empty() || std::find(a_.only.begin(), a_.only.end(), what) != a_.only.end();
  }

  /// `take()` again and again until no other program disturbed it; the least disturbed counts.
  double undisturbed(const std::function<double()>& take) {
    double best = 0, least = 1e30;
    for (int i = 0; i <= a_.retries; ++i) {
      const double others = other_programs_seconds(), start = seconds_now();
      const double value = take();
      // The counters tick every 10 ms: what is less than two ticks means nothing.
      const double share = std::max(0.0, other_programs_seconds() - others - 0.02) / (seconds_now() - start);
      if (share < least) best = value, least = share;
      if (least < 0.05) break;
    }
    disturbed_ = std::max(disturbed_, least);
    return best;
  }

  // Loading and memory are measured on programs that do nothing else.

  [[nodiscard]] child_process::result ourselves(const std::string& child) const {
    return child_process::run({"/proc/self/exe", "--model", a_.model, "--weights", a_.weights, "--threads",
                               std::to_string(a_.threads), "--child", child});
  }
  [[nodiscard]] child_process::result llama_bench(const std::vector<std::string>& more) const {
    std::vector<std::string> command{a_.llama_bench, "-m", a_.model, "-r", "1", "-o", "json"};
    if (a_.threads > 0) command.insert(command.end(), {"-t", std::to_string(a_.threads)});
    std::istringstream options(a_.peer_options);
    command.insert(command.end(), std::istream_iterator<std::string>(options), {});
    command.insert(command.end(), more.begin(), more.end());
    return child_process::run(command);
  }

  void as_child() const {
    const model m = model::load(a_.model, {.progress = {}, .session = {.context_tokens = 576, .prefill_chunk = 512}},
                                policy(), ei::execution::cpu{.threads = a_.threads});
    // What the peers' programs load too.
    std::optional<ei::text::tokenizer> tokenizer;
    if (m.files().is_gguf() || std::filesystem::exists(m.files().folder() + "/tokenizer.json"))
      tokenizer = ei::text::tokenizer::load(m.files());
    auto session = m.start();
    const bool is_first_token = a_.child == "first-token";
    session.append(some_tokens(is_first_token ? 1 : 512, m.config().vocabulary_size));
  }

  void before_loading() {
    if (wanted("first-token")) {
      for (int i = 0; i < a_.repetitions; ++i) {
        in_turns(
            i, [&] { first_ours_.push_back(undisturbed([&] { return ourselves("first-token").seconds; })); },
            [&] {
              if (!a_.llama_bench.empty())
                first_theirs_.push_back(undisturbed([&] {
                  return llama_bench({"-p", "0", "-n", "1", "--no-warmup"}).seconds;
                }));
            });
      }
    }
    if (wanted("memory")) {
      memory_ours_ = static_cast<double>(ourselves("memory").peak_bytes);
      if (!a_.llama_bench.empty())
        memory_theirs_ = static_cast<double>(llama_bench({"-p", "512", "-n", "0"}).peak_bytes);
    }
  }

  template <class Ours, class Theirs>
  static void in_turns(int repetition, const Ours& ours, const Theirs& theirs) {
    if (repetition % 2 == 0) ours();
    theirs();
    if (repetition % 2 != 0) ours();
  }

  // Everything else is measured on one loaded model.

  [[nodiscard]] weights policy() const {
    return {.weights = a_.weights == "int8"   ? weights::choice::int8
                       : a_.weights == "int4" ? weights::choice::int4_32
                                              : weights::choice::none};
  }

  static std::vector<int> some_tokens(int count, int vocabulary) {
    std::vector<int> tokens;
    for (int i = 0; i < count; ++i)
      tokens.push_back(static_cast<int>((std::int64_t{i} * 7919 + 13) % (vocabulary - 512)));
    return tokens;
  }
  [[nodiscard]] std::vector<int> some_tokens(int count) const {
    return some_tokens(count, model_->config().vocabulary_size);
  }

  void load() {
    if (!wanted("prefill") && !wanted("decode") && !wanted("decode-deep") && !wanted("batch-4") && !wanted("batch-16"))
      return;
    model_ = std::make_unique<model>(model::load(a_.model, {}, policy(), ei::execution::cpu{.threads = a_.threads}));
    const auto& c = model_->config();
    const double e = c.width, q = double(c.heads) * c.head_size, kv = double(c.kv_heads) * c.head_size;
    linear_ = c.layers * (e * (q + 2 * kv) + q * e + 3 * e * c.feed_forward_width);
    vocabulary_ = e * c.vocabulary_size;
    cache_bytes_ = 2 * 2 * c.layers * kv;  // a token's keys and values, f16
    attention_ = 2 * c.layers * q;         // multiply-adds for each pair of tokens
    for (const auto& t : model_->files().tensors()) {
      const bool is_looked_up = !c.tied_embeddings && t.name.find("emb") != std::string::npos;
      if (!is_looked_up) stored_bytes_ += static_cast<double>(t.data.size());
    }
    const auto format = model_->decoder_model().weights().blocks.at(0).up.weight.format;
    format_ = std::string(to_string(format));
    kind_ = format == ei::weight_format::bf16                                      ? "bf16"
            : format == ei::weight_format::f16 || format == ei::weight_format::f32 ? "f32"
                                                                                   : "int8";
    if (kind_ == "bf16" && machine_limits::bf16_dot_peak(exec(), 1) == 0) kind_ = "f32";
  }
  [[nodiscard]] const ei::execution::cpu::context& exec() const { return model_->decoder_model().execution(); }

  /// `sessions` sequences that decode `steps` tokens each, with `context` tokens before them.
  [[nodiscard]] work decoding(std::string name, int sessions, int steps, int context) const {
    const double positions = context + (steps + 1) / 2.0;
    work w{std::move(name), double(sessions) * steps};
    w.operations = 2 * w.tokens * (linear_ + vocabulary_ + attention_ * positions);
    const double cache = w.tokens * cache_bytes_ * positions;
    w.bytes = steps * static_cast<double>(model_->decoder_model().weights().bytes_per_token) + cache;
    w.peer_bytes = steps * stored_bytes_ + cache;
    return w;
  }

  void passes() {
    if (!model_) return;
    if (wanted("prefill")) {
      const int tokens = 512;
      auto session = model_->start({.context_tokens = tokens, .prefill_chunk = tokens});
      const auto prompt = some_tokens(tokens);
      work w{"prefill", double(tokens), 2 * linear_ * tokens};
      w.bytes = static_cast<double>(model_->decoder_model().weights().bytes_per_token) + cache_bytes_ * tokens;
      w.peer_bytes = stored_bytes_ + cache_bytes_ * tokens;
      measure(w,
              [&] {
                session.truncate(0);
                session.append(prompt);
              },
              {"-p", "512", "-n", "0"});
    }
    if (wanted("decode")) decode(decoding("decode", 1, 64, 0), 64, 0, {"-p", "0", "-n", "64"});
    if (wanted("decode-deep"))
      decode(decoding("decode-deep", 1, 32, a_.context), 32, a_.context,
             {"-p", "0", "-n", "32", "-d", std::to_string(a_.context)});
    for (const int sessions : {4, 16}) {
      if (wanted("batch-" + std::to_string(sessions))) batch(sessions);
    }
  }

  void decode(const work& w, int steps, int context, const std::vector<std::string>& peer) {
    auto session = model_->start({.context_tokens = context + steps, .prefill_chunk = 512});
    if (context > 0) session.append(some_tokens(context));
    const auto tokens = some_tokens(steps);
    measure(
        w,
        [&] {
          session.truncate(context);
          for (std::size_t i = 0; i < tokens.size(); ++i) session.append(std::span(tokens).subspan(i, 1));
        },
        peer);
  }

  static constexpr int batch_steps = 32, batch_prompt = 8;

  void batch(int count) {
    using session_type = model::session_type;
    std::vector<session_type> sessions;
    for (int i = 0; i < count; ++i) {
      sessions.push_back(model_->start({.context_tokens = batch_prompt + batch_steps, .prefill_chunk = batch_prompt}));
      sessions.back().append(some_tokens(batch_prompt));
    }
    std::vector<session_type*> pointers;
    for (session_type& s : sessions) pointers.push_back(&s);
    auto together = model_->make_batch(count);
    const auto tokens = some_tokens(count * batch_steps);
    measure(decoding("batch-" + std::to_string(count), count, batch_steps, batch_prompt),
            [&] {
              for (session_type& s : sessions) s.truncate(batch_prompt);
              for (int i = 0; i < batch_steps; ++i)
                together.step(pointers, std::span(tokens).subspan(static_cast<std::size_t>(i * count),
                                                                  static_cast<std::size_t>(count)));
            },
            {});
  }

  /// The peer's tokens a second at the same work.
  [[nodiscard]] std::optional<double> peer(const work& w, const std::vector<std::string>& options) const {
    if (options.empty()) {
      if (a_.llama_batched_bench.empty()) return {};
      const std::string sequences = w.name.substr(w.name.find('-') + 1);
      std::vector<std::string> command{a_.llama_batched_bench,
                                       "-m",
                                       a_.model,
                                       "-c",
                                       "1024",
                                       "-b",
                                       "2048",
                                       "-ub",
                                       "512",
                                       "-npp",
                                       std::to_string(batch_prompt),
                                       "-ntg",
                                       std::to_string(batch_steps),
                                       "-npl",
                                       sequences,
                                       "--output-format",
                                       "jsonl"};
      if (a_.threads > 0) command.insert(command.end(), {"-t", std::to_string(a_.threads)});
      const auto r = child_process::run(command);
      const std::size_t begin = r.output.find('{'), end = r.output.find('}');
      if (begin == std::string::npos || end == std::string::npos) throw std::runtime_error(command[0] + ": no JSON");
      const ei::json::document line(std::string_view(r.output).substr(begin, end - begin + 1), command[0]);
      return line.root().at("speed_tg").number();
    }
    if (a_.llama_bench.empty()) return {};
    const auto r = llama_bench(options);
    const std::size_t begin = r.output.find('[');
    if (begin == std::string::npos) throw std::runtime_error(a_.llama_bench + ": no JSON");
    const ei::json::document all(std::string_view(r.output).substr(begin), a_.llama_bench);
    return all.root()[all.root().size() - 1].at("avg_ts").number();
  }

  void measure(limits& l) {
    l.read.push_back(undisturbed([&] { return machine_limits::read_bandwidth(exec(), 20); }));
    l.f32.push_back(undisturbed([&] { return machine_limits::fma_peak(exec(), 50); }));
    l.bf16.push_back(undisturbed([&] { return machine_limits::bf16_dot_peak(exec(), 50); }));
    l.int8.push_back(undisturbed([&] { return machine_limits::byte_dot_peak(exec(), 50); }));
  }

  template <class Body>
  void measure(const work& w, const Body& body, const std::vector<std::string>& peer_options) {
    figure f{.of = w, .ours = {}, .theirs = {}, .around = {}};
    body();  // once before, as the peers do
    for (int i = 0; i < a_.repetitions; ++i) {
      std::fprintf(stderr, "\r\033[K%s %d/%d", w.name.c_str(), i + 1, a_.repetitions);
      measure(f.around);
      in_turns(
          i,
          [&] {
            f.ours.push_back(undisturbed([&] {
              const double start = seconds_now();
              body();
              return w.tokens / (seconds_now() - start);
            }));
          },
          [&] {
            if (peer_failed_) return;
            try {
              double speed = 0;
              bool is_there = true;
              speed = undisturbed([&] {
                const auto p = peer(w, peer_options);
                is_there = p.has_value();
                return p.value_or(0);
              });
              if (is_there) f.theirs.push_back(speed);
            } catch (const std::exception& e) {
              std::fprintf(stderr, "\r\033[K%s: %s\n", a_.peer.c_str(), e.what());
              peer_failed_ = true;
            }
          });
    }
    peer_failed_ = false;
    std::fprintf(stderr, "\r\033[K");
    figures_.push_back(std::move(f));
  }

  // What came out.

  [[nodiscard]] samples of_limit(const figure& f, const samples& speeds, double bytes) const {
    samples shares;
    for (std::size_t i = 0; i < speeds.size(); ++i) {
      const double least = std::max(bytes / f.around.read[i], f.of.operations / f.around.peak(kind_)[i]);
      shares.push_back(least / (f.of.tokens / speeds[i]));
    }
    return shares;
  }
  [[nodiscard]] std::string bound(const figure& f) const {
    return f.of.bytes / median(f.around.read) > f.of.operations / median(f.around.peak(kind_)) ? "read" : kind_;
  }

  void report() const {
    const std::string name = a_.model.substr(a_.model.rfind('/') + 1);
    if (model_) {
      std::printf("%s, %s weights, %d threads, %s; %d repetitions, median [least - greatest]\n", name.c_str(),
                  format_.c_str(), exec().threads(), std::string(to_string(exec().set())).c_str(), a_.repetitions);
      limits all;
      for (const figure& f : figures_) {
        for (const auto part : {&limits::read, &limits::f32, &limits::bf16, &limits::int8})
          (all.*part).insert((all.*part).end(), (f.around.*part).begin(), (f.around.*part).end());
      }
      std::printf("limits: read %s GB/s; f32 %s, bf16 %s, int8 %s GFLOP/s\n", range(all.read, 1e9).c_str(),
                  range(all.f32, 1e9).c_str(), range(all.bf16, 1e9).c_str(), range(all.int8, 1e9).c_str());
    }
    std::printf("%-21s %-26s %-29s %-26s %s\n", "", "effinfer", "of limit", a_.peer.c_str(), "effinfer / it");
    for (const figure& f : figures_) {
      std::printf("%-21s %-26s %-23s %-5s %-26s %s\n", (f.of.name + ", tokens/s").c_str(), range(f.ours).c_str(),
                  range(of_limit(f, f.ours, f.of.bytes)).c_str(), bound(f).c_str(), range(f.theirs).c_str(),
                  range(ratios(f.ours, f.theirs)).c_str());
    }
    if (!first_ours_.empty()) {
      std::printf("%-21s %-26s %-29s %-26s %s\n", "first token, s", range(first_ours_).c_str(), "",
                  range(first_theirs_).c_str(), range(ratios(first_ours_, first_theirs_)).c_str());
    }
    if (memory_ours_ > 0) {
      const samples ours{memory_ours_}, theirs(memory_theirs_ > 0 ? 1 : 0, memory_theirs_);
      std::printf("%-21s %-26.0f %-29s %-26s %s\n", "peak memory, MB", memory_ours_ / 1e6, "",
                  theirs.empty() ? "-" : std::to_string(static_cast<long>(memory_theirs_ / 1e6)).c_str(),
                  range(ratios(ours, theirs)).c_str());
    }
    if (disturbed_ >= 0.05)
      std::printf("other programs took up to %.0f %% of a core during a repetition\n", disturbed_ * 100);
  }

  static std::string array(const samples& values) {
    std::ostringstream out;
    out.precision(9);
    for (const double v : values) out << (out.tellp() > 0 ? "," : "[") << v;
    return values.empty() ? "[]" : out.str() + "]";
  }
  static std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) out += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
    return out + '"';
  }
  static std::string processor() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);) {
      if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
    }
    return "";
  }

  void write_json() const {
    std::ofstream out(a_.json);
    out.precision(9);
    out << "{\"model\":" << quoted(a_.model.substr(a_.model.rfind('/') + 1)) << ",\"format\":" << quoted(format_)
        << ",\"weights\":" << quoted(a_.weights) << ",\"processor\":" << quoted(processor())
        << ",\"threads\":" << (model_ ? exec().threads() : a_.threads) << ",\"peer\":" << quoted(a_.peer)
        << ",\"kind\":" << quoted(kind_) << ",\"disturbed\":" << disturbed_
        << ",\n \"first_token_seconds\":{\"ours\":" << array(first_ours_) << ",\"theirs\":" << array(first_theirs_)
        << "},\n \"peak_bytes\":{\"ours\":" << memory_ours_ << ",\"theirs\":" << memory_theirs_ << "},\n \"figures\":[";
    for (const figure& f : figures_) {
      out << (&f == figures_.data() ? "\n" : ",\n") << "  {\"name\":" << quoted(f.of.name)
          << ",\"tokens\":" << f.of.tokens << ",\"operations\":" << f.of.operations << ",\"bytes\":" << f.of.bytes
          << ",\"peer_bytes\":" << f.of.peer_bytes << ",\n   \"ours\":" << array(f.ours)
          << ",\n   \"theirs\":" << array(f.theirs) << ",\n   \"of_limit\":" << array(of_limit(f, f.ours, f.of.bytes))
          << ",\n   \"limits\":{\"read\":" << array(f.around.read) << ",\"f32\":" << array(f.around.f32)
          << ",\"bf16\":" << array(f.around.bf16) << ",\"int8\":" << array(f.around.int8) << "}}";
    }
    out << "\n ]}\n";
    if (!out.flush()) throw std::runtime_error(a_.json + ": can't be written");
  }

  arguments a_;
  std::unique_ptr<model> model_;
  std::vector<figure> figures_;
  samples first_ours_, first_theirs_;
  double memory_ours_ = 0, memory_theirs_ = 0;
  double disturbed_ = 0;
  double linear_ = 0, vocabulary_ = 0, attention_ = 0;  ///< multiply-adds a token
  double cache_bytes_ = 0, stored_bytes_ = 0;
  std::string format_, kind_;
  bool peer_failed_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    bench(parse(argc, argv)).run();
  } catch (const std::exception& e) {
    std::cerr << "bench_cpu: " << e.what() << std::endl;
    return 1;
  }
}
