// What constrained output costs a token, at a vocabulary of 128,256 tokens: the mask alone, and with the stores into the logits. The
// texts are given, so every row does the same work on every machine. `first`: right behind compiling, when masks of states are made as
// they are met; `later`: every pass behind the first, what a server sees. The published figure to stand beside is XGrammar's
// < 40 us a token for the mask (Dong et al. 2024, section 4.2).
//
// The vocabulary is made up, in the proportions of Llama-3's: all bytes, numbers of up to three digits, words with and without a space
// in front in three spellings, white space and punctuation as in source code, and words of two- and three-byte letters.

#include <effinfer/decoding/constrained.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace ei = effinfer;
namespace grammar = ei::decoding::grammar;

namespace {

using clock_type = std::chrono::steady_clock;
double microseconds(clock_type::time_point begin) {
  return std::chrono::duration<double, std::micro>(clock_type::now() - begin).count();
}

std::shared_ptr<const grammar::token_vocabulary> vocabulary() {
  constexpr std::size_t size = 128'256;
  std::vector<std::string> tokens;
  std::set<std::string> known;
  const auto add = [&](const std::string& text) {
    if (tokens.size() < size - 256 && known.insert(text).second) tokens.push_back(text);
  };
  for (int b = 0; b < 256; ++b) add(std::string(1, static_cast<char>(b)));
  for (int n = 0; n < 1000; ++n) {
    add(std::to_string(n));
    if (n < 100) add((n < 10 ? "00" : "0") + std::to_string(n));
    if (n < 10) add("0" + std::to_string(n));
  }
  for (std::size_t n = 1; n <= 128; ++n) add(std::string(n, ' ')), add("\n" + std::string(n, ' '));
  for (std::size_t n = 1; n <= 16; ++n)
    add(std::string(n, '\n')), add(std::string(n, '\t')), add("\n" + std::string(n, '\t'));
  // Runs of one to three of the marks of source code and prose, with a space in front too, and many runs of four.
  const std::string marks = "\"\\{}[]():;,./<>='-+*&|!?#$%@^_~`";
  for (const char a : marks) {
    for (const char b : marks) {
      add({a, b});
      add({' ', a, b});
      add({a, b, '\n'});
      for (const char c : std::string("\"\\{}[](),:;")) add({a, b, c});
    }
  }
  for (const char* text : {"\":\"", "\",\"", "\"},{\"", "\":{\"", "\":[", "\"]}", "\": \"", "\", \"", "\"},\n", "\"}}",
                           "\":[{\"", "']['", "\">\n"})
    add(text);
  const std::vector<std::string> onsets{"",  "b", "br", "c",  "ch", "d", "f",  "g", "gr", "h", "l",
                                        "m", "n", "p",  "pr", "r",  "s", "st", "t", "tr", "v", "w"};
  const std::vector<std::string> rimes{"a",  "al",  "an",  "at", "e", "ed", "en", "er",  "es", "i", "ic",
                                       "in", "ing", "ion", "is", "o", "on", "or", "ous", "u",  "y"};
  const ei::random_stream random{3};
  const auto pick = [&](std::uint64_t i, std::uint64_t draw, std::size_t count) {
    return static_cast<std::size_t>(random.uniform(i, static_cast<std::uint32_t>(draw)) * static_cast<float>(count));
  };
  for (std::uint64_t i = 0; tokens.size() < 90'000; ++i) {
    std::string word;
    const std::size_t syllables = 1 + pick(i, 0, 4);
    for (std::size_t s = 0; s < syllables; ++s) {
      word += onsets[pick(i, 1 + 2 * s, onsets.size())] + rimes[pick(i, 2 + 2 * s, rimes.size())];
    }
    add(word);
    add(" " + word);
    std::string capital = word;
    capital[0] = static_cast<char>(capital[0] - 'a' + 'A');
    add(capital);
    add(" " + capital);
    if (i % 16 == 0)
      add("." + word), add("_" + word), add("\"" + word), add(word + "\""), add("(" + word), add("/" + word);
  }
  for (std::uint64_t i = 0; tokens.size() < size - 256; ++i) {  // Cyrillic, and Han
    std::string word = pick(i, 20, 2) == 0 ? " " : "";
    const bool is_han = pick(i, 21, 2) == 0;
    const std::size_t letters = 1 + pick(i, 22, is_han ? 3 : 6);
    for (std::size_t l = 0; l < letters; ++l) {
      ei::text::append_utf8(
          word, static_cast<char32_t>(is_han ? 0x4E00 + pick(i, 23 + l, 6000) : 0x430 + pick(i, 23 + l, 32)));
    }
    add(word);
  }
  tokens.resize(size);  // special tokens
  return std::make_shared<const grammar::token_vocabulary>(tokens, std::vector<int>{static_cast<int>(size) - 255});
}

/// The longest token each time: about what a tokenizer makes of a text.
std::vector<int> tokenized(const grammar::token_vocabulary& v, std::string_view text) {
  std::vector<int> ids;
  const grammar::byte_trie& trie = v.trie();
  while (!text.empty()) {
    int longest = -1;
    std::size_t depth = 0, length = 0;
    for (std::uint32_t n = 0, end = trie.size(); n < end && depth < text.size();) {
      if (trie.at(n).byte != static_cast<std::uint8_t>(text[depth])) {
        n = trie.at(n).subtree_end;
        continue;
      }
      ++depth;
      if (!trie.tokens(n).empty()) longest = trie.tokens(n)[0], length = depth;
      end = trie.at(n).subtree_end;
      ++n;
    }
    ids.push_back(longest);
    text.remove_prefix(length);
  }
  return ids;
}

double at_share(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())))];
}

struct task {
  const char* name;
  grammar::rule_set rules;
  std::string text;
};

std::vector<task> tasks() {
  constexpr const char* record =
      R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0},
    "email":{"type":"string"},"address":{"type":"object","properties":{"street":{"type":"string"},"city":{"type":"string"},
    "zip":{"type":"string"}},"required":["street","city"],"additionalProperties":false},"tags":{"type":"array","items":{"type":"string"}}},
    "required":["name","age"],"additionalProperties":false})";
  constexpr const char* record_text =
      R"({"name":"Maria Prediction","age":41,"email":"maria.prediction@example.com","address":{"street":"12 Grand Station Road","city":"Stanton","zip":"90210"},"tags":["promoter","traveling person","историк"]})";
  constexpr const char* call = R"({"oneOf":[
    {"type":"object","properties":{"tool":{"const":"search"},"arguments":{"type":"object","properties":{"query":{"type":"string","minLength":1,"maxLength":200},
      "limit":{"type":"integer","minimum":1,"maximum":50},"order":{"enum":["newest","oldest","relevance"]}},"required":["query"],"additionalProperties":false}},
      "required":["tool","arguments"],"additionalProperties":false},
    {"type":"object","properties":{"tool":{"const":"book"},"arguments":{"type":"object","properties":{"id":{"type":"string","format":"uuid"},
      "when":{"type":"string","format":"date-time"},"email":{"type":"string","format":"email"},"code":{"type":"string","pattern":"^[A-Z]{3}-[0-9]{4,6}$"}},
      "required":["id","when"],"additionalProperties":false}},"required":["tool","arguments"],"additionalProperties":false}]})";
  constexpr const char* call_text =
      R"({"tool":"search","arguments":{"query":"station to station in the morning, with a transfer or two and no stations in the center","limit":25,"order":"relevance"}})";
  constexpr const char* book_text =
      R"({"tool":"book","arguments":{"id":"0f8fad5b-d9cb-469f-a165-70867728950e","when":"2026-03-14T09:26:53Z","email":"maria@example.com","code":"ABC-12345"}})";
  constexpr const char* tree =
      R"({"$defs":{"node":{"type":"object","properties":{"label":{"type":"string"},"weight":{"type":"number"},
    "children":{"type":"array","items":{"$ref":"#/$defs/node"}}},"required":["label","children"],"additionalProperties":false}},"$ref":"#/$defs/node"})";
  constexpr const char* tree_text =
      R"({"label":"root","weight":1.25,"children":[{"label":"left and on","children":[]},{"label":"right","weight":-0.5,"children":[{"label":"a \"quoted\" leaf\n","children":[]},{"label":"лист","children":[]}]}]})";
  constexpr const char* any_text =
      R"({"list":[1,2.5e3,null,true,"text with words in it"],"map":{"a":{"b":{"c":[[],[[]],{}]}}},"words":"an interest in all stations, and so on and on"})";
  constexpr const char* json = R"(root ::= value
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= "-"? ([0-9] | [1-9] [0-9]{0,15}) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
)";
  return {{"schema: record", grammar::read_json_schema(record), record_text},
          {"schema: tool call, search", grammar::read_json_schema(call), call_text},
          {"schema: tool call, booking", grammar::read_json_schema(call), book_text},
          {"schema: recursive tree", grammar::read_json_schema(tree), tree_text},
          {"schema: any JSON", grammar::read_json_schema("true"), any_text},
          {"GBNF: llama.cpp's json", grammar::read_gbnf(json), any_text},
          {"regex: list of dates", grammar::read_regular_expression(R"((?:(?:19|20)\d\d-\d\d-\d\d[, ]*)+)"),
           "2026-03-14, 2026-03-15, 1999-12-31 2000-01-01"}};
}

}  // namespace

int main() {
  const auto v = vocabulary();
  std::printf("%zu tokens, %u nodes of the trie\n\n", v->size(), v->trie().size());
  std::printf("%-28s %7s %7s %9s | %-23s | %-23s | %-16s | %7s %6s\n", "", "", "compile", "masks", "mask, first: us",
              "mask, later: us", "+ logits: us", "advance", "forced");
  std::printf("%-28s %7s %7s %9s | %7s %7s %7s | %7s %7s %7s | %7s %8s | %7s %6s\n", "", "tokens", "ms", "KiB",
              "median", "99 %", "most", "median", "99 %", "most", "median", "99 %", "us", "share");
  std::vector<float> logits(v->size()), row(v->size());
  for (const task& t : tasks()) {
    const auto start = clock_type::now();
    const auto compiled = std::make_shared<const grammar::compiled_grammar>(t.rules, v);
    const double compile = microseconds(start) / 1000;
    std::vector<int> ids = tokenized(*v, t.text);
    ids.push_back(v->end_tokens()[0]);
    std::vector<double> first, later, with_logits, advance;
    std::size_t forced = 0;
    std::vector<grammar::mask_word> mask(grammar::mask_words(v->size()));
    for (int pass = 0; pass < 101; ++pass) {
      grammar::matcher m(compiled);
      for (const int id : ids) {
        row = logits;
        const auto begin = clock_type::now();
        m.allowed(mask);
        const double took = microseconds(begin);
        grammar::apply_mask(row, mask);
        const double took_all = microseconds(begin);
        (pass == 0 ? first : later).push_back(took);
        if (pass > 0) with_logits.push_back(took_all);
        if (pass == 1 && !m.forced_text(1).empty()) ++forced;
        const auto moved = clock_type::now();
        if (!m.advance(id)) {
          std::printf("%s: the text breaks the grammar at %s\n", t.name, std::string(v->bytes(id)).c_str());
          return 1;
        }
        if (pass > 0) advance.push_back(microseconds(moved));
      }
    }
    std::printf("%-28s %7zu %7.2f %9.0f | %7.1f %7.0f %7.0f | %7.2f %7.2f %7.1f | %7.1f %8.1f | %7.2f %5.0f%%\n",
                t.name, ids.size(), compile, static_cast<double>(compiled->mask_bytes()) / 1024, at_share(first, 0.5),
                at_share(first, 0.99), at_share(first, 1), at_share(later, 0.5), at_share(later, 0.99),
                at_share(later, 1), at_share(with_logits, 0.5), at_share(with_logits, 0.99), at_share(advance, 0.5),
                100.0 * static_cast<double>(forced) / static_cast<double>(ids.size()));
  }
}
