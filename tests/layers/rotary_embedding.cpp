// layers/rotary_embedding.hpp: frequencies against transformers' (tests/reference/make_rope_references.py), rotation
// against complex numbers in double precision.

#include "execution/instruction_sets.hpp"

#include <effinfer/core/json.hpp>
#include <effinfer/layers/rotary_embedding.hpp>
#include <effinfer/testing/attention_oracle.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <complex>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace rotary_embedding_tests {

using namespace effinfer;
using floats = std::vector<float>;

namespace {

rotary_scaling scaling_of(std::string_view name) {
  if (name == "linear") return rotary_scaling::linear;
  if (name == "dynamic_ntk") return rotary_scaling::dynamic_ntk;
  if (name == "yarn") return rotary_scaling::yarn;
  if (name == "llama3") return rotary_scaling::llama3;
  REQUIRE(name == "none");
  return rotary_scaling::none;
}

rotary_settings plain(int rotary_size, bool interleaved = false) {
  rotary_settings s;
  s.rotary_size = rotary_size;
  s.interleaved = interleaved;
  s.original_max_positions = 4096;
  return s;
}

}  // namespace

TEST_CASE("frequencies and attention factors are transformers'") {
  for (const char* name :
       {"none", "none_theta_5e5", "linear", "dynamic_within", "dynamic_beyond", "llama3", "llama3_factor32", "yarn",
        "yarn_betas_mscale", "yarn_attention_factor", "yarn_not_truncated"}) {
    CAPTURE(name);
    const std::string path = std::string(EFFINFER_TEST_DATA) + "/rope/" + name + ".json";
    std::ifstream file(path);
    REQUIRE(file.good());
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const json::document doc(text, path);
    const json::value settings = doc.root().at("settings");
    rotary_settings s;
    const auto number = [&](const char* key, double& to) {
      if (const auto v = settings.find_set(key)) to = v->number();
    };
    s.scaling = scaling_of(settings.at("scaling").string());
    s.rotary_size = static_cast<int>(settings.at("rotary_size").integer());
    s.original_max_positions = static_cast<int>(settings.at("original_max_positions").integer());
    number("base", s.base), number("factor", s.factor), number("attention_factor", s.attention_factor);
    number("low_freq_factor", s.low_freq_factor), number("high_freq_factor", s.high_freq_factor);
    number("beta_fast", s.beta_fast), number("beta_slow", s.beta_slow);
    number("mscale", s.mscale), number("mscale_all_dim", s.mscale_all_dim);
    if (const auto v = settings.find("truncate")) s.truncate = v->boolean();

    const int length = static_cast<int>(doc.root().at("length").integer());
    const auto got = layers::rotary_embedding::frequencies(s, length);
    const json::value want = doc.root().at("frequencies");
    REQUIRE(got.size() == want.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      CAPTURE(i);
      // Theirs are raised to a power in float32.
      CHECK(std::abs(static_cast<double>(got[i]) - want[i].number()) <= 2e-6 * want[i].number());
    }
    CHECK(static_cast<double>(layers::rotary_embedding::attention_scale(s)) ==
          doctest::Approx(doc.root().at("attention_factor").number()).epsilon(1e-6));
  }
}

TEST_CASE("explicit frequency factors divide each frequency") {
  rotary_settings s = plain(8);
  s.frequency_factors = {1.0f, 2.0f, 4.0f, 8.0f};
  const auto with = layers::rotary_embedding::frequencies(s, 0),
             without = layers::rotary_embedding::frequencies(plain(8), 0);
  for (std::size_t i = 0; i < 4; ++i) CHECK(with[i] == without[i] / s.frequency_factors[i]);
}

TEST_CASE("pairs are turned by position times frequency, in both layouts, on every instruction set and size") {
  for (const auto set : instruction_sets::supported_bases()) {
    const execution::cpu::context exec({.threads = 2, .set = set});
    for (const auto& [head_size, rotary_size] :
         {std::pair{2, 2}, {8, 4}, {32, 32}, {80, 32}, {64, 64}, {96, 72}, {128, 128}}) {
      for (const bool interleaved : {false, true}) {
        const layers::rotary_embedding rotary(plain(rotary_size, interleaved));
        const auto frequencies = layers::rotary_embedding::frequencies(plain(rotary_size), 0);
        const int tokens = 10, heads = 3, columns = heads * head_size;
        const floats x = testing::numbers(static_cast<std::size_t>(tokens * columns), 3);
        floats y = x, turns(static_cast<std::size_t>(tokens * rotary_size));
        for (int t = 0; t < tokens; ++t) rotary.turns(100 * t, 100 * t + 1, turns.data() + t * rotary_size);
        layers::rotate(exec, rotary, {turns.data(), tokens, rotary_size}, head_size, {y.data(), tokens, columns});
        for (int t = 0; t < tokens; ++t) {
          for (int h = 0; h < heads; ++h) {
            const int first = t * columns + h * head_size;
            const auto at = [first](int i) { return static_cast<std::size_t>(first + i); };
            for (int i = 0; i < rotary_size / 2; ++i) {
              const int a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + rotary_size / 2;
              const float angle = static_cast<float>(100 * t) * frequencies[static_cast<std::size_t>(i)];
              const auto turned = std::complex<double>(static_cast<double>(x[at(a)]), static_cast<double>(x[at(b)])) *
                                  std::polar(1.0, static_cast<double>(angle));
              CHECK(std::abs(static_cast<double>(y[at(a)]) - turned.real()) < 4e-7);
              CHECK(std::abs(static_cast<double>(y[at(b)]) - turned.imag()) < 4e-7);
            }
            for (int i = rotary_size; i < head_size; ++i) CHECK(y[at(i)] == x[at(i)]);
          }
        }
      }
    }
  }
}

TEST_CASE("scores depend on the distance alone") {
  const execution::cpu::context exec({.threads = 1});
  const layers::rotary_embedding rotary(plain(64));
  const floats q = testing::numbers(64, 1), k = testing::numbers(64, 2);
  const auto score = [&](int query, int key) {
    floats a = q, b = k, turns(64);
    rotary.turns(query, query + 1, turns.data());
    layers::rotate(exec, rotary, {turns.data(), 1, 64}, 64, {a.data(), 1, 64});
    rotary.turns(key, query + 1, turns.data());
    layers::rotate(exec, rotary, {turns.data(), 1, 64}, 64, {b.data(), 1, 64});
    double s = 0;
    for (std::size_t i = 0; i < 64; ++i) s += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    return s;
  };
  for (const int distance : {0, 1, 17, 300}) {
    CHECK(score(distance, 0) == doctest::Approx(score(1000 + distance, 1000)).epsilon(1e-3));
  }
  CHECK(std::abs(score(5, 0) - score(0, 0)) > 0.1);  // and they do depend on it
}

TEST_CASE("yarn scales what it turns, dynamic NTK changes beyond the original length only") {
  rotary_settings s = plain(64);
  s.scaling = rotary_scaling::yarn;
  s.factor = 4;
  floats turns(64);
  layers::rotary_embedding(s).turns(0, 1, turns.data());
  CHECK(turns[0] == doctest::Approx(0.1 * std::log(4.0) + 1));

  s = plain(64);
  s.scaling = rotary_scaling::dynamic_ntk;
  s.factor = 2;
  const layers::rotary_embedding dynamic(s), fixed(plain(64));
  floats a(64), b(64);
  fixed.turns(4000, 4096, a.data());
  dynamic.turns(4000, 4096, b.data());
  CHECK(a == b);
  dynamic.turns(4000, 5000, b.data());
  CHECK(a != b);
}

}  // namespace rotary_embedding_tests
