// What check_json_schema.py asks: lines of JSON on standard input, an answer a line on standard output.
//   {"schema": S, "seeds": [first, count]}  -> the texts that a random choice among the allowed tokens of the shipped vocabulary writes
//   {"schema": S, "documents": ["text", ..]}  -> whether the grammar takes each
// S is a schema as text. Answers: {"texts": [..]}, {"taken": [..]}, {"error": "code: message"}; a text that has not ended is null.

#include "../grammar/walk.hpp"

#include <effinfer/decoding/grammar/json_schema.hpp>

#include <iostream>
#include <string>

using namespace grammar_tests;

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const ei::json::document question(line, "question");
    std::string answer;
    try {
      const compiled_pointer g = compile(grammar::read_json_schema(question.root().at("schema").string()));
      if (const auto seeds = question.root().find("seeds")) {
        const auto first = static_cast<std::uint64_t>((*seeds)[0].integer());
        for (std::int64_t i = 0; i < (*seeds)[1].integer(); ++i) {
          bool ended = false;
          const std::string text = random_text(g, first + static_cast<std::uint64_t>(i), 40, ended);
          answer += (answer.empty() ? "" : ",") + (ended ? grammar::json_values::quoted(text) : "null");
        }
        answer = "{\"texts\":[" + answer + "]}";
      } else {
        for (const ei::json::value& text : question.root().at("documents").elements()) {
          answer += (answer.empty() ? "" : ",") + std::string(matches(g, text.string()) ? "true" : "false");
        }
        answer = "{\"taken\":[" + answer + "]}";
      }
    } catch (const ei::error& e) {
      answer = "{\"error\":" + grammar::json_values::quoted(e.what()) +
               ",\"unsupported\":" + (e.code() == ei::error_code::unsupported ? "true}" : "false}");
    }
    std::cout << answer << std::endl;
  }
}
