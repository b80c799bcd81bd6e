#pragma once
// Texts of former times for a drafter to look into: a suffix automaton over all of them, that knows how often what followed.
// Source: He et al., "REST: Retrieval-Based Speculative Decoding" (2023); as an automaton: Hu et al., "SAM Decoding" (2024).

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/token_automaton.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding {

/// Constant once made, so that any number of generations may share it. Memory: some 150 bytes a token.
///
/// The file holds the tokens only, little-endian 32-bit words: "EFT1", how many follow, the tokens with -1 behind each text,
/// and an FNV-1a sum of all words before. The automaton is built again at load, so no file can make a wrong one.
class output_store {
 public:
  static constexpr int separator = -1;
  static constexpr std::size_t most_tokens = std::size_t{1} << 28;

  output_store() = default;
  /// Errors: `invalid_argument` (a negative token), `limit` (more than 2^28 tokens).
  explicit output_store(std::span<const std::vector<int>> texts) {
    std::vector<int> all;
    for (const std::vector<int>& text : texts) {
      for (const int token : text) {
        if (token < 0)
          throw error(error_code::invalid_argument, "decoding::output_store", std::to_string(token) + " is no token");
      }
      all.insert(all.end(), text.begin(), text.end());
      all.push_back(separator);
    }
    if (all.size() > most_tokens) {
      throw error(error_code::limit, "decoding::output_store",
                  std::to_string(all.size()) + " tokens are more than " + std::to_string(most_tokens));
    }
    build(std::move(all));
  }

  /// How many tokens it holds, one more for each text.
  [[nodiscard]] std::size_t size() const { return tokens_.size(); }
  [[nodiscard]] const token_automaton& automaton() const { return automaton_; }
  /// At how many places the substrings of a state end.
  [[nodiscard]] int occurrences(int state) const { return counts_[static_cast<std::size_t>(state)]; }
  /// The token that most often follows in `state`, which becomes the state behind it; `separator` where none does. Of equals the
  /// lowest. `share`: how often, of the times that state came up.
  int follow(int& state, float& share) const {
    int best = separator, most = 0, to = state;
    for (int e = automaton_.states()[static_cast<std::size_t>(state)].first_edge; e != token_automaton::none;) {
      const token_automaton::edge& one = automaton_.edges()[static_cast<std::size_t>(e)];
      const int count = occurrences(one.target);
      if (one.token != separator && (count > most || (count == most && one.token < best)))
        best = one.token, most = count, to = one.target;
      e = one.next;
    }
    share = static_cast<float>(most) / static_cast<float>(std::max(occurrences(state), 1));
    state = to;
    return best;
  }

  /// Errors: `io`.
  void save(const std::string& path) const {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    std::uint32_t sum = fnv_start;
    const auto put = [&](std::uint32_t word) {
      sum = (sum ^ word) * fnv_prime;
      for (int byte = 0; byte < 4; ++byte) file.put(static_cast<char>((word >> (8 * byte)) & 255U));
    };
    put(magic);
    put(static_cast<std::uint32_t>(tokens_.size()));
    for (const int token : tokens_) put(static_cast<std::uint32_t>(token));
    put(sum);
    file.flush();
    if (!file) throw error(error_code::io, path, "can't be written");
  }

  /// Errors: `io` (can't be read), `malformed` (another file, cut short or longer than it says, a wrong sum, a token below -1 or
  /// a text that doesn't end), `limit` (more than 2^28 tokens).
  static output_store load(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw error(error_code::io, path, "can't be opened");
    std::uint32_t sum = fnv_start;
    const auto get = [&](const char* what) {
      std::array<char, 4> bytes{};
      if (!file.read(bytes.data(), 4)) {
        throw error(file.bad() ? error_code::io : error_code::malformed, path,
                    std::string("the file ends inside ") + what);
      }
      std::uint32_t word = 0;
      for (std::size_t byte = 0; byte < 4; ++byte)
        word |= std::uint32_t{static_cast<unsigned char>(bytes[byte])} << (8 * byte);
      sum = (sum ^ word) * fnv_prime;
      return word;
    };
    if (get("its header") != magic) throw error(error_code::malformed, path, "this is no output_store");
    const std::uint32_t count = get("its header");
    if (count > most_tokens) {
      throw error(error_code::limit, path,
                  "it says " + std::to_string(count) + " tokens, more than " + std::to_string(most_tokens));
    }
    std::vector<int> tokens;  // grows as they come: a header alone can't ask for memory
    for (std::uint32_t i = 0; i < count; ++i) {
      const int token = static_cast<int>(get("its tokens"));
      if (token < separator)
        throw error(error_code::malformed, path,
                    "entry " + std::to_string(i) + " is no token: " + std::to_string(token));
      tokens.push_back(token);
    }
    const std::uint32_t expected = sum;
    if (get("its sum") != expected) throw error(error_code::malformed, path, "its sum is wrong: the file is damaged");
    if (file.peek() != std::ifstream::traits_type::eof())
      throw error(error_code::malformed, path, "there is more behind its end");
    if (!tokens.empty() && tokens.back() != separator)
      throw error(error_code::malformed, path, "its last text doesn't end");
    output_store store;
    store.build(std::move(tokens));
    return store;
  }

 private:
  static constexpr std::uint32_t magic = 0x31544645;  // "EFT1"
  static constexpr std::uint32_t fnv_start = 2166136261U, fnv_prime = 16777619U;

  void build(std::vector<int> tokens) {
    tokens_ = std::move(tokens);
    for (const int token : tokens_) automaton_.push_back(token);
    // The states that no split made end once more than those that link to them; longer states come first.
    const auto& states = automaton_.states();
    counts_.assign(states.size(), 0);
    int state = 0;
    for (const int token : tokens_) counts_[static_cast<std::size_t>(state = automaton_.next(state, token))] = 1;
    std::vector<int> order(states.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int a, int b) {
      return states[static_cast<std::size_t>(a)].length > states[static_cast<std::size_t>(b)].length;
    });
    for (const int s : order) {
      const int link = states[static_cast<std::size_t>(s)].link;
      if (link >= 0) counts_[static_cast<std::size_t>(link)] += counts_[static_cast<std::size_t>(s)];
    }
  }

  token_automaton automaton_;
  std::vector<int> tokens_;
  std::vector<int> counts_ = {0};
};

}  // namespace effinfer::inline v0::decoding
