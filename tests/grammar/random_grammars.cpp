// Random grammars over two letters: every short text against a recognizer that tries all ways, and masks against trying each token.

#include "walk.hpp"

#include <effinfer/decoding/grammar/gbnf.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace random_grammars_tests {

using namespace grammar_tests;

namespace {

/// An expression and its notation.
struct node {
  enum { letters, sequence, choice, repeat, rule } kind = letters;
  std::string text;  // of letters
  std::vector<node> children;
  int fewest = 0, most = 0, number = 0;

  [[nodiscard]] std::string notation() const {
    std::string out;
    switch (kind) {
      case letters: return '"' + text + '"';
      case rule: return "r" + std::to_string(number);
      case repeat:
        return "(" + children[0].notation() + "){" + std::to_string(fewest) + "," +
               (most < 0 ? "" : std::to_string(most)) + "}";
      case sequence:
      case choice:
        for (const node& c : children) out += (out.empty() ? "(" : kind == choice ? " | " : " ") + c.notation();
        return out + ")";
    }
    return out;
  }
};

class maker {
 public:
  explicit maker(std::uint64_t seed) : random_{seed} {}
  std::vector<node> rules() {
    count_ = 1 + below(4);
    std::vector<node> all;
    for (int i = 0; i < count_; ++i) all.push_back(expression(3));
    return all;
  }

 private:
  int below(int n) { return static_cast<int>(random_.uniform(++draws_, 0) * static_cast<float>(n)); }
  node expression(int depth) {
    node n;
    const int what = depth == 0 ? below(2) : below(7);
    if (what == 0) {
      n.text = std::vector<const char*>{"", "a", "b", "ab", "ba"}[static_cast<std::size_t>(below(5))];
    } else if (what == 1) {
      n.kind = below(2) == 0 ? node::rule : node::letters;
      n.number = below(count_);
      n.text = below(2) == 0 ? "a" : "b";
    } else if (what == 2) {
      n.kind = node::repeat;
      n.fewest = below(3);
      n.most = below(2) == 0 ? -1 : n.fewest + below(3);
      n.children = {expression(depth - 1)};
    } else {
      n.kind = what < 5 ? node::sequence : node::choice;
      for (int i = 1 + below(3); i > 0; --i) n.children.push_back(expression(depth - 1));
    }
    return n;
  }
  ei::random_stream random_;
  std::uint64_t draws_ = 0;
  int count_ = 1;
};

/// Where in `text` a match that begins at `from` may end. Ends only for grammars without left recursion.
std::set<std::size_t> ends(const std::vector<node>& rules, const node& n, std::string_view text, std::size_t from) {
  std::set<std::size_t> out;
  switch (n.kind) {
    case node::letters:
      if (text.substr(from).starts_with(n.text)) out.insert(from + n.text.size());
      return out;
    case node::rule: return ends(rules, rules[static_cast<std::size_t>(n.number)], text, from);
    case node::choice:
      for (const node& c : n.children) out.merge(ends(rules, c, text, from));
      return out;
    case node::sequence:
      out = {from};
      for (const node& c : n.children) {
        std::set<std::size_t> next;
        for (const std::size_t at : out) next.merge(ends(rules, c, text, at));
        out = next;
      }
      return out;
    case node::repeat: {
      std::set<std::size_t> now{from};
      const int rounds = n.most >= 0 ? n.most : n.fewest + static_cast<int>(text.size()) + 1;
      for (int i = 0; i <= rounds && !now.empty(); ++i) {
        if (i >= n.fewest) out.insert(now.begin(), now.end());
        std::set<std::size_t> next;
        if (i < rounds) {
          for (const std::size_t at : now) next.merge(ends(rules, n.children[0], text, at));
        }
        now = next;
      }
      return out;
    }
  }
  return out;
}

vocabulary_pointer letters() {
  std::vector<std::string> tokens;
  for (int length = 1; length <= 4; ++length) {
    for (int bits = 0; bits < 1 << length; ++bits) {
      std::string& t = tokens.emplace_back();
      for (int i = 0; i < length; ++i) t += (bits >> i & 1) ? 'a' : 'b';
    }
  }
  tokens.emplace_back();
  return std::make_shared<const grammar::token_vocabulary>(tokens,
                                                           std::vector<int>{static_cast<int>(tokens.size()) - 1});
}

}  // namespace

TEST_CASE("random grammars: every text of up to 7 letters, and the mask at every beginning") {
  const auto vocabulary = letters();
  std::vector<std::string> texts{""};
  for (std::size_t i = 0; texts[i].size() < 7; ++i) texts.push_back(texts[i] + "a"), texts.push_back(texts[i] + "b");
  int compiled = 0, left_recursive = 0, endless = 0;
  std::size_t taken = 0, refused = 0;
  for (std::uint64_t seed = 0; seed < 600; ++seed) {
    const std::vector<node> rules = maker(seed).rules();
    std::string notation = "root ::= r0\n";
    for (std::size_t i = 0; i < rules.size(); ++i)
      notation += "r" + std::to_string(i) + " ::= " + rules[i].notation() + "\n";
    compiled_pointer g;
    try {
      g = compile(grammar::read_gbnf(notation), vocabulary);
    } catch (const ei::error& e) {
      CHECK(e.code() == ei::error_code::malformed);
      const bool is_left = std::string_view(e.what()).find("left recursion") != std::string_view::npos;
      ++(is_left ? left_recursive : endless);
      continue;
    }
    ++compiled;
    for (const std::string& text : texts) {
      const bool expected = ends(rules, rules[0], text, 0).contains(text.size());
      ++(expected ? taken : refused);
      CHECK_MESSAGE(matches(g, text) == expected, notation, "on ", text);
    }
    std::vector<grammar::mask_word> mask(grammar::mask_words(vocabulary->size()));
    for (const std::string& text : texts) {
      grammar::matcher m(g);
      if (text.size() > 4 || !(text.empty() || m.advance_text(text))) continue;
      const bool any = m.allowed(mask);
      CHECK(any == !ids_of(mask).empty());
      const std::size_t before = m.tokens();
      for (int id = 0; id < static_cast<int>(vocabulary->size()); ++id) {
        const bool allowed = (mask[static_cast<std::size_t>(id) / 64] >> (id % 64) & 1) != 0;
        grammar::matcher one = m;
        bool by_bytes = vocabulary->is_end(id) ? m.may_end() : true;
        for (const char c : vocabulary->bytes(id)) by_bytes = by_bytes && one.advance_text({&c, 1});
        if (by_bytes != allowed) CHECK_MESSAGE(by_bytes == allowed, notation, "token ", id, " behind ", text);
        CHECK(m.tokens() == before);
      }
    }
  }
  MESSAGE(compiled, " grammars, ", left_recursive, " left recursive, ", endless, " without texts; ", taken,
          " texts taken, ", refused, " refused");
  CHECK(compiled > 200);
  CHECK(left_recursive > 20);
  CHECK(taken > 2000);
}

}  // namespace random_grammars_tests
