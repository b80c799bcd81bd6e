#pragma once
// The kinds of grammars, each compiled for one vocabulary: what `constrained<Grammar, Rule>` takes.

#include <effinfer/decoding/grammar/compiled_grammar.hpp>
#include <effinfer/decoding/grammar/gbnf.hpp>
#include <effinfer/decoding/grammar/json_schema.hpp>
#include <effinfer/decoding/grammar/regular_expression.hpp>

#include <concepts>
#include <memory>
#include <string_view>
#include <utility>

namespace effinfer::inline v0::decoding::grammar {

/// What texts may be: has `compiled()`, null where none was given. Copying must be cheap.
template <class G>
concept text_grammar = std::copyable<G> && requires(const G& g) {
  { g.compiled() } -> std::convertible_to<const std::shared_ptr<const compiled_grammar>&>;
};

/// A grammar of any kind, or none yet. Copies share what was compiled, also among threads.
class any_grammar {
 public:
  any_grammar() = default;
  explicit any_grammar(std::shared_ptr<const compiled_grammar> compiled) : compiled_(std::move(compiled)) {}
  /// Errors: those of compiled_grammar.
  any_grammar(const rule_set& rules, std::shared_ptr<const token_vocabulary> vocabulary)
      : compiled_(std::make_shared<const compiled_grammar>(rules, std::move(vocabulary))) {}

  [[nodiscard]] const std::shared_ptr<const compiled_grammar>& compiled() const { return compiled_; }

 private:
  std::shared_ptr<const compiled_grammar> compiled_;
};

/// JSON that is valid under a schema; json_schema_reader says what is read. Errors: those of read_json_schema and compiled_grammar.
struct json_schema : any_grammar {
  json_schema() = default;
  json_schema(std::string_view schema, std::shared_ptr<const token_vocabulary> vocabulary,
              json_schema_options options = {})
      : any_grammar(read_json_schema(schema, options), std::move(vocabulary)) {}
};

/// Texts of a grammar in llama.cpp's notation. Errors: those of read_gbnf and compiled_grammar.
struct gbnf : any_grammar {
  gbnf() = default;
  gbnf(std::string_view grammar, std::shared_ptr<const token_vocabulary> vocabulary)
      : any_grammar(read_gbnf(grammar), std::move(vocabulary)) {}
};

/// Texts that a pattern matches from beginning to end. Errors: those of read_regular_expression and compiled_grammar.
struct regular_expression : any_grammar {
  regular_expression() = default;
  regular_expression(std::string_view pattern, std::shared_ptr<const token_vocabulary> vocabulary)
      : any_grammar(read_regular_expression(pattern), std::move(vocabulary)) {}
};

static_assert(text_grammar<any_grammar> && text_grammar<json_schema> && text_grammar<gbnf> &&
              text_grammar<regular_expression>);

}  // namespace effinfer::inline v0::decoding::grammar
