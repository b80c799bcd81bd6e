#pragma once
// A `for` in progress: gives the elements that pass its condition, one ahead where the template asks for that, and is the
// variable `loop` of its body.

#include <effinfer/text/jinja/evaluator.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

/// Renders the body of a recursive loop again.
class loop_renderer {
 public:
  virtual std::string render_loop(const statement& s, const value& source, int level, scope* outside) = 0;

 protected:
  ~loop_renderer() = default;
};

class loop_state : public callable_with_attributes {
 public:
  /// `outside`: the scope in which the loop stands. `level`: how many loops of a recursive one are around.
  loop_state(evaluator& e, loop_renderer& renderer, const statement& s, const value& source, int level, scope* outside)
      : evaluator_(e),
        renderer_(renderer),
        statement_(s),
        outside_(outside),
        level_(level),
        source_(iterate(e.run(), source)) {
    if (s.expressions.size() == 1) {
      if (const auto n = length_of(e.run(), source)) length_ = static_cast<std::int64_t>(*n);
    }
  }

  /// Moves on to the next element, or returns false.
  bool advance(runtime& run, value& v) {
    if (next_) {
      v = *std::exchange(next_, std::nullopt);
    } else if (!pull(run, v)) {
      return false;
    }
    ++index_;
    before_ = std::exchange(current_, v);
    return true;
  }

  std::optional<value> attribute(runtime& run, const value& self, std::string_view name) override {
    if (name == "index") return index_ + 1;
    if (name == "index0") return index_;
    if (name == "first") return index_ == 0;
    if (name == "last") return !peek(run);
    if (name == "length") return length(run);
    if (name == "revindex") return length(run) - index_;
    if (name == "revindex0") return length(run) - index_ - 1;
    if (name == "previtem") return index_ <= 0 ? make_undefined("there is no previous item") : before_;
    if (name == "nextitem") return peek(run) ? *next_ : make_undefined("there is no next item");
    if (name == "depth") return level_ + 1;
    if (name == "depth0") return level_;
    if (name == "cycle") return make_object<bound_method>(run, "cycle", self, &cycle);
    if (name == "changed") return make_object<bound_method>(run, "changed", self, &changed);
    return std::nullopt;
  }
  value call(runtime& run, arguments given) override {
    const auto a = given.bind(run, "loop", {"iterable"}, 1);
    if (!statement_.is_recursive) run.fail("The loop must have the 'recursive' marker to be called recursively.");
    return make_text(run, renderer_.render_loop(statement_, *a[0], level_ + 1, outside_));
  }
  [[nodiscard]] std::string written() const override { return "<LoopContext>"; }
  /// The loop is over. It must not hold values any longer: who kept `loop` in a namespace could tie a knot with it.
  void clear() override {
    source_.reset();
    next_.reset();
    changed_.reset();
    before_ = current_ = make_undefined("the loop is over");
  }

 private:
  /// The next element that passes the condition. It is tried when it is asked for, as it may look at what the body changed.
  bool pull(runtime& run, value& v) {
    while (source_ && source_->next(run, v)) {
      if (is_tested_ || statement_.expressions.size() == 1) return true;
      const evaluator::inner_scope trial(evaluator_, outside_);
      evaluator_.assign(statement_.targets[0], v);
      if (is_true(evaluator_.evaluate(statement_.expressions[1]))) return true;
    }
    return false;
  }
  bool peek(runtime& run) {
    if (!next_) {
      value v;
      if (pull(run, v)) next_ = std::move(v);
    }
    return next_.has_value();
  }
  std::int64_t length(runtime& run) {
    if (!length_) {
      std::vector<value> rest;
      value v;
      while (pull(run, v)) {
        run.make(sizeof(value));
        rest.push_back(std::move(v));
      }
      length_ = static_cast<std::int64_t>(rest.size()) + index_ + 1 + (next_ ? 1 : 0);
      is_tested_ = true;
      source_ =
          std::make_shared<sequence_iterator>(std::make_shared<const sequence>(sequence_kind::list, std::move(rest)));
    }
    return *length_;
  }

  static value cycle(runtime& run, const value& self, const arguments& given) {
    if (given.positional.empty() || !given.named.empty()) run.fail("no items for cycling given");
    return given.positional[static_cast<std::size_t>(self.as<loop_state>()->index_) % given.positional.size()];
  }
  static value changed(runtime& run, const value& self, const arguments& given) {
    const auto loop = self.as<loop_state>();
    value now = make_tuple(run, given.positional);
    if (!loop->source_) return true;
    if (loop->changed_ && are_equal(run, *loop->changed_, now)) return false;
    loop->changed_ = std::move(now);
    return true;
  }

  evaluator& evaluator_;
  loop_renderer& renderer_;
  const statement& statement_;
  scope* outside_;
  int level_;
  std::shared_ptr<iterator> source_;
  bool is_tested_ = false;  // what the source still gives has passed the condition
  std::int64_t index_ = -1;
  value before_, current_;
  std::optional<value> next_;
  std::optional<std::int64_t> length_;
  std::optional<value> changed_;
};

}  // namespace effinfer::inline v0::text::jinja
