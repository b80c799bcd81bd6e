#pragma once
// Byte strings with common beginnings stored once, laid out depth first: a subtree is a range of nodes, so a walk that follows what
// matches and jumps over what doesn't goes through memory in one direction.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// Strings and the token ids that belong to them. Immutable once built.
class byte_trie {
 public:
  struct node {
    std::uint32_t subtree_end;  // one past the last node below
    std::uint32_t first_token;  // its own tokens end where those of the next node begin
    std::uint16_t depth;        // bytes from the root: 1 and more
    std::uint8_t byte;          // the last of them
  };
  static constexpr std::size_t longest = 65'535;  ///< bytes of a string

  byte_trie() : nodes_{{1, 0, 0, 0}} {}
  /// Strings of 1 to `longest` bytes, in any order; equal ones may come with several ids. They need not outlive the trie.
  explicit byte_trie(std::vector<std::pair<std::string_view, int>> strings) {
    std::sort(strings.begin(), strings.end());
    std::vector<std::uint32_t> open;  // nodes of the path
    std::string_view path;
    const auto close_to = [&](std::size_t depth) {
      while (open.size() > depth) {
        nodes_[open.back()].subtree_end = static_cast<std::uint32_t>(nodes_.size());
        open.pop_back();
      }
    };
    for (const auto& [bytes, id] : strings) {
      std::size_t common = 0;
      while (common < path.size() && common < bytes.size() && path[common] == bytes[common]) ++common;
      close_to(common);
      for (std::size_t d = common; d < bytes.size(); ++d) {
        open.push_back(static_cast<std::uint32_t>(nodes_.size()));
        nodes_.push_back({0, static_cast<std::uint32_t>(tokens_.size()), static_cast<std::uint16_t>(d + 1),
                          static_cast<std::uint8_t>(bytes[d])});
      }
      path = bytes;
      tokens_.push_back(id);
    }
    close_to(0);
    nodes_.push_back({static_cast<std::uint32_t>(nodes_.size() + 1), static_cast<std::uint32_t>(tokens_.size()), 0, 0});
  }

  [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(nodes_.size() - 1); }
  [[nodiscard]] const node& at(std::uint32_t n) const { return nodes_[n]; }
  /// The ids of the string that ends at node n.
  [[nodiscard]] std::span<const int> tokens(std::uint32_t n) const { return token_range(n, n + 1); }
  /// The ids of all strings that go through node n.
  [[nodiscard]] std::span<const int> tokens_below(std::uint32_t n) const {
    return token_range(n, nodes_[n].subtree_end);
  }
  [[nodiscard]] std::size_t bytes() const { return nodes_.size() * sizeof(node) + tokens_.size() * sizeof(int); }

 private:
  [[nodiscard]] std::span<const int> token_range(std::uint32_t from, std::uint32_t to) const {
    return std::span(tokens_).subspan(nodes_[from].first_token, nodes_[to].first_token - nodes_[from].first_token);
  }

  std::vector<node> nodes_;  // and one behind the last
  std::vector<int> tokens_;  // by string
};

}  // namespace effinfer::inline v0::decoding::grammar
