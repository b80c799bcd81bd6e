#pragma once
// What a measurement of a model gives: samples of us, of a peer, and of the machine's limits, as a table and as JSON.

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace model_report {

using samples = std::vector<double>;

inline double median(samples values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/// "142.1 [140.2 - 143.0]", in `unit`.
inline std::string range(const samples& values, double unit = 1.0) {
  if (values.empty()) return "-";
  const auto [least, greatest] = std::minmax_element(values.begin(), values.end());
  const double m = median(values) / unit;
  const int digits = m < 10 ? 2 : m < 1000 ? 1 : 0;
  std::array<char, 96> text{};
  std::snprintf(text.data(), text.size(), "%.*f [%.*f - %.*f]", digits, m, digits, *least / unit, digits,
                *greatest / unit);
  return text.data();
}

/// a[i] / b[i], as far as both go: the two of one repetition were taken one after the other.
inline samples ratios(const samples& a, const samples& b) {
  samples r;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) r.push_back(a[i] / b[i]);
  return r;
}

/// The machine's, one measurement a repetition.
struct limits {
  samples read, f32, bf16, int8;  ///< bytes or operations a second

  [[nodiscard]] const samples& peak(const std::string& kind) const {
    return kind == "int8" ? int8 : kind == "bf16" ? bf16 : f32;
  }
  void append(const limits& more) {
    for (const auto part : {&limits::read, &limits::f32, &limits::bf16, &limits::int8})
      (this->*part).insert((this->*part).end(), (more.*part).begin(), (more.*part).end());
  }
};

/// What is known of one kind of work beforehand.
struct work {
  std::string name;
  double tokens = 0;      ///< of one repetition, as all of these
  double operations = 0;  ///< two a multiply-add
  double bytes = 0;       ///< that have to be read
  double peer_bytes = 0;  ///< by one that computes with the weights as stored
};

struct figure {
  work of;
  samples ours = {}, theirs = {};  ///< tokens a second
  limits around = {};
};

struct report {
  std::string model, format, weights, peer, instruction_set;
  std::string kind;  ///< "f32", "bf16" or "int8": what the weights' format computes in, if the machine can
  int threads = 0;
  std::vector<figure> figures;
  samples first_ours, first_theirs;    ///< seconds to the first token, weights packed at each start
  samples packing_start, second_ours;  ///< the same, of a start that also writes the packed weights, and of later ones
  samples memory_ours, memory_theirs;  ///< bytes
  double disturbed = 0;                ///< the most of a core that other programs took meanwhile

  /// The least time that the machine needs for the bytes or the operations, whichever is more, over the time taken.
  [[nodiscard]] samples of_limit(const figure& f) const {
    samples shares;
    for (std::size_t i = 0; i < f.ours.size(); ++i) {
      const double least = std::max(f.of.bytes / f.around.read[i], f.of.operations / f.around.peak(kind)[i]);
      shares.push_back(least / (f.of.tokens / f.ours[i]));
    }
    return shares;
  }
  /// Which of the two is more.
  [[nodiscard]] std::string limited_by(const figure& f) const {
    const double reading = f.of.bytes / median(f.around.read);
    return reading > f.of.operations / median(f.around.peak(kind)) ? "read" : kind;
  }

  void print() const {
    limits all;
    std::size_t repetitions = first_ours.size();
    for (const figure& f : figures) {
      all.append(f.around);
      repetitions = f.ours.size();
    }
    std::printf("%s, %s weights, %d threads, %s; %zu repetitions, median [least - greatest]\n", model.c_str(),
                format.c_str(), threads, instruction_set.c_str(), repetitions);
    if (!figures.empty()) {
      std::printf("limits: read %s GB/s; f32 %s, bf16 %s, int8 %s GFLOP/s\n", range(all.read, 1e9).c_str(),
                  range(all.f32, 1e9).c_str(), range(all.bf16, 1e9).c_str(), range(all.int8, 1e9).c_str());
    }
    std::printf("%-22s %-23s %-26s %-23s %s\n", "", "effinfer", "of limit", peer.c_str(), "effinfer / it");
    for (const figure& f : figures) {
      line(f.of.name + ", tokens/s", f.ours, range(of_limit(f)) + " " + limited_by(f), f.theirs);
    }
    if (!first_ours.empty()) {
      line("first token, s", first_ours, "", first_theirs);
      line("  packed cache made", packing_start, "", {});
      line("  second start", second_ours, "", first_theirs);
    }
    if (!memory_ours.empty()) line("peak memory, MB", memory_ours, "", memory_theirs, 1e6);
    if (disturbed > 0.05)
      std::printf("other programs took up to %.0f %% of a core during a measurement\n", disturbed * 100);
  }

  void write_json(const std::string& path) const {
    std::ofstream out(path);
    out.precision(9);
    out << "{\"model\":" << quoted(model) << ",\"format\":" << quoted(format) << ",\"weights\":" << quoted(weights)
        << ",\"processor\":" << quoted(processor()) << ",\"instruction_set\":" << quoted(instruction_set)
        << ",\"threads\":" << threads << ",\"peer\":" << quoted(peer) << ",\"kind\":" << quoted(kind)
        << ",\"disturbed\":" << disturbed << ",\n \"first_token_seconds\":{\"ours\":" << array(first_ours)
        << ",\"theirs\":" << array(first_theirs) << ",\"packing\":" << array(packing_start)
        << ",\"second\":" << array(second_ours) << "},\n \"peak_bytes\":{\"ours\":" << array(memory_ours)
        << ",\"theirs\":" << array(memory_theirs) << "},\n \"figures\":[";
    for (const figure& f : figures) {
      out << (&f == figures.data() ? "\n" : ",\n") << "  {\"name\":" << quoted(f.of.name)
          << ",\"tokens\":" << f.of.tokens << ",\"operations\":" << f.of.operations << ",\"bytes\":" << f.of.bytes
          << ",\"peer_bytes\":" << f.of.peer_bytes << ",\n   \"ours\":" << array(f.ours)
          << ",\"theirs\":" << array(f.theirs) << ",\n   \"of_limit\":" << array(of_limit(f))
          << ",\n   \"limits\":{\"read\":" << array(f.around.read) << ",\"f32\":" << array(f.around.f32)
          << ",\n   \"bf16\":" << array(f.around.bf16) << ",\"int8\":" << array(f.around.int8) << "}}";
    }
    out << "\n ]}\n";
    if (!out.flush()) throw std::runtime_error(path + ": can't be written");
  }

 private:
  static void line(const std::string& what, const samples& ours, const std::string& limit, const samples& theirs,
                   double unit = 1.0) {
    std::printf("%-22s %-23s %-26s %-23s %s\n", what.c_str(), range(ours, unit).c_str(), limit.c_str(),
                range(theirs, unit).c_str(), range(ratios(ours, theirs)).c_str());
  }

  static std::string array(const samples& values) {
    std::ostringstream out;
    out.precision(9);
    out << '[';
    for (std::size_t i = 0; i < values.size(); ++i) out << (i == 0 ? "" : ",") << values[i];
    out << ']';
    return out.str();
  }
  static std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    return out + '"';
  }
  static std::string processor() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string text; std::getline(info, text);) {
      if (text.rfind("model name", 0) == 0) return text.substr(text.find(':') + 2);
    }
    return "";
  }
};

}  // namespace model_report
