// The language of chat templates, piece by piece, against Jinja2 (tests/reference/make_chat_template_references.py), and
// what a hostile template runs into.

#include <effinfer/checkpoint/mapped_file.hpp>
#include <effinfer/text/chat_template.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace jinja_tests {

namespace text = effinfer::text;
namespace jinja = effinfer::text::jinja;
using effinfer::error;
using effinfer::error_code;

namespace {

using variables = std::vector<std::pair<std::string, jinja::value>>;

std::string render(std::string_view source, const variables& given = {}, const jinja::limits& limits = {}) {
  std::tm now{};
  now.tm_year = 124, now.tm_mon = 6, now.tm_mday = 26, now.tm_wday = 5, now.tm_yday = 207;
  now.tm_hour = 15, now.tm_min = 4, now.tm_sec = 5;
  return text::chat_template(source).render({}, {.variables = given, .now = now, .limits = limits});
}

struct failure {
  error_code code;
  std::string what;
};
failure failure_of(std::string_view source, const variables& given = {}, const jinja::limits& limits = {}) {
  try {
    const std::string rendered = render(source, given, limits);
    FAIL("no error, but: " << rendered.substr(0, 1000));
  } catch (const error& e) {
    return {e.code(), e.what()};
  }
  return {error_code::io, ""};
}
bool has(const failure& f, std::string_view words) { return f.what.find(words) != std::string::npos; }

}  // namespace

TEST_CASE("jinja: each piece of the language gives what Jinja2 gives") {
  const effinfer::checkpoint::mapped_file file(std::string(EFFINFER_TEST_DATA) + "/chat_templates/cases.json");
  const effinfer::json::document document(file.text(), "cases.json");
  const auto snippets = document.root().at("snippets");
  variables given;
  for (const auto& [name, v] : snippets.at("variables").members())
    given.emplace_back(std::string(name), jinja::from_json(v));
  const auto cases = snippets.at("cases").elements();
  CHECK(cases.size() > 450);
  for (const auto& c : cases) {
    const std::string source(c[0].string());
    CAPTURE(source);
    // These come before the ones that every template gets, so they are left to each snippet.
    variables all = {{"tools", jinja::make_undefined("no tools here")}};
    all.insert(all.end(), given.begin(), given.end());
    if (c[1].is_string()) {
      std::string rendered;
      try {
        rendered = render(source, all);
      } catch (const error& e) {
        rendered = e.what();
      }
      CHECK(rendered == std::string(c[1].string()));
      continue;
    }
    const failure f = failure_of(source, all);
    if (const auto raised = c[1].find("raised")) {
      CHECK(f.code == error_code::invalid_argument);
      CHECK(has(f, raised->string()));
    } else {
      const bool is_refused =
          f.code == error_code::malformed || f.code == error_code::unsupported || f.code == error_code::limit;
      CHECK(is_refused);
      CHECK(has(f, "chat_template: line "));
    }
  }
}

TEST_CASE("jinja: an error names template, line and what is wrong") {
  failure f = failure_of("a\nb\n{{ messages[0].content }}");
  CHECK(f.code == error_code::malformed);
  CHECK(f.what == "chat_template: line 3: list object has no such element");
  f = failure_of("{% set x = 1 %}\n\n{{ x.y.z }}");
  CHECK(f.what == "chat_template: line 3: 'int object' has no attribute 'y'");
  f = failure_of("\n{{ nothing + 1 }}");
  CHECK(f.what == "chat_template: line 2: 'nothing' is undefined");
  f = failure_of("{% macro m() %}\n{{ 1 / 0 }}\n{% endmacro %}\n\n{{ m() }}");
  CHECK(f.what == "chat_template: line 2: division by zero");
  f = failure_of("{% macro m() %}\nx\n{% endmacro %}\n\n{{ m()\n + 1 }}");
  CHECK(has(f, "chat_template: line 5: "));
  f = failure_of("x\n{% for a in b %}\n{% endif %}");
  CHECK(f.code == error_code::malformed);
  CHECK(has(f, "line 3"));
  f = failure_of("{{ 1 }}\n{{ x | nosuch }}");
  CHECK(f.what == "chat_template: line 2: no filter named 'nosuch'");
  f = failure_of("{% include 'other' %}");
  CHECK(f.code == error_code::unsupported);
  f = failure_of("{{ 'a'.encode() }}");
  CHECK(f.code == error_code::unsupported);
  f = failure_of("{{ 9223372036854775807 + 1 }}");
  CHECK(f.code == error_code::unsupported);
  f = failure_of("\n{{ raise_exception('Not so: ' ~ 1) }}");
  CHECK(f.code == error_code::invalid_argument);
  CHECK(f.what == "chat_template: line 2: the template refuses this conversation: Not so: 1");
  CHECK(failure_of("\xFF{{ 1 }}").code == error_code::invalid_utf8);
  CHECK(failure_of(std::string(jinja::most_source_bytes + 1, ' ')).code == error_code::limit);
}

TEST_CASE("jinja: lists and dicts can't be changed, and there is nothing behind an underscore") {
  for (const char* source : {"{{ l.append(1) }}", "{{ l.pop() }}", "{{ l.sort() }}", "{{ d.update({}) }}",
                             "{{ d.pop('a') }}", "{{ d.clear() }}", "{{ d.setdefault('b', 1) }}"}) {
    CAPTURE(source);
    const failure f = failure_of(source, {{"l", jinja::value::list({1})}, {"d", jinja::value::dict({{"a", 1}})}});
    CHECK(f.code == error_code::malformed);
    CHECK(has(f, "can't change"));
  }
  CHECK(render("[{{ ''.__class__ }}{{ range.__globals__ }}{{ namespace.__init__ }}]") == "[]");
  CHECK(failure_of("{{ ''.__class__.__mro__ }}").code == error_code::malformed);
  CHECK(failure_of("{{ (''|attr('__class__')).x }}").code == error_code::malformed);
  CHECK(failure_of("{% set n = namespace() %}{% set n.__x = 1 %}").code == error_code::malformed);
  // Data may have such names.
  CHECK(render("{{ d._a }}{{ d['_a'] }}", {{"d", jinja::value::dict({{"_a", 1}})}}) == "11");
}

TEST_CASE("jinja: whatever a template does, it ends within its limits") {
  const auto stops = [](const std::string& source, const jinja::limits& limits = {}) {
    CAPTURE(source.substr(0, 200));
    CHECK(failure_of(source, {}, limits).code == error_code::limit);
  };
  const auto many = [](std::string_view s, int n) {
    std::string all;
    for (int i = 0; i < n; ++i) all += s;
    return all;
  };
  // Depth of the source.
  stops("{{ " + many("(", 5000) + "1" + many(")", 5000) + " }}");
  stops("{{ " + many("[", 5000) + many("]", 5000) + " }}");
  stops("{{ " + many("-", 5000) + "1 }}");
  stops("{{ " + many("not ", 5000) + "1 }}");
  stops("{{ 1" + many(" + 1", 5000) + " }}");
  stops("{{ a" + many(".b", 5000) + " }}");
  stops("{{ a" + many(" | list", 5000) + " }}");
  stops("{{ 1" + many(" if 1 else 1", 5000) + " }}");
  stops(many("{% if 1 %}", 5000) + many("{% endif %}", 5000));
  // Depth of running.
  stops("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}");
  stops("{% macro m(f) %}{{ f(f) }}{% endmacro %}{{ m(m) }}");
  stops("{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}");
  // Steps. (The default ends the first one too, but the sanitizers would take long for that.)
  const jinja::limits few = {.steps = 1'000'000};
  stops("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", few);
  stops("{% for i in range(1000) %}{{ range(90000) | sort | length }}{% endfor %}", few);
  stops("{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% if 'b' in s %}{% endif %}{% endfor %}", few);
  stops("{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{{ '' if s | length }}{% endfor %}", few);
  // Memory.
  stops("{{ 'a' * 100000000000 }}");
  stops("{{ [1] * 100000000000 }}");
  stops("{{ 'ab' | center(100000000000) }}");
  stops("{{ '%9999999999d' % 1 }}");
  stops("{{ 'x' | indent(99999999999) }}");
  stops("{{ [[]] | tojson(indent=99999999999) }}");
  stops("{{ ('a' * 10000000).replace('', 'b' * 10000000) }}");
  stops("{{ ('a,' * 10000000).split(',') | length }}");
  stops("{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}");
  stops("{% for i in range(100000) %}{{ 'a' * 10000 }}{% endfor %}");
  stops("{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = n.l + n.l %}{% endfor %}");
  stops("{{ range(200000) }}");
  // Values that share their parts: small, but huge in print, and slow to compare.
  const std::string doubling =
      "{% set n = namespace(l=[1, 'x' * 1000]) %}{% for i in range(90) %}{% set n.l = [n.l, n.l] %}{% endfor %}";
  stops(doubling + "{{ n.l }}");
  stops(doubling + "{{ n.l | tojson }}");
  stops(doubling + "{% set m = n.l %}" + doubling + "{{ m == n.l }}", few);
  // A key of such a value is not spelled to its end.
  CHECK(failure_of("{% set n = namespace(t=(1, 2)) %}{% for i in range(90) %}{% set n.t = (n.t, n.t) %}{% endfor %}{{ "
                   "{n.t: 1} }}")
            .code == error_code::malformed);
  // Depth of values.
  stops("{% set n = namespace(l=[]) %}{% for i in range(100000) %}{% set n.l = [n.l] %}{% endfor %}");
  stops("{% set n = namespace(l=[]) %}{% for i in range(100000) %}{% set n.l = n.l | map('upper') %}{% endfor %}");
  stops("{% set n = namespace(l={}) %}{% for i in range(100000) %}{% set n.l = {1: n.l} %}{% endfor %}");
  stops("{% set n = namespace(l='') %}{% for i in range(100000) %}{% set n.l = cycler(n.l) %}{% endfor %}");
  // Small limits of the caller's.
  stops("{% for i in range(100) %}{% endfor %}", {.steps = 50});
  stops("{{ 'a' * 11 }}", {.string_bytes = 10});
  stops("aaaaaaaaaaa", {.string_bytes = 10});
  stops("{{ ((((1)))) ~ [[[[1]]]] }}", {.depth = 4});
}

TEST_CASE("jinja: what refers to itself is freed") {  // the leak checker is the judge
  CHECK(render("{% set n = namespace() %}{% set n.n = n %}{% set n.l = [n, {'n': n}] %}{{ n.n.n.l | length }}") == "2");
  CHECK(render("{% set n = namespace() %}{% macro m() %}x{% endmacro %}{% set n.m = m %}{{ n.m() }}") == "x");
  CHECK(render("{% set n = namespace() %}{% for i in [n] %}{% set n.l = loop %}{{ loop.changed(loop) }}{% endfor %}"
               "{{ n.l.index }}{{ n.l.changed(n.l) }}{{ n.l.previtem }}") == "True1True");
  CHECK(render("{% set n = namespace(c=0) %}{% for i in [1, 2] %}{% macro m() %}{{ i }}{% endmacro %}{% set n.m = m "
               "%}{% endfor %}"
               "{{ n.m() }}") == "2");
  CHECK(render("{% set n = namespace() %}{% set n.g = [n] | map(attribute='g') %}{{ n.g is iterable }}") == "True");
  // Long chains of namespaces, and of loops kept in them, are not freed by recursion.
  CHECK(render("{% set n = namespace(a=1) %}{% for i in range(50000) %}{% set n.a = namespace(a=n.a) %}{% endfor %}{% "
               "set n.a = 1 %}ok") == "ok");
  CHECK(render("{% set n = namespace(x=1) %}{% for i in range(20000) %}{% for y in [n] | map(attribute='x') %}{% set "
               "n.x = loop %}"
               "{% endfor %}{% endfor %}{% set n.x = 1 %}ok") == "ok");
}

TEST_CASE("jinja: numbers at the edges of 64 bits") {
  CHECK(render("{{ -9223372036854775807 - 1 }}") == "-9223372036854775808");
  CHECK(render("{{ (-9223372036854775807 - 1) % -1 }}") == "0");
  CHECK(render("{{ 9223372036854775807 == 9223372036854775807.0 }}") == "False");
  CHECK(render("{{ 9223372036854775807 < 9223372036854775808.0 }}") == "True");
  CHECK(render("{{ 9007199254740993 in {9007199254740992.0: 1} }}") == "False");
  CHECK(render("{{ 'abc'[-9223372036854775807:9223372036854775807] }}") == "abc");
  CHECK(render("{{ 'abc'[9223372036854775807:-9223372036854775807:-9223372036854775807] }}") == "c");
  CHECK(render("{{ range(9223372036854775806, 9223372036854775807) | list }}") == "[9223372036854775806]");
  for (const char* source :
       {"{{ (-9223372036854775807 - 1) // -1 }}", "{{ -(-9223372036854775807 - 1) }}", "{{ 2 ** 63 }}",
        "{{ (-9223372036854775807 - 1) | abs }}", "{{ 9223372036854775808 }}", "{{ '9223372036854775808' | int }}",
        "{{ 1e30 | int }}", "{{ 9223372036854775807 * 2 }}"}) {
    CAPTURE(source);
    CHECK(failure_of(source).code == error_code::unsupported);
  }
}

TEST_CASE("jinja: JSON becomes values, and values become JSON") {
  const std::string given = R"({"a": [1, -2, 3.5, 1e3, true, null, "é\n\u00e9"], "": {}, "n": 9007199254740993})";
  CHECK(render("{{ v | tojson }}", {{"v", jinja::from_json(given)}}) ==
        R"({"a": [1, -2, 3.5, 1000.0, true, null, "é\né"], "": {}, "n": 9007199254740993})");
  CHECK(render("{{ v }}", {{"v", jinja::from_json(R"({"a": 1, "b": 2, "a": 3})")}}) == "{'a': 3, 'b': 2}");
  CHECK_THROWS_AS(static_cast<void>(jinja::from_json("[1,")), error);
}

TEST_CASE("jinja: a time is told in English, and only if it was given") {
  CHECK(text::chat_template("{{ strftime_now is defined }}").render({}) == "False");
  try {
    static_cast<void>(text::chat_template("{{ strftime_now('%Y') }}").render({}));
    FAIL("no error");
  } catch (const error& e) {
    CHECK(std::string(e.what()).find("gave no time") != std::string::npos);
  }
}

}  // namespace jinja_tests
