// Patterns in Oniguruma's syntax on PCRE2.

#include <effinfer/text/regex.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace regex_tests {

namespace text = effinfer::text;

namespace {

std::vector<std::string> pieces(const std::string& pattern, const std::string& subject) {
  const text::regex compiled(pattern, "test");
  std::vector<std::string> out;
  text::regex_search(compiled).for_each(subject, [&](text::text_range range, bool is_match) {
    out.push_back((is_match ? "=" : "") + subject.substr(range.begin, range.end - range.begin));
  });
  return out;
}

using list = std::vector<std::string>;

effinfer::error_code refusal(const std::string& pattern) {
  try {
    text::regex(pattern, "file.json: field a.b");
  } catch (const effinfer::error& e) {
    CHECK(e.where() == "file.json: field a.b");
    return e.code();
  }
  FAIL("the pattern was taken: ", pattern);
  return {};
}

}  // namespace

TEST_CASE("GPT-2's pattern") {
  const std::string gpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  CHECK(pieces(gpt2, "It's 12  ok!") == list{"=It", "='s", "= 12", "= ", "= ok", "=!"});
  CHECK(pieces(gpt2, "a\n\nb") == list{"=a", "=\n", "=\n", "=b"});
  CHECK(pieces(gpt2, "").empty());
}

TEST_CASE("where Oniguruma and PCRE2 differ, Oniguruma's meaning holds") {
  CHECK(pieces(R"(\s)", "a\u180Eb") == list{"a\u180Eb"});
  CHECK(pieces(R"([\s])", "a\u0085b") == list{"a", "=\u0085", "b"});
  CHECK(pieces(R"(\S+)", "a\u180E b") == list{"=a\u180E", " ", "=b"});
  CHECK(pieces(R"(\w+)", "a\u0301_\u203F1\u00B2") == list{"=a\u0301_\u203F1", "\u00B2"});
  CHECK(pieces(R"([^\w]+)", "a\u0301 b") == list{"a\u0301", "= ", "b"});
  CHECK(pieces(R"(\h+)", "xfa0\t") == list{"x", "=fa0", "\t"});
  CHECK(pieces(R"(\v)", "a\nb\x0B") == list{"a\nb", "=\x0B"});
  CHECK(pieces(R"(\p{N}{1,2}+)", "12345") == list{"=12345"});
  CHECK(pieces(R"((?:ab){1,2}+)", "ababab") == list{"=ababab"});
  CHECK(pieces(R"(a{2}?b)", "b aab") == list{"=b", " ", "=aab"});
  CHECK(pieces(R"(a{,2}b)", "aaab") == list{"a", "=aab"});
  CHECK(pieces(R"(a{x})", "a{x}") == list{"=a{x}"});
  CHECK(pieces(R"(\p{^L}+)", "ab12") == list{"ab", "=12"});
  CHECK(pieces(R"(\p{Letter}+)", "1b2") == list{"1", "=b", "2"});
  CHECK(pieces(R"(\p{Han}+)", "a\u3001\u4E00") == list{"a\u3001", "=\u4E00"});  // U+3001 is Han by extension only
  CHECK(pieces(R"(^b$)", "a\nb\nc") == list{"a\n", "=b", "\nc"});
  CHECK(pieces(R"(a.b)", "a\rb a\nb") == list{"=a\rb", " a\nb"});
  CHECK(pieces(R"((?m:a.b))", "a\nb") == list{"=a\nb"});
  CHECK(pieces(R"(\bx\b)", "x x\u0301 x") == list{"=x", " x\u0301 ", "=x"});
  CHECK(pieces(R"(\u0061)", "ba") == list{"b", "=a"});
  CHECK(pieces(R"((?i:'s))", "'S'\u017F") == list{"='S", "='\u017F"});
  CHECK(pieces(R"([\[\]\-a])", "[-]b") == list{"=[", "=-", "=]", "b"});
  CHECK(pieces(R"([]x]+)", "]x[") == list{"=]x", "["});
  CHECK(pieces(R"([[:alpha:]]+)", "1\u00E9a") == list{"1", "=\u00E9a"});
}

TEST_CASE("empty matches move on") {
  CHECK(pieces("x*", "axb") == list{"=", "a", "=x", "b", "="});
  CHECK(pieces("", "\u00E9!") == list{"=", "\u00E9", "=", "!", "="});
}

TEST_CASE("what can't be kept exactly is refused by name") {
  for (const char* pattern :
       {"[a[b]]", "[a&&b]", R"([\W])", "(?R)", "(?C1)", "(*UTF)a", "(?x) a", R"(\xE9)", R"(\Qa\E)", "(a", "a)", "[a",
        "\\", R"(\p{Nonsense})", "(?<n", "{1,2}", "**", R"(\p{L)"}) {
    CAPTURE(pattern);
    CHECK(refusal(pattern) == effinfer::error_code::unsupported);
  }
  CHECK(refusal("a\xFF") == effinfer::error_code::malformed);
  CHECK(refusal(std::string(40000, 'a')) == effinfer::error_code::limit);
  CHECK(refusal(std::string(300, '(') + std::string(300, ')')) == effinfer::error_code::unsupported);
}

TEST_CASE("a run of half a million characters is no matter, and a pattern that tries everything ends in an error") {
  const std::string llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  for (const char c : {'a', ' ', '\n', '!'}) {
    const std::string run(512 * 1024, c);
    CHECK(pieces(llama3, run) == list{"=" + run});
  }
  const std::string grouped = std::string(512 * 1024, 'a') + "1";
  CHECK(pieces("((?=[a-z])([^A-Z]))+", grouped).size() == 2);  // needs more stack than the compiled code's first 32 KiB
  try {
    pieces("(a|aa)+$", std::string(60, 'a') + "b");
    FAIL("this can't be matched in any reasonable number of steps");
  } catch (const effinfer::error& e) {
    CHECK(e.code() == effinfer::error_code::limit);
  }
}

}  // namespace regex_tests
