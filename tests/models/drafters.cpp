// The networks of drafters and exits against numbers that PyTorch made (tests/reference/make_drafter_references.py).

#include <effinfer/model.hpp>
#include <effinfer/models/exit_maps.hpp>
#include <effinfer/models/feature_drafter.hpp>
#include <effinfer/models/medusa_heads.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace drafters_tests {

namespace ei = effinfer;

namespace {

const std::string models = std::string(EFFINFER_TEST_DATA) + "/models/",
                  drafters = std::string(EFFINFER_TEST_DATA) + "/drafters/";
using model = ei::model<ei::execution::cpu>;
/// In f32: the drafters' bfloat16 weights must not have their activations rounded.
const ei::execution::cpu in_f32{.threads = 1, .set = ei::execution::instruction_set::portable};

std::vector<float> expected(const std::string& kind) {
  std::ifstream file(drafters + kind + "/logits.f32", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  REQUIRE(!values.empty());
  return values;
}

std::vector<float> states(int rows, int columns) {
  std::vector<float> s;
  for (int t = 0; t < rows; ++t) {
    for (int j = 0; j < columns; ++j) s.push_back(static_cast<float>(std::sin(0.3 * t + 0.7 * j)));
  }
  return s;
}

double difference(std::span<const float> a, const float* b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(double{a[i]} - double{b[i]}));
  return most;
}

template <class F>
ei::error_code code_of(const F& f) {
  try {
    f();
  } catch (const ei::error& e) {
    return e.code();
  }
  FAIL("nothing was thrown");
  return ei::error_code::io;
}

/// A copy of a drafter's folder whose files a test may change.
struct copied_folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() /
                               ("effinfer-drafter-" + std::to_string(reinterpret_cast<std::uintptr_t>(this)));
  explicit copied_folder(const std::string& kind) {
    std::filesystem::copy(drafters + kind, path,
                          std::filesystem::copy_options::overwrite_existing | std::filesystem::copy_options::recursive);
  }
  copied_folder(const copied_folder&) = delete;
  copied_folder& operator=(const copied_folder&) = delete;
  ~copied_folder() { std::filesystem::remove_all(path); }
  /// Replaces a text of the same length in a file.
  void replace(const std::string& file, const std::string& from, const std::string& to) const {
    std::ifstream in(path / file, std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    const auto at = bytes.find(from);
    REQUIRE(at != std::string::npos);
    bytes.replace(at, from.size(), to);
    std::ofstream(path / file, std::ios::binary) << bytes;
  }
};

const std::vector<int> read_tokens{17, 45, 101, 260, 33, 8, 90};

}  // namespace

TEST_CASE("EAGLE, EAGLE-3 and MTP layers answer as PyTorch's do, for what was read and for a tree of guesses") {
  const model m = model::load(models + "llama3", {}, in_f32);
  const auto& exec = m.decoder_model().execution();
  const auto& weights = m.decoder_model().weights();
  for (const std::string kind : {"eagle", "eagle3", "mtp"}) {
    CAPTURE(kind);
    const auto d = ei::models::feature_drafter::load(drafters + kind, m.config(), exec);
    const auto want = expected(kind);
    const auto v = static_cast<std::size_t>(d.vocabulary_size());
    REQUIRE(want.size() == 7 * v);
    auto rows = states(7, d.states_width());
    const auto of = [&](int first, int count) {
      return ei::matrix_view<const float>(rows.data() + first * d.states_width(), count, d.states_width());
    };
    auto s = d.make_state(64);
    d.advance(s, weights, exec, read_tokens, of(0, 7));
    CHECK(difference(s.logits(0), want.data()) < 2e-4);
    const auto guess = [&](ei::models::feature_drafter::state& in) {
      d.expand(in, weights, exec, std::vector<int>{12, 200}, std::vector<int>{0, 0});
      for (int i = 0; i < 2; ++i)
        CHECK(difference(in.logits(i), want.data() + static_cast<std::size_t>(1 + i) * v) < 2e-4);
      d.expand(in, weights, exec, std::vector<int>{77, 31, 150}, std::vector<int>{1, 2, 2});
      for (int i = 0; i < 3; ++i)
        CHECK(difference(in.logits(i), want.data() + static_cast<std::size_t>(3 + i) * v) < 2e-4);
      d.expand(in, weights, exec, std::vector<int>{5}, std::vector<int>{3});
      CHECK(difference(in.logits(0), want.data() + 6 * v) < 2e-4);
    };
    guess(s);
    CHECK(s.nodes() == 7);
    // Guesses leave nothing behind, and pieces give what the whole gives.
    auto pieces = d.make_state(64);
    d.advance(pieces, weights, exec, std::span(read_tokens).first(3), of(0, 3));
    d.expand(pieces, weights, exec, std::vector<int>{3, 4}, std::vector<int>{0, 0});
    d.advance(pieces, weights, exec, std::span(read_tokens).subspan(3), of(3, 4));
    CHECK(pieces.length() == 7);
    CHECK(difference(pieces.logits(0), want.data()) < 2e-4);
    auto fork = pieces;
    guess(pieces);
    guess(fork);
    fork.truncate(2);
    d.advance(fork, weights, exec, std::span(read_tokens).subspan(2), of(2, 5));
    CHECK(difference(fork.logits(0), want.data()) < 2e-4);

    CHECK(code_of([&] { d.expand(s, weights, exec, std::vector<int>{1}, std::vector<int>{7}); }) ==
          ei::error_code::invalid_argument);
    CHECK(code_of([&] { d.advance(s, weights, exec, read_tokens, of(0, 6)); }) == ei::error_code::invalid_argument);
    CHECK(code_of([&] { s.truncate(8); }) == ei::error_code::invalid_argument);
    const std::vector<int> many(64, 1), roots(64, 0);
    CHECK(code_of([&] { d.expand(fork, weights, exec, many, roots); }) == ei::error_code::invalid_argument);
  }
}

TEST_CASE("EAGLE-3's own vocabulary leads to the model's") {
  const model m = model::load(models + "llama3", {}, in_f32);
  const auto d = ei::models::feature_drafter::load(drafters + "eagle3", m.config(), m.decoder_model().execution());
  CHECK(d.layout() == ei::models::feature_drafter::kind::eagle3);
  CHECK(d.vocabulary_size() == 40);
  int before = -1;
  for (int i = 0; i < 40; ++i) {  // the script sorts them
    CHECK(d.token(i) > before);
    before = d.token(i);
  }
  CHECK(before < 288);
  CHECK(std::vector<int>(d.feature_layers().begin(), d.feature_layers().end()) == std::vector<int>{0, 1, 2});
}

TEST_CASE("Medusa heads and exits answer as PyTorch's do") {
  const model m = model::load(models + "llama3", {}, in_f32);
  const auto& decoder = m.decoder_model();
  const auto state = states(1, 64);
  const ei::matrix_view<const float> x(state.data(), 1, 64);

  const auto heads = ei::models::medusa_heads::load(drafters + "medusa", m.config(), decoder.execution());
  REQUIRE(heads.size() == 2);
  CHECK(heads.rank_accuracy() == std::vector<std::vector<double>>{{0.5, 0.2, 0.1}, {0.4, 0.1, 0.05}});
  std::vector<float> feature(64);
  decoder.features(x, {feature.data(), 1, 64});
  ei::models::medusa_heads::workspace w;
  const auto logits = heads.guess(decoder.execution(), {feature.data(), 1, 64}, w);
  const auto want = expected("medusa");
  for (int i = 0; i < 2; ++i) CHECK(difference({logits.row(i), 288}, want.data() + i * 288) < 2e-4);

  const auto maps = ei::models::exit_maps::load(drafters + "exits", m.config(), decoder.execution());
  CHECK(maps.behind(0) == nullptr);
  CHECK(maps.behind(2) == nullptr);
  REQUIRE(maps.behind(1) != nullptr);
  auto pass = decoder.make_workspace(1);
  std::copy(state.begin(), state.end(), decoder.states(pass, 0, 1).data);
  CHECK(difference({decoder.logits(pass, *maps.behind(1), 0, 1).data, 288}, expected("exits").data()) < 2e-4);
}

TEST_CASE("drafters that don't fit are errors that say so") {
  const model m = model::load(models + "llama3", {}, in_f32);
  const auto& exec = m.decoder_model().execution();
  const auto load = [&](const std::string& folder) {
    return code_of([&] { ei::models::feature_drafter::load(folder, m.config(), exec); });
  };
  const auto load_medusa = [&](const std::string& folder) {
    return code_of([&] { ei::models::medusa_heads::load(folder, m.config(), exec); });
  };
  using ei::error_code;
  CHECK(load(drafters + "none") == error_code::missing);
  CHECK(load(drafters + "medusa") == error_code::missing);  // its configuration is no layer's
  {
    const copied_folder f("eagle");
    f.replace("config.json", "\"hidden_size\": 64", "\"hidden_size\": 32");
    CHECK(load(f.path) == error_code::mismatch);
  }
  {
    const copied_folder f("eagle");
    f.replace("config.json", "\"intermediate_size\": 48", "\"intermediate_size\": 49");
    CHECK(load(f.path) == error_code::mismatch);
  }
  {
    const copied_folder f("eagle");
    f.replace("model.safetensors", "fc.weight", "fd.weight");
    CHECK(load(f.path) == error_code::unsupported);
  }
  {
    const copied_folder f("mtp");
    f.replace("model.safetensors", "hnorm.weight", "inorm.weight");
    CHECK(load(f.path) == error_code::missing);
  }
  {
    const copied_folder f("eagle3");
    f.replace("config.json", "\"draft_vocab_size\": 40", "\"draft_vocab_size\": 41");
    CHECK(load(f.path) == error_code::mismatch);
  }
  {
    const copied_folder f("medusa");
    f.replace("medusa_lm_head.safetensors", "1.0.linear.bias", "1.0.linear.bits");
    CHECK(load_medusa(f.path) == error_code::missing);
    std::filesystem::rename(f.path / "medusa_lm_head.safetensors", f.path / "medusa_lm_head.pt");
    CHECK(load_medusa(f.path) == error_code::unsupported);
  }
  {
    const copied_folder f("exits");
    f.replace("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    CHECK(code_of([&] { ei::models::exit_maps::load(f.path, m.config(), exec); }) == error_code::mismatch);
  }
}

}  // namespace drafters_tests
