#pragma once
// A decoder as plainly as it can be written, in double: one token after the other, loops only. Switches round what a kernel
// rounds, so that a test can ask for no more error than such rounding costs by itself.

#include <effinfer/checkpoint/model_files.hpp>
#include <effinfer/core/dtype.hpp>
#include <effinfer/models/weight_names.hpp>
#include <effinfer/quantization/formats.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace oracle {

namespace ei = effinfer;
using row = std::vector<double>;

struct rounding {
  bool activations_to_int8 = false;  ///< in blocks of 32, where weights are integers
  bool activations_to_bf16 = false;  ///< where weights are BF16
  bool cache_to_f16 = false;
};

class llama {
 public:
  llama(const ei::checkpoint::model_files& files, rounding r) : files_(files), c_(files.config()), rounding_(r) {}

  /// Log-probabilities behind each token. Token t goes through depth[t] layers, all where depth is empty; the layers behind get the
  /// keys and values of its state as it is (CALM's hidden-state propagation).
  std::vector<row> operator()(const std::vector<int>& tokens, const std::vector<int>& depth = {}) {
    const auto layers = static_cast<std::size_t>(c_.layers), heads = static_cast<std::size_t>(c_.heads);
    const std::size_t d = static_cast<std::size_t>(c_.head_size), group = heads / static_cast<std::size_t>(c_.kv_heads);
    std::vector<std::vector<row>> keys(layers), values(layers);
    std::vector<row> result;
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      row x = weight_row(role::embedding, 0, tokens[t]);
      for (std::size_t l = 0; l < layers; ++l) {
        const int layer = static_cast<int>(l);
        row y = norm(x, role::mixer_norm, layer);
        row q = product(role::query, layer, y), k = product(role::key, layer, y), v = product(role::value, layer, y);
        turn(q, t);
        turn(k, t);
        if (rounding_.cache_to_f16) {
          for (double& n : k) n = static_cast<double>(float(ei::f16(static_cast<float>(n))));
          for (double& n : v) n = static_cast<double>(float(ei::f16(static_cast<float>(n))));
        }
        keys[l].push_back(k);
        values[l].push_back(v);
        if (!depth.empty() && layer >= depth[t]) continue;
        row mixed(q.size(), 0.0);
        for (std::size_t h = 0; h < heads; ++h) {
          const std::size_t kv = h / group * d;
          row p;
          double total = 0;
          for (std::size_t s = 0; s <= t; ++s) {
            double score = 0;
            for (std::size_t i = 0; i < d; ++i) score += q[h * d + i] * keys[l][s][kv + i];
            p.push_back(score / std::sqrt(static_cast<double>(d)));
          }
          const double top = *std::max_element(p.begin(), p.end());
          for (double& n : p) total += n = std::exp(n - top);
          for (std::size_t s = 0; s <= t; ++s) {
            for (std::size_t i = 0; i < d; ++i) mixed[h * d + i] += p[s] / total * values[l][s][kv + i];
          }
        }
        add(x, product(role::mixer_output, layer, mixed));
        y = norm(x, role::feed_forward_norm, layer);
        row gate = product(role::gate, layer, y);
        const row up = product(role::up, layer, y);
        for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
        add(x, product(role::down, layer, gate));
      }
      row logits = product(c_.tied_embeddings ? role::embedding : role::output, 0, norm(x, role::final_norm, 0));
      const double top = *std::max_element(logits.begin(), logits.end());
      double total = 0;
      for (const double n : logits) total += std::exp(n - top);
      for (double& n : logits) n -= top + std::log(total);
      result.push_back(logits);
    }
    return result;
  }

 private:
  using role = ei::models::weight_role;
  const ei::checkpoint::tensor& tensor(role r, int layer) {
    return files_.at(ei::models::weight_name(r, layer, files_.is_gguf()));
  }
  row weight_row(role r, int layer, int i) {
    const auto& t = tensor(r, layer);
    const std::ptrdiff_t columns = t.shape.back();
    std::vector<float> values(static_cast<std::size_t>(columns));
    const auto w =
        ei::quantization::packed_rows(t.format, t.data.data(), t.shape.size() == 2 ? t.shape[0] : 1, columns);
    ei::quantization::decode_row(w, i, values.data());
    return {values.begin(), values.end()};
  }
  row product(role r, int layer, row x) {
    const auto& t = tensor(r, layer);
    if (rounding_.activations_to_int8 && ei::block_size(t.format) > 1) {
      for (std::size_t b = 0; b < x.size(); b += 32) {
        double most = 0;
        for (std::size_t i = b; i < b + 32; ++i) most = std::max(most, std::abs(x[i]));
        for (std::size_t i = b; most > 0 && i < b + 32; ++i) x[i] = std::nearbyint(x[i] * 127 / most) * most / 127;
      }
    }
    if (rounding_.activations_to_bf16 && t.format == ei::weight_format::bf16) {
      for (double& value : x) value = static_cast<double>(static_cast<float>(ei::bf16(static_cast<float>(value))));
    }
    row y;
    for (int n = 0; n < static_cast<int>(t.shape[0]); ++n) {
      const row w = weight_row(r, layer, n);
      double sum = 0;
      for (std::size_t i = 0; i < w.size(); ++i) sum += w[i] * x[i];
      y.push_back(sum);
    }
    return y;
  }
  row norm(const row& x, role r, int layer) {
    const row w = weight_row(r, layer, 0);
    double squares = 0;
    for (const double n : x) squares += n * n;
    row y = x;
    for (std::size_t i = 0; i < x.size(); ++i) {
      y[i] *= w[i] / std::sqrt(squares / static_cast<double>(x.size()) + static_cast<double>(c_.norm_epsilon));
    }
    return y;
  }
  void turn(row& x, std::size_t position) {
    const std::size_t d = static_cast<std::size_t>(c_.head_size), half = d / 2;
    for (std::size_t h = 0; h < x.size(); h += d) {
      for (std::size_t i = 0; i < half; ++i) {
        const double f = std::pow(c_.rope.base, -2.0 * static_cast<double>(i) / static_cast<double>(d));
        const double angle = static_cast<double>(position) * f;
        double& a = x[h + (c_.rope.interleaved ? 2 * i : i)];
        double& b = x[h + (c_.rope.interleaved ? 2 * i + 1 : half + i)];
        const double old = a;
        a = old * std::cos(angle) - b * std::sin(angle);
        b = b * std::cos(angle) + old * std::sin(angle);
      }
    }
  }
  static void add(row& x, const row& y) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  const ei::checkpoint::model_files& files_;
  const ei::checkpoint::model_config& c_;
  rounding rounding_;
};

}  // namespace oracle
