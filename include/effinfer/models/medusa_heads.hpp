#pragma once
// Medusa heads: head i guesses, from the feature behind the last token, the token i + 2 ahead of it, all heads at once.
//
//   logits_i = W_i r_L,   r_0 = f,   r_{l+1} = r_l + silu(A_il r_l + b_il)        l = 0 ... L - 1, mostly L = 1
//
// Source: Cai et al., "Medusa" (2024), equation 1; the layout of github.com/FasterDecoding/Medusa.

#include <effinfer/checkpoint/config_json.hpp>
#include <effinfer/checkpoint/drafter_files.hpp>
#include <effinfer/checkpoint/model_config.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/layers/elementwise.hpp>
#include <effinfer/models/owned_linear.hpp>
#include <effinfer/quantization/matmul.hpp>

#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace effinfer::inline v0::models {

/// The heads of one model; constant, shared by sessions.
class medusa_heads {
 public:
  /// Scratch memory and results of `guess`; one thread at a time.
  struct workspace {
    std::vector<float> r, step, logits;
    std::vector<std::byte> product;
  };

  /// From a folder with config.json (`medusa_num_heads`, `medusa_num_layers`) and medusa_lm_head.safetensors: `{i}.{l}.linear.weight`
  /// [E, E], `{i}.{l}.linear.bias` [E], `{i}.{L}.weight` [V, E]. `weights` says how the matrices are kept.
  /// Errors: `missing` (a tensor), `mismatch` (a shape that isn't the model's), `unsupported` (a format), those of drafter_files.
  static medusa_heads load(const std::string& folder, const checkpoint::model_config& model,
                           const execution::cpu::context& exec, const quantization::at_load& weights = {}) {
    const auto files = checkpoint::drafter_files::open(folder);
    const checkpoint::detail::field_reader r(files.config());
    const int heads = r.integer("medusa_num_heads", 1, 64), layers = r.integer("medusa_num_layers", 0, 64, 1);
    medusa_heads m;
    m.width_ = model.width;
    m.vocabulary_ = model.vocabulary_size;
    // A checkpoint may hold fewer heads than its configuration names (the published ones do): those there are count.
    for (int i = 0; i < heads; ++i) {
      const std::string name = std::to_string(i) + ".";
      if (i > 0 && files.find(name + std::to_string(layers) + ".weight") == nullptr) break;
      head h;
      for (int l = 0; l < layers; ++l) {
        h.blocks.emplace_back(exec, files, name + std::to_string(l) + ".linear", m.width_, m.width_, true, weights);
      }
      h.output = owned_linear(exec, files, name + std::to_string(layers), m.vocabulary_, m.width_, false, weights,
                              quantization::matrix_use::output);
      m.heads_.push_back(std::move(h));
    }
    if (const auto accuracy = r.find("rank_accuracy")) {
      for (const json::value& of_head : accuracy->elements()) {
        std::vector<double> shares;
        for (const json::value& share : of_head.elements()) shares.push_back(share.number());
        m.rank_accuracy_.push_back(std::move(shares));
      }
    }
    return m;
  }

  [[nodiscard]] int size() const { return static_cast<int>(heads_.size()); }
  [[nodiscard]] int vocabulary_size() const { return vocabulary_; }
  /// [heads][ranks]: how often a head's best token, its second best ... was right, where the checkpoint says so (`rank_accuracy` in
  /// config.json, this project's own field); else empty.
  [[nodiscard]] const std::vector<std::vector<double>>& rank_accuracy() const { return rank_accuracy_; }

  /// All heads' logits from one feature (decoder::features of the last token's state). Shapes: feature [1, E]; returns [heads, V],
  /// valid until the next call with this workspace. `Formats`: what its products are compiled for.
  template <class Formats = quantization::all_formats>
  matrix_view<float> guess(const execution::cpu::context& exec, matrix_view<const float> feature, workspace& w) const {
    const auto e = static_cast<std::size_t>(width_);
    w.r.resize(e);
    w.step.resize(e);
    w.logits.resize(static_cast<std::size_t>(size()) * static_cast<std::size_t>(vocabulary_));
    w.product.resize(quantization::matmul_workspace_bytes<>(1, width_));
    const matrix_view<float> r(w.r.data(), 1, width_), step(w.step.data(), 1, width_);
    const matrix_view<float> logits(w.logits.data(), size(), vocabulary_);
    for (int i = 0; i < size(); ++i) {
      const head& h = heads_[static_cast<std::size_t>(i)];
      std::copy_n(feature.row(0), width_, r.data);
      for (const owned_linear& block : h.blocks) {
        product<Formats>(exec, r, block.layer, step, w);
        for (std::size_t k = 0; k < e; ++k) w.step[k] /= 1.0F + std::exp(-w.step[k]);
        layers::add(exec, r, step);
      }
      product<Formats>(exec, r, h.output.layer, logits.middle_rows(i, 1), w);
    }
    return logits;
  }

 private:
  struct head {
    std::vector<owned_linear> blocks;
    owned_linear output;
  };

  template <class Formats>
  static void product(const execution::cpu::context& exec, matrix_view<const float> x, const linear_layer& layer,
                      matrix_view<float> y, workspace& w) {
    quantization::matmul<Formats>(exec, x, layer.weight, y, w.product, layer.bias_or_null());
  }

  std::vector<head> heads_;
  int width_ = 0, vocabulary_ = 0;
  std::vector<std::vector<double>> rank_accuracy_;
};

}  // namespace effinfer::inline v0::models
