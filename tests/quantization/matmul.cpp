// Products in every format against double precision, on every instruction set; and that a result depends on its own rows
// alone.

#include "reference.hpp"

#include <doctest/doctest.h>

namespace matmul_tests {

using namespace reference;

namespace {

struct product {
  std::vector<float> y;  // [T, N]
};

ei::execution::cpu::context context(ei::execution::instruction_set set, int threads) {
  ei::execution::cpu policy;
  policy.set = set;
  policy.threads = threads;
  return ei::execution::cpu::context(policy);
}

/// y from poisoned memory, with an odd stride and a workspace at an odd address.
std::vector<float> multiply(const ei::execution::cpu::context& exec, const std::vector<float>& x, std::ptrdiff_t tokens,
                            const eq::weight_matrix& w, const float* bias) {
  const std::ptrdiff_t stride = w.rows + 3;
  std::vector<float> y(static_cast<std::size_t>(tokens * stride), std::nanf(""));
  std::vector<std::byte> workspace(eq::matmul_workspace_bytes(tokens, w.columns) + 1, std::byte{0xff});
  const auto panels = eq::pack(exec, w);
  eq::matmul(exec, ei::matrix_view<const float>(x.data(), tokens, w.columns), panels,
             ei::matrix_view<float>(y.data(), tokens, w.rows, stride), std::span(workspace).subspan(1), bias);
  std::vector<float> packed;
  for (std::ptrdiff_t t = 0; t < tokens; ++t) {
    for (std::ptrdiff_t n = 0; n < stride; ++n) {
      const float value = y[static_cast<std::size_t>(t * stride + n)];
      if (n < w.rows) {
        packed.push_back(value);
      } else {
        CHECK(std::isnan(value));  // nothing is written beyond N
      }
    }
  }
  return packed;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

void check_against_reference(eq::storage s, const matrix& m, const std::vector<float>& x, std::ptrdiff_t tokens) {
  const std::ptrdiff_t rows = m.view.rows, columns = m.view.columns;
  INFO("format ", std::string(ei::to_string(s.format)), " group ", s.group, " N ", rows, " M ", columns, " T ", tokens);
  const auto bias = random_floats(static_cast<std::size_t>(rows), 5);
  std::vector<std::vector<float>> results;
  for (auto set : sets()) results.push_back(multiply(context(set, 2), x, tokens, m.view, bias.data()));
  double error = 0, noise = 0, power = 0;
  int wrong = 0;
  for (std::ptrdiff_t t = 0; t < tokens; ++t) {
    const float* row = x.data() + t * columns;
    const auto rounded = as_8_bits(row, columns);
    for (std::ptrdiff_t n = 0; n < rows; ++n) {
      double exact = static_cast<double>(bias[static_cast<std::size_t>(n)]), same_type = exact, in_bf16 = exact,
             magnitude = std::abs(exact);
      for (std::ptrdiff_t c = 0; c < columns; ++c) {
        const double w = value_at(m.view, n, c);
        const double q = is_float(s.format) ? static_cast<double>(row[c]) : rounded[static_cast<std::size_t>(c)];
        in_bf16 += w * static_cast<double>(static_cast<float>(ei::bf16(row[c])));
        exact += w * static_cast<double>(row[c]);
        same_type += w * q;
        // Codes and minimum are summed apart: what is rounded is the size of the parts, up to 4 times their sum's.
        magnitude +=
            (is_float(s.format) ? 1 : 4) * (std::abs(w) + (is_float(s.format) ? 0.0 : 0.02 * 64)) * std::abs(q);
      }
      for (std::size_t i = 0; i < results.size(); ++i) {
        const double got = static_cast<double>(results[i][static_cast<std::size_t>(t * rows + n)]);
        const bool halves = s.format == weight_format::bf16 && ei::execution::has_bf16_dot_products(sets()[i]);
        const double wanted = halves ? in_bf16 : same_type;
        // One sum: a rounding a column (float) or two a block of 16, 3 of scales, 1 of the bias.
        const double roundings = is_float(s.format) ? static_cast<double>(columns) : static_cast<double>(columns) / 8;
        if (!(std::abs(got - wanted) <= (roundings + 8) * 0x1p-24 * magnitude)) ++wrong;
        error += (got - exact) * (got - exact);
        noise += (wanted - exact) * (wanted - exact);
      }
      power += exact * exact;
    }
  }
  CHECK(wrong == 0);
  const double sets_run = static_cast<double>(results.size());
  // In all, at most twice the error that 8-bit activations (or f32) cost by themselves.
  CHECK(std::sqrt(error / sets_run) <= 2 * std::sqrt(noise / sets_run) + 1e-6 * std::sqrt(power));
  if (!is_float(s.format) && rows * columns * tokens > 50000)
    CHECK(std::sqrt(noise / sets_run) <= 0.012 * std::sqrt(power));
  // All but the portable set, and BF16 by pairs, give the same bits.
  for (std::size_t i = 2; i < results.size(); ++i) {
    if (s.format != weight_format::bf16 || !ei::execution::has_bf16_dot_products(sets()[i])) {
      CHECK(same_bits(results[1], results[i]));
    }
  }
}

void check_against_reference(eq::storage s, std::ptrdiff_t rows, std::ptrdiff_t columns, std::ptrdiff_t tokens) {
  const auto x = random_floats(static_cast<std::size_t>(tokens * columns), 4);
  check_against_reference(s, random_matrix(s, rows, columns, 3), x, tokens);
}

}  // namespace

TEST_CASE("products agree with double precision: every format, odd shapes, every instruction set") {
  for (eq::storage s : storages()) {
    const std::ptrdiff_t block = columns_multiple(s);
    const bool any = block == 1;
    check_against_reference(s, 1, any ? 1 : block, 1);
    check_against_reference(s, 7, any ? 17 : 3 * block, 2);
    check_against_reference(s, 13, any ? 211 : 5 * block, 5);
    check_against_reference(s, 33, any ? 97 : 2 * block, 33);
    if (is_float(s.format)) check_against_reference(s, 35, 389, 26);  // past a copy in f32, two tokens past the threes
    // One column (or block) past a panel.
    check_against_reference(s, 6, any ? (is_float(s.format) ? 1025 : 2049) : 2048 + block, 3);
  }
}

TEST_CASE("the largest codes meet the largest activations: no sum overflows") {
  for (eq::storage s : storages()) {
    const std::ptrdiff_t columns = 2 * std::max(columns_multiple(s), 32), tokens = 7;
    for (const int byte : {0x00, 0x7f, 0x80, 0xff}) {
      INFO("byte ", byte);
      const matrix m = random_matrix(s, 33, columns, 3, static_cast<std::byte>(byte));
      std::vector<float> x(static_cast<std::size_t>(tokens * columns));
      for (std::size_t i = 0; i < x.size(); ++i) {
        const std::size_t token = i / static_cast<std::size_t>(columns);
        x[i] = token == 0 || (token == 2 && i % 2 == 1) || (token == 4 && i % 3 == 1) ? -1.0f : 1.0f;
      }
      check_against_reference(s, m, x, tokens);
    }
  }
}

TEST_CASE("two products combined on the way are the two products combined afterwards, bit for bit") {
  for (eq::storage s : storages()) {
    INFO("format ", std::string(ei::to_string(s.format)), " group ", s.group);
    const std::ptrdiff_t columns = columns_multiple(s) == 1 ? 801 : 1024, rows = 43;
    const matrix a = random_matrix(s, rows, columns, 18), b = random_matrix(s, rows, columns, 19);
    const auto bias = random_floats(static_cast<std::size_t>(rows), 20);
    for (auto set : sets()) {
      if (set == ei::execution::instruction_set::portable && s.format != weight_format::q5_1) continue;
      const auto exec = context(set, 2);
      for (std::ptrdiff_t tokens : {1, 7, 100, 289}) {
        if (tokens == 289 && set != sets().back()) continue;  // what goes by turns does so in every set
        const auto x = random_floats(static_cast<std::size_t>(tokens * columns), 21);
        const auto of_a = multiply(exec, x, tokens, a.view, bias.data()),
                   of_b = multiply(exec, x, tokens, b.view, nullptr);
        const auto packed_a = eq::pack(exec, a.view), packed_b = eq::pack(exec, b.view);
        const eq::packed_matrix wa = packed_a.view(), wb = packed_b.view();
        std::vector<float> y(static_cast<std::size_t>(tokens * rows), std::nanf(""));
        const ei::matrix_view<float> out(y.data(), tokens, rows);
        std::vector<std::byte> workspace(eq::matmul_workspace_bytes(tokens, columns));
        const auto prepared = eq::prepare(exec, ei::matrix_view<const float>(x.data(), tokens, columns), workspace);
        eq::matmul(exec, prepared, {&wa, out, bias.data()}, {&wb, out, nullptr},
                   [](ei::matrix_view<const float> p, ei::matrix_view<const float> q, ei::matrix_view<float> r) {
                     for (std::ptrdiff_t t = 0; t < r.rows; ++t) {
                       for (std::ptrdiff_t i = 0; i < r.columns; ++i) r.row(t)[i] = p.row(t)[i] - 3.0f * q.row(t)[i];
                     }
                   });
        std::vector<float> expected(y.size());
        for (std::size_t i = 0; i < y.size(); ++i) expected[i] = of_a[i] - 3.0f * of_b[i];
        CHECK(same_bits(y, expected));
      }
    }
  }
}

template <class T>
std::vector<T> copied(const T* p, std::ptrdiff_t count) {
  return p == nullptr ? std::vector<T>() : std::vector<T>(p, p + count);
}

/// That both hold the same activations, bit for bit, the zeros behind the last column included.
void check_same_activations(const eq::prepared_activations& p, const eq::prepared_activations& q) {
  REQUIRE(p.values.rows == q.values.rows);
  REQUIRE(p.values.columns == q.values.columns);
  const std::ptrdiff_t pieces = eq::slabs_of(p.values.columns) * p.values.rows;
  CHECK(copied(p.codes, pieces * 256) == copied(q.codes, pieces * 256));
  CHECK(same_bits(copied(p.scales, pieces * 8), copied(q.scales, pieces * 8)));
  CHECK(same_bits(copied(p.sums, pieces * 8), copied(q.sums, pieces * 8)));
  CHECK(copied(p.counts, pieces * 8) == copied(q.counts, pieces * 8));
  CHECK(copied(p.counts_16, pieces * 16) == copied(q.counts_16, pieces * 16));
  CHECK((p.halves == nullptr) == (q.halves == nullptr));
  if (p.halves != nullptr && q.halves != nullptr) {
    CHECK(std::memcmp(p.halves, q.halves, static_cast<std::size_t>(pieces) * 512) == 0);
  }
}

TEST_CASE("activations are the same from memory, made row by row, and from a product on the way") {
  for (auto set : sets()) {
    const auto exec = context(set, 2);
    const eq::activation_kinds kinds{.codes = true, .halves = ei::execution::has_bf16_dot_products(set)};
    for (std::ptrdiff_t columns : {1, 31, 43, 256, 300, 800}) {
      const matrix w = random_matrix({weight_format::f32, 0}, columns, 16, 31);
      const auto packed = eq::pack(exec, w.view);
      const eq::packed_matrix view = packed.view();
      for (std::ptrdiff_t tokens : {1, 7, 8, 9, 100, 211}) {
        const auto x = random_floats(static_cast<std::size_t>(tokens * 16), 32);
        const auto plain = multiply(exec, x, tokens, w.view, nullptr);
        std::vector<float> y(plain.size());
        for (std::size_t i = 0; i < y.size(); ++i) y[i] = plain[i] * plain[i];
        const std::size_t bytes = eq::activation_bytes(tokens, columns);
        std::vector<std::byte> memory(bytes, std::byte{7}), rows(bytes, std::byte{8}), way(bytes, std::byte{9});
        const auto expected = eq::prepare(exec, ei::matrix_view<const float>(y.data(), tokens, columns), memory, kinds);

        std::vector<float> scratch(y.size(), std::nanf(""));
        const auto row = [&](std::ptrdiff_t t, float* to) {
          std::copy_n(y.data() + t * columns, columns, to);
          return to;
        };
        const ei::matrix_view<float> scratch_view(scratch.data(), tokens, columns);
        check_same_activations(eq::prepare_rows(exec, row, scratch_view, rows, kinds), expected);
        eq::activation_kinds with_values = kinds;
        with_values.values = true;
        check_same_activations(eq::prepare_rows(exec, row, scratch_view, rows, with_values), expected);
        CHECK(same_bits(scratch, y));

        const auto prepared = eq::prepare(exec, ei::matrix_view<const float>(x.data(), tokens, 16), {}, {});
        const ei::matrix_view<float> nowhere(nullptr, tokens, columns);
        const auto square = [](ei::matrix_view<const float> p, ei::matrix_view<const float> q,
                               ei::matrix_view<float> r) {
          for (std::ptrdiff_t t = 0; t < r.rows; ++t) {
            for (std::ptrdiff_t i = 0; i < r.columns; ++i) r.row(t)[i] = p.row(t)[i] * q.row(t)[i];
          }
        };
        check_same_activations(eq::matmul(exec, prepared, {&view, nowhere}, {&view, nowhere}, square, way, kinds),
                               expected);
      }
    }
  }
  const auto exec = context(ei::execution::best_instruction_set(), 1);
  std::vector<float> x(300);
  std::vector<std::byte> small(100);
  const auto make = [&](std::ptrdiff_t, float* to) { return to; };
  CHECK_THROWS_AS(eq::prepare_rows(exec, make, ei::matrix_view<float>(x.data(), 1, 300), small, {.codes = true}),
                  ei::error);
}

TEST_CASE("every instruction set makes the same codes, scales and counts") {
  const std::ptrdiff_t columns = 8 * 256;
  auto x = random_floats(static_cast<std::size_t>(columns), 41);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] *= std::ldexp(1.0f, static_cast<int>(i / 32 % 60) - 30);
  for (std::size_t i = 0; i < 32; ++i) {
    x[i] = 0.0f;
    x[32 + i] = static_cast<float>(i) * 1e-42f;  // subnormal
    x[64 + i] = -3.0f;
    x[96 + i] = static_cast<float>(i) - 15.5f;
    x[128 + i] = i == 0 ? 254.0f : static_cast<float>(i);  // every other value lies between two codes
    x[160 + i] = i == 0 ? 3e38f : 1.0f;
  }
  const auto one_set = [&](ei::execution::instruction_set set, std::span<const float> values) {
    const auto exec = context(set, 1);
    std::vector<std::byte> workspace(eq::activation_bytes(1, columns));
    const auto p =
        eq::prepare(exec, ei::matrix_view<const float>(values.data(), 1, columns), workspace, {.codes = true});
    return std::tuple(copied(p.codes, columns), copied(p.scales, columns / 32), copied(p.sums, columns / 32),
                      copied(p.counts, columns / 32), copied(p.counts_16, columns / 16));
  };
  const auto expected = one_set(ei::execution::instruction_set::portable, x);
  for (auto set : sets()) CHECK(one_set(set, x) == expected);
  for (const float bad : {std::nanf(""), -std::nanf(""), INFINITY, -INFINITY}) {
    for (std::size_t at : {0U, 15U, 16U, 31U}) {
      auto broken = x;
      broken[3 * 32 + at] = bad;
      for (auto set : sets()) {
        const auto scales = std::get<1>(one_set(set, broken));
        for (std::size_t i = 0; i < scales.size(); ++i) {
          CHECK((i == 3 ? std::isnan(scales[i]) : scales[i] == std::get<1>(expected)[i]));
        }
      }
    }
  }
}

TEST_CASE("a product that adds gives the sum of both, bit for bit but for tiles, which add to it step by step") {
  for (eq::storage s : storages()) {
    INFO("format ", std::string(ei::to_string(s.format)), " group ", s.group);
    const std::ptrdiff_t columns = columns_multiple(s) == 1 ? 801 : 1024, rows = 43, tokens = 100;
    const matrix m = random_matrix(s, rows, columns, 51);
    const auto bias = random_floats(static_cast<std::size_t>(rows), 52);
    const auto x = random_floats(static_cast<std::size_t>(tokens * columns), 53);
    const auto before = random_floats(static_cast<std::size_t>(tokens * rows), 54);
    const auto exec = context(ei::execution::best_instruction_set(), 2);
    auto expected = multiply(exec, x, tokens, m.view, bias.data());
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = before[i] + expected[i];
    const auto packed = eq::pack(exec, m.view);
    const eq::packed_matrix view = packed.view();
    auto y = before;
    std::vector<std::byte> workspace(eq::matmul_workspace_bytes(tokens, columns));
    const auto prepared = eq::prepare(exec, ei::matrix_view<const float>(x.data(), tokens, columns), workspace);
    const eq::product sum{&view, ei::matrix_view<float>(y.data(), tokens, rows), bias.data(), true};
    eq::matmul(exec, prepared, std::span(&sum, 1));
    if (s.format == weight_format::bf16 && exec.set() == ei::execution::instruction_set::amx) {
      double error = 0, power = 0;
      for (std::size_t i = 0; i < y.size(); ++i) {
        error += std::pow(static_cast<double>(y[i]) - static_cast<double>(expected[i]), 2);
        power += std::pow(static_cast<double>(expected[i]), 2);
      }
      CHECK(std::sqrt(error) <= 1e-6 * std::sqrt(power));
    } else {
      CHECK(same_bits(y, expected));
    }
  }
}

namespace {

/// y of bf16 activations, as the tokens of a prompt meet integer weights on AMX; `before` is added to, unless it is empty.
std::vector<float> multiply_prompt(const ei::execution::cpu::context& exec, std::span<const float> x,
                                   std::ptrdiff_t tokens, const eq::weight_matrix& w, const float* bias,
                                   std::span<const float> before = {}) {
  const auto packed = eq::pack(exec, w);
  const eq::packed_matrix view = packed.view();
  eq::activation_kinds kinds;
  kinds.add(w.format, exec.set(), true);
  std::vector<std::byte> workspace(eq::matmul_workspace_bytes(tokens, w.columns), std::byte{0xff});
  const auto prepared = eq::prepare(exec, ei::matrix_view<const float>(x.data(), tokens, w.columns), workspace, kinds);
  std::vector<float> y(static_cast<std::size_t>(tokens * w.rows), std::nanf(""));
  if (!before.empty()) std::copy_n(before.begin(), y.size(), y.begin());
  const eq::product one{&view, ei::matrix_view<float>(y.data(), tokens, w.rows), bias, !before.empty()};
  eq::matmul(exec, prepared, std::span(&one, 1));
  return y;
}

}  // namespace

TEST_CASE("a prompt's products are those of weights and activations in bf16 on AMX, the usual ones elsewhere") {
  const bool tiles = ei::execution::best_instruction_set() == ei::execution::instruction_set::amx;
  if (!tiles) MESSAGE("this machine has no AMX");
  for (eq::storage s : storages()) {
    if (s.format == weight_format::f32 || s.format == weight_format::f16) continue;
    if (!tiles && s.format != weight_format::bf16 && s.format != weight_format::q4_k) continue;
    INFO("format ", std::string(ei::to_string(s.format)), " group ", s.group);
    // Two turns of columns and one past, and three of tokens.
    const std::ptrdiff_t columns = columns_multiple(s) == 1 ? 2101 : 2304, rows = 37, most = 561;
    const matrix m = random_matrix(s, rows, columns, 61);
    const auto bias = random_floats(static_cast<std::size_t>(rows), 62);
    const auto x = random_floats(static_cast<std::size_t>(most * columns), 63);
    const auto before = random_floats(static_cast<std::size_t>(most * rows), 64);
    const auto exec = context(ei::execution::best_instruction_set(), 2);
    const auto y = multiply_prompt(exec, x, most, m.view, bias.data());
    if (!tiles && s.format != weight_format::bf16) CHECK(same_bits(y, multiply(exec, x, most, m.view, bias.data())));
    for (const std::ptrdiff_t t : {std::ptrdiff_t{0}, std::ptrdiff_t{191}, std::ptrdiff_t{192}, most - 1}) {
      const auto first = x.begin() + t * columns;
      const std::vector<float> row(first, first + columns);
      const auto alone = multiply_prompt(context(exec.set(), 1), row, 1, m.view, bias.data());
      CHECK(same_bits(alone, {y.begin() + t * rows, y.begin() + (t + 1) * rows}));
      for (std::ptrdiff_t n = 0; tiles && n < rows; ++n) {
        double wanted = static_cast<double>(bias[static_cast<std::size_t>(n)]), magnitude = std::abs(wanted);
        for (std::ptrdiff_t c = 0; c < columns; ++c) {
          const double product =
              static_cast<double>(static_cast<float>(ei::bf16(row[static_cast<std::size_t>(c)]))) *
              static_cast<double>(static_cast<float>(ei::bf16(static_cast<float>(value_at(m.view, n, c)))));
          wanted += product, magnitude += std::abs(product);
        }
        // A product rounds, and so do its sum of 16, those of both halves of a step, and those of the steps.
        CHECK(std::abs(static_cast<double>(alone[static_cast<std::size_t>(n)]) - wanted) <=
              (18 + static_cast<double>(columns) / 32) * 0x1p-24 * magnitude);
      }
    }
    // Without a bias a whole panel's sums go straight to y.
    const auto whole = multiply_prompt(exec, x, most, m.view, bias.data(), before);
    const auto plain = multiply_prompt(exec, x, most, m.view, nullptr, before);
    for (const std::ptrdiff_t tokens : {2, 17, 32, 33, 47, 48, 49, 64, 65, 193, 273}) {
      const std::vector<float> some(y.begin(), y.begin() + tokens * rows);
      CHECK(same_bits(multiply_prompt(exec, x, tokens, m.view, bias.data()), some));
      const auto sums = multiply_prompt(exec, x, tokens, m.view, bias.data(), before);
      CHECK(same_bits(sums, {whole.begin(), whole.begin() + tokens * rows}));
      const auto unbiased = multiply_prompt(exec, x, tokens, m.view, nullptr, before);
      CHECK(same_bits(unbiased, {plain.begin(), plain.begin() + tokens * rows}));
    }
    for (std::size_t i = 0; i < plain.size(); ++i) {
      // Two roundings each: before + sum, and before + (sum + bias), whose sum of two is whole - before.
      const double added = static_cast<double>(bias[i % static_cast<std::size_t>(rows)]);
      const double without = static_cast<double>(plain[i]), with = static_cast<double>(whole[i]);
      CHECK(std::abs(without + added - with) <=
            0x1p-24 * (std::abs(without) + 2 * std::abs(with) + std::abs(static_cast<double>(before[i]))));
    }
  }
}

TEST_CASE("an output is the same for any number of tokens and threads, bit for bit") {
  for (eq::storage s : storages()) {
    INFO("format ", std::string(ei::to_string(s.format)), " group ", s.group);
    const std::ptrdiff_t columns = columns_multiple(s) == 1 ? 2085 : 2304, rows = 37;
    const matrix m = random_matrix(s, rows, columns, 8);
    const auto x = random_floats(static_cast<std::size_t>(101 * columns), 9);
    for (auto set : sets()) {
      if (set == ei::execution::instruction_set::portable && s.format != weight_format::q4_k &&
          s.format != weight_format::f32)
        continue;
      std::vector<float> one_by_one;
      const auto single = context(set, 1);
      for (std::ptrdiff_t t = 0; t < 101; ++t) {
        const std::vector<float> row(x.begin() + t * columns, x.begin() + (t + 1) * columns);
        const auto y = multiply(single, row, 1, m.view, nullptr);
        one_by_one.insert(one_by_one.end(), y.begin(), y.end());
      }
      for (int threads : {1, 2, 3}) {
        const auto exec = context(set, threads);
        for (std::ptrdiff_t tokens : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 17, 101}) {
          if (threads < 3 && tokens > 9) continue;
          const auto y = multiply(exec, x, tokens, m.view, nullptr);
          CHECK(same_bits(y, {one_by_one.begin(), one_by_one.begin() + tokens * rows}));
        }
      }
      // A row's result doesn't depend on the rows beside it.
      eq::weight_matrix last = m.view;
      last.data += (rows - 1) * last.row_bytes;
      last.scales += rows - 1;
      last.rows = 1;
      const auto y = multiply(single, x, 5, last, nullptr);
      for (std::ptrdiff_t t = 0; t < 5; ++t) {
        CHECK(y[static_cast<std::size_t>(t)] == one_by_one[static_cast<std::size_t>(t * rows + rows - 1)]);
      }
    }
  }
}

TEST_CASE("an output of one token is the same beside whatever other outputs, bit for bit") {
  for (eq::storage s : storages()) {
    INFO("format ", std::string(ei::to_string(s.format)), " group ", s.group);
    const std::ptrdiff_t columns = columns_multiple(s) == 1 ? 291 : 768, all_rows = 135;
    const matrix m = random_matrix(s, all_rows, columns, 81);
    const auto x = random_floats(static_cast<std::size_t>(columns), 82);
    const auto bias = random_floats(static_cast<std::size_t>(all_rows), 83);
    for (auto set : sets()) {
      const auto exec = context(set, 1);
      const auto part = [&](std::ptrdiff_t first, std::ptrdiff_t rows) {
        eq::weight_matrix w = m.view;
        w.data += first * w.row_bytes, w.scales += first, w.rows = rows;
        return multiply(exec, x, 1, w, bias.data() + first);
      };
      std::vector<float> panel_by_panel;
      for (std::ptrdiff_t first = 0; first < all_rows; first += 32) {
        const auto y = part(first, std::min<std::ptrdiff_t>(32, all_rows - first));
        panel_by_panel.insert(panel_by_panel.end(), y.begin(), y.end());
      }
      for (std::ptrdiff_t rows : {33, 64, 65, 96, 127, 135})
        CHECK(same_bits(part(0, rows), {panel_by_panel.begin(), panel_by_panel.begin() + rows}));
    }
  }
}

TEST_CASE("a NaN or an infinity among the activations is never lost, and stays in its row") {
  for (eq::storage s : storages()) {
    INFO("format ", std::string(ei::to_string(s.format)), " group ", s.group);
    const std::ptrdiff_t columns = columns_multiple(s) == 1 ? 70 : 2 * columns_multiple(s);
    const matrix m = random_matrix(s, 5, columns, 8);
    for (auto set : sets()) {
      for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
        for (std::ptrdiff_t place : {std::ptrdiff_t{0}, std::ptrdiff_t{31}, columns - 1}) {
          auto x = random_floats(static_cast<std::size_t>(3 * columns), 9);
          x[static_cast<std::size_t>(columns + place)] = bad;
          const auto y = multiply(context(set, 1), x, 3, m.view, nullptr);
          for (std::size_t n = 0; n < 5; ++n) {
            CHECK(std::isfinite(y[n]));
            CHECK(!std::isfinite(y[5 + n]));
            CHECK(std::isfinite(y[10 + n]));
          }
        }
      }
    }
  }
}

TEST_CASE("weights may lie at any address") {
  for (eq::storage s : storages()) {
    INFO("format ", std::string(ei::to_string(s.format)));
    const std::ptrdiff_t columns = 2 * std::max(columns_multiple(s), 20);
    const matrix m = random_matrix(s, 6, columns, 21);
    std::vector<std::byte> moved(m.bytes->size() + 1);
    std::memcpy(moved.data() + 1, m.bytes->data(), m.bytes->size());
    eq::weight_matrix odd = m.view;
    odd.data = moved.data() + 1;
    const auto x = random_floats(static_cast<std::size_t>(2 * columns), 2);
    const auto exec = context(ei::execution::best_instruction_set(), 1);
    CHECK(same_bits(multiply(exec, x, 2, m.view, nullptr), multiply(exec, x, 2, odd, nullptr)));
  }
}

TEST_CASE("activations of zero, of subnormals and of 1e30 are rounded without overflow") {
  const matrix m = random_matrix({weight_format::q8_0}, 3, 96, 30);
  for (auto set : sets()) {
    std::vector<float> x(96, 0.0f);
    for (float y : multiply(context(set, 1), x, 1, m.view, nullptr)) CHECK(y == 0.0f);
    for (float& v : x) v = 1e-44f;
    for (float y : multiply(context(set, 1), x, 1, m.view, nullptr)) CHECK(std::abs(y) < 1e-38f);
    for (float& v : x) v = 1e30f;
    for (float y : multiply(context(set, 1), x, 1, m.view, nullptr)) CHECK(std::isfinite(y));
  }
}

TEST_CASE("misuse is told before anything is written") {
  const auto exec = context(ei::execution::best_instruction_set(), 1);
  const matrix m = random_matrix({weight_format::q8_0}, 3, 64, 30);
  std::vector<float> x(64), y(3, 5.0f);
  std::vector<std::byte> workspace(eq::matmul_workspace_bytes(1, 64));
  const auto packed = eq::pack(exec, m.view);
  const auto code = [&](std::ptrdiff_t x_columns, std::ptrdiff_t y_columns, std::size_t bytes, eq::packed_matrix w) {
    try {
      eq::matmul<eq::formats<eq::format::f32, eq::format::q8_0>>(
          exec, ei::matrix_view<const float>(x.data(), 1, x_columns), w, ei::matrix_view<float>(y.data(), 1, y_columns),
          std::span(workspace).first(bytes));
    } catch (const ei::error& e) {
      return std::string(ei::to_string(e.code()));
    }
    return std::string("none");
  };
  CHECK(code(64, 3, workspace.size(), packed) == "none");
  y.assign(3, 5.0f);
  CHECK(code(32, 3, workspace.size(), packed) == "mismatch");
  CHECK(code(64, 2, workspace.size(), packed) == "mismatch");
  CHECK(code(64, 3, workspace.size() - 1, packed) == "limit");
  eq::packed_matrix other = packed;
  other.format = weight_format::q4_0;
  CHECK(code(64, 3, workspace.size(), other) == "unsupported");
  CHECK_THROWS_AS(eq::matmul(exec, eq::prepared_activations{.values = {x.data(), 1, 64}}, packed,
                             ei::matrix_view<float>(y.data(), 1, 3)),
                  ei::error);
  CHECK(y == std::vector<float>(3, 5.0f));
  CHECK(eq::matmul_workspace_bytes<eq::formats<eq::format::f32, eq::format::f16>>(100, 100) == 0);
}

}  // namespace matmul_tests
