#pragma once
// A parsed template: statements that hold expressions. Plain trees; the interpreter walks them and never changes them.

#include <effinfer/text/jinja/operators.hpp>
#include <effinfer/text/jinja/value.hpp>

#include <string>
#include <vector>

namespace effinfer::inline v0::text::jinja {

enum class expression_kind {
  constant,     ///< `constant`
  name,         ///< `name`
  tuple,        ///< parts
  list,         ///< parts
  dict,         ///< parts: key, item, key, item ...
  attribute,    ///< parts[0].name; as a target of `set`: an attribute of a namespace
  item,         ///< parts[0][parts[1]]
  slice,        ///< parts[0][parts[1] : parts[2] : parts[3]]
  call,         ///< parts[0](arguments)
  filter,       ///< parts[0] | name(arguments)
  test,         ///< parts[0] is name(arguments)
  captured,     ///< the text of the block that a filter without operand stands on
  negation,     ///< not parts[0]
  minus,        ///< -parts[0]
  plus,         ///< +parts[0]
  binary,       ///< parts[0] `operation` parts[1]
  compare,      ///< parts[0] comparisons[0] parts[1] comparisons[1] parts[2] ...
  all,          ///< parts[0] and parts[1]
  any,          ///< parts[0] or parts[1]
  conditional,  ///< parts[0] if parts[1] else parts[2]; undefined where there are only two and the second is false
  concat,       ///< parts[0] ~ parts[1] ~ ...
};

enum class comparison { equal, unequal, less, less_or_equal, greater, greater_or_equal, in, not_in };

struct argument;

struct expression {
  expression_kind kind = expression_kind::constant;
  int line = 0;
  int depth = 1;  ///< of the tree below; limited by the parser
  arithmetic operation = arithmetic::add;
  std::string name;
  value constant;
  std::vector<expression> parts;
  std::vector<comparison> comparisons;
  std::vector<argument> arguments;
};

struct argument {
  enum class kind { positional, named, unpacked, unpacked_names } is;  ///< a, name=a, *a, **a
  std::string name;
  expression given;
};

enum class statement_kind {
  data,          ///< `text` as it is
  output,        ///< expressions[0], printed
  loop,          ///< for targets[0] in expressions[0] if expressions[1]: body, or `otherwise` where there was nothing
  branch,        ///< the first of `branches` whose condition holds, or `otherwise`
  assign,        ///< set targets[0] = expressions[0]
  assign_block,  ///< set targets[0] to the text of the body, through the filters of expressions[0] if there are
  macro,         ///< text, parameters, body
  call_block,    ///< expressions[0], a call, with the body as `caller`
  filter_block,  ///< expressions[0], filters over the text of the body
  with,          ///< targets = expressions for the body
  generation,    ///< the body, in a scope of its own: what the assistant says (transformers' tag for masks)
  break_loop,
  continue_loop,
};

struct branch;

struct parameter {
  std::string name;
  bool has_default = false;
  expression default_value;
};

struct statement {
  statement_kind kind = statement_kind::data;
  int line = 0;
  bool is_recursive = false;  ///< of a loop: loop(...) renders it again inside itself
  bool uses_caller = false;   ///< of a macro or call block: its body names `caller`
  bool uses_varargs = false;
  bool uses_kwargs = false;
  std::string text;
  std::vector<expression> targets;
  std::vector<expression> expressions;
  std::vector<parameter> parameters;
  std::vector<statement> body;
  std::vector<statement> otherwise;
  std::vector<branch> branches;
};

struct branch {
  expression condition;
  std::vector<statement> body;
};

}  // namespace effinfer::inline v0::text::jinja
