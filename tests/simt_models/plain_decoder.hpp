#pragma once
// The decoder of models/cuda as plainly as it can be written, in double: one token after the other, loops only. `Number` rounds what the
// GPU keeps in 16 bits, or nothing, so that a test can ask for no more error than that rounding costs by itself.

#include <effinfer/checkpoint/model_files.hpp>
#include <effinfer/core/dtype.hpp>
#include <effinfer/layers/rotary_embedding.hpp>
#include <effinfer/models/weight_names.hpp>
#include <effinfer/quantization/cuda/int4_groups.hpp>
#include <effinfer/quantization/formats.hpp>
#include <effinfer/quantization/policy.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace plain {

namespace ei = effinfer;
using row = std::vector<double>;

/// Keeps every bit.
struct exact {
  explicit exact(float) {}
};

template <class Number>
double rounded(double v) {
  if constexpr (std::is_same_v<Number, exact>) {
    return v;
  } else {
    return static_cast<double>(static_cast<float>(Number(static_cast<float>(v))));
  }
}

template <class Number, class Quantization>
class decoder {
  using role = ei::models::weight_role;

 public:
  decoder(const ei::checkpoint::model_files& files, const Quantization& policy, int window = 0)
      : files_(files), c_(files.config()), policy_(policy), rotary_(c_.rope), window_(window) {}

  /// Logits behind each token.
  std::vector<row> operator()(const std::vector<int>& tokens) {
    const auto size = [](int n) { return static_cast<std::size_t>(n); };
    const std::size_t d = size(c_.head_size), heads = size(c_.heads), group = heads / size(c_.kv_heads);
    std::vector<std::vector<row>> keys(size(c_.layers)), values(size(c_.layers));
    std::vector<row> result;
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      row x = stored(role::embedding, 0)[size(tokens[t])];
      for (int layer = 0; layer < c_.layers; ++layer) {
        const std::size_t l = size(layer);
        row y = norm(x, vector(role::mixer_norm, layer));
        row q = product(role::query, layer, y, c_.attention_bias), k = product(role::key, layer, y, c_.attention_bias);
        if (c_.qk_norm) {
          norm_heads(q, vector(role::query_norm, layer));
          norm_heads(k, vector(role::key_norm, layer));
        }
        turn(q, t);
        turn(k, t);
        keys[l].push_back(k);
        values[l].push_back(product(role::value, layer, y, c_.attention_bias));
        const int window = window_ > 0 ? window_ : c_.windows[l];
        const std::size_t first = window > 0 && t + 1 > size(window) ? t + 1 - size(window) : 0;
        row mixed(q.size(), 0.0);
        for (std::size_t h = 0; h < heads; ++h) {
          const std::size_t kv = h / group * d;
          row p;
          double total = 0;
          for (std::size_t s = first; s <= t; ++s) {
            double score = 0;
            for (std::size_t i = 0; i < d; ++i) score += q[h * d + i] * keys[l][s][kv + i];
            p.push_back(score / std::sqrt(static_cast<double>(d)));
          }
          const double top = *std::max_element(p.begin(), p.end());
          for (double& n : p) total += n = std::exp(n - top);
          for (std::size_t s = first; s <= t; ++s) {
            // The kernel of long reads multiplies weights of 16 bits.
            const double share = rounded<Number>(p[s - first]) / total;
            for (std::size_t i = 0; i < d; ++i) mixed[h * d + i] += share * values[l][s][kv + i];
          }
        }
        round(mixed);
        add(x, product(role::mixer_output, layer, mixed, c_.attention_output_bias));
        y = norm(x, vector(role::feed_forward_norm, layer));
        row gate = product(role::gate, layer, y, c_.mlp_bias);
        const row up = product(role::up, layer, y, c_.mlp_bias);
        for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
        round(gate);
        add(x, product(role::down, layer, gate, c_.mlp_bias));
      }
      const role head = c_.tied_embeddings ? role::embedding : role::output;
      result.push_back(sums(matrix(head, 0), norm(x, vector(role::final_norm, 0))));
    }
    return result;
  }

 private:
  using matrix_type = std::vector<row>;

  const ei::checkpoint::tensor& tensor(role r, int layer, const char* suffix = "weight") {
    return files_.at(ei::models::weight_name(r, layer, files_.is_gguf(), suffix));
  }
  /// As the checkpoint has it.
  const matrix_type& stored(role r, int layer, const char* suffix = "weight") {
    auto [at, is_new] = stored_.try_emplace({r, layer, suffix});
    if (!is_new) return at->second;
    const auto& t = tensor(r, layer, suffix);
    const std::ptrdiff_t rows = t.shape.size() == 2 ? t.shape[0] : 1;
    std::vector<float> values(static_cast<std::size_t>(t.shape.back()));
    for (std::ptrdiff_t i = 0; i < rows; ++i) {
      if (t.format == ei::weight_format::fp8_e4m3) {
        at->second.push_back(fp8_row(t, i));
        continue;
      }
      ei::quantization::decode_row(ei::quantization::packed_rows(t.format, t.data.data(), rows, t.shape.back()), i,
                                   values.data());
      at->second.emplace_back(values.begin(), values.end());
    }
    return at->second;
  }
  /// Codes times the scales beside them.
  row fp8_row(const ei::checkpoint::tensor& t, std::ptrdiff_t i) {
    const auto* const blocks = files_.find(t.name + "_scale_inv");
    const auto& s = blocks != nullptr ? *blocks : files_.at(t.name + "_scale");
    const std::ptrdiff_t across = blocks != nullptr ? s.shape[1] : 1;
    const std::ptrdiff_t scales = blocks != nullptr ? across * s.shape[0] : s.shape.empty() ? 1 : s.shape[0];
    std::vector<float> scale(static_cast<std::size_t>(scales));
    ei::quantization::decode_row(ei::quantization::packed_rows(s.format, s.data.data(), 1, scales), 0, scale.data());
    row values;
    for (std::ptrdiff_t k = 0; k < t.shape[1]; ++k) {
      const auto code =
          ei::fp8_e4m3::from_bits(static_cast<std::uint8_t>(t.data[static_cast<std::size_t>(i * t.shape[1] + k)]));
      const std::ptrdiff_t at = blocks != nullptr ? i / 128 * across + k / 128 : scales == 1 ? 0 : i;
      values.push_back(static_cast<double>(static_cast<float>(code)) *
                       static_cast<double>(scale[static_cast<std::size_t>(at)]));
    }
    return values;
  }
  const row& vector(role r, int layer, const char* suffix = "weight") { return stored(r, layer, suffix)[0]; }

  /// As the policy keeps it for products.
  const matrix_type& matrix(role r, int layer) {
    auto [at, is_new] = matrices_.try_emplace({r, layer});
    if (!is_new) return at->second;
    const auto& t = tensor(r, layer);
    const bool is_head = r == role::embedding || r == role::output;
    const auto target =
        policy_.target(is_head ? ei::quantization::matrix_use::output : ei::quantization::matrix_use::projection,
                       t.format, t.shape[1]);
    at->second = stored(r, layer);
    for (row& w : at->second) {
      if (target.format == ei::weight_format::int8) {
        double most = 0;
        for (const double v : w) most = std::max(most, std::abs(v));
        const auto scale = static_cast<double>(static_cast<float>(most) / 127.0F);
        for (double& v : w) v = std::nearbyint(v * 127 / most) * scale;
      } else if (target.format == ei::weight_format::fp8_e4m3 && t.format != target.format) {
        double most = 0;
        for (const double v : w) most = std::max(most, std::abs(v));
        const auto scale = static_cast<double>(static_cast<float>(most) / 448.0F);
        for (double& v : w)
          v = scale * static_cast<double>(static_cast<float>(
                          ei::fp8_e4m3(static_cast<float>(v) * (448.0F / static_cast<float>(most)))));
      } else if (target.format == ei::weight_format::int4) {
        const auto group = static_cast<std::size_t>(target.group);
        for (std::size_t g = 0; g < w.size(); g += group) {
          const std::vector<float> values(w.begin() + static_cast<std::ptrdiff_t>(g),
                                          w.begin() + static_cast<std::ptrdiff_t>(g + group));
          std::vector<std::uint8_t> codes(group);
          ei::quantization::cuda::int4_group of;
          ei::quantization::cuda::encode_int4_group(values.data(), target.group, codes.data(), of);
          for (std::size_t i = 0; i < group; ++i)
            w[g + i] = static_cast<double>(static_cast<float>(of.scale)) * (codes[i] - of.zero);
        }
      }
    }
    return at->second;
  }

  static void round(row& x) {
    for (double& v : x) v = rounded<Number>(v);
  }
  static row sums(const matrix_type& w, const row& x) {
    row y;
    for (const row& one : w) {
      double sum = 0;
      for (std::size_t i = 0; i < one.size(); ++i) sum += one[i] * x[i];
      y.push_back(sum);
    }
    return y;
  }
  row product(role r, int layer, const row& x, bool bias) {
    row y = sums(matrix(r, layer), x);
    round(y);
    if (bias) {
      add(y, vector(r, layer, "bias"));
      round(y);
    }
    return y;
  }
  row norm(const row& x, const row& weight) {
    double squares = 0;
    for (const double n : x) squares += n * n;
    row y = x;
    for (std::size_t i = 0; i < x.size(); ++i)
      y[i] *= weight[i] / std::sqrt(squares / static_cast<double>(x.size()) + static_cast<double>(c_.norm_epsilon));
    round(y);
    return y;
  }
  void norm_heads(row& x, const row& weight) {
    for (std::size_t h = 0; h < x.size(); h += weight.size()) {
      const auto begin = x.begin() + static_cast<std::ptrdiff_t>(h);
      const row one = norm(row(begin, begin + static_cast<std::ptrdiff_t>(weight.size())), weight);
      std::copy(one.begin(), one.end(), begin);
    }
  }
  void turn(row& x, std::size_t position) {
    const std::size_t d = static_cast<std::size_t>(c_.head_size), half = d / 2;
    std::vector<float> turns(d);
    rotary_.turns(static_cast<int>(position), 0, turns.data());
    for (std::size_t h = 0; h < x.size(); h += d) {
      for (std::size_t i = 0; i < half; ++i) {
        const double c = static_cast<double>(turns[i]), s = static_cast<double>(turns[half + i]);
        const std::size_t one = c_.rope.interleaved ? h + 2 * i : h + i, two = one + (c_.rope.interleaved ? 1 : half);
        const double a = x[one], b = x[two];
        x[one] = rounded<Number>(a * c - b * s);
        x[two] = rounded<Number>(b * c + a * s);
      }
    }
  }
  static void add(row& x, const row& y) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  const ei::checkpoint::model_files& files_;
  const ei::checkpoint::model_config& c_;
  const Quantization& policy_;
  ei::layers::rotary_embedding rotary_;
  int window_;
  struct key {
    role r;
    int layer;
    std::string suffix = {};
    friend auto operator<=>(const key&, const key&) = default;
  };
  std::map<key, matrix_type> stored_, matrices_;
};

}  // namespace plain
