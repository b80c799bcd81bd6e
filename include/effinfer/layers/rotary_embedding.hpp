#pragma once
// Rotary position embedding: each pair of values of a head is turned by an angle that grows with the position.
// Source: Su et al., "RoFormer" (2021), section 3.2.2; the scalings as in transformers' modeling_rope_utils, whose
// papers core/rotary_settings.hpp names.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/core/rotary_settings.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/execution/vector.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <span>
#include <vector>

namespace effinfer::inline v0::layers {

/// The angles of a model: frequencies from its settings, once; sines and cosines of positions, once a pass.
class rotary_embedding {
 public:
  rotary_embedding() = default;
  explicit rotary_embedding(rotary_settings settings) : settings_(std::move(settings)) {
    frequencies_ = frequencies(settings_, settings_.original_max_positions);
    scale_ = attention_scale(settings_);
  }

  [[nodiscard]] int rotary_size() const { return settings_.rotary_size; }
  [[nodiscard]] bool interleaved() const { return settings_.interleaved; }

  /// Frequencies [R/2] in radians a position. `length` matters to dynamic_ntk alone: the tokens of the sequence.
  static std::vector<float> frequencies(const rotary_settings& s, int length) {
    const int half = s.rotary_size / 2;
    const double r = s.rotary_size, original = std::max(1, s.original_max_positions);
    double base = s.base;
    if (s.scaling == rotary_scaling::dynamic_ntk && s.rotary_size > 2) {
      const double ratio = std::max<double>(length, original) / original;
      base *= std::pow(s.factor * ratio - (s.factor - 1.0), r / (r - 2.0));
    }
    // yarn: between these dimensions the frequency goes over from kept to divided.
    const auto turning = [&](double turns) {
      return r * std::log(original / (turns * 2.0 * std::numbers::pi)) / (2.0 * std::log(base));
    };
    double low = turning(s.beta_fast), high = turning(s.beta_slow);
    if (s.truncate) low = std::floor(low), high = std::ceil(high);
    low = std::max(low, 0.0), high = std::min(high, r - 1.0);
    if (low == high) high += 0.001;

    std::vector<float> f(static_cast<std::size_t>(half));
    for (int i = 0; i < half; ++i) {
      double w = 1.0 / std::pow(base, 2.0 * i / r);
      if (s.scaling == rotary_scaling::linear) {
        w /= s.factor;
      } else if (s.scaling == rotary_scaling::yarn) {
        const double divided = std::clamp((i - low) / (high - low), 0.0, 1.0);
        w = w / s.factor * divided + w * (1.0 - divided);
      } else if (s.scaling == rotary_scaling::llama3) {
        const double wavelength = 2.0 * std::numbers::pi / w;
        if (wavelength > original / s.low_freq_factor) {
          w /= s.factor;
        } else if (wavelength >= original / s.high_freq_factor) {
          const double smooth = (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
          w = (1.0 - smooth) * w / s.factor + smooth * w;
        }
      }
      if (!s.frequency_factors.empty()) w /= static_cast<double>(s.frequency_factors[static_cast<std::size_t>(i)]);
      f[static_cast<std::size_t>(i)] = static_cast<float>(w);
    }
    return f;
  }

  /// What sines and cosines are multiplied by: 1 but for yarn.
  static float attention_scale(const rotary_settings& s) {
    if (s.scaling != rotary_scaling::yarn) return 1.0F;
    if (s.attention_factor != 0.0) return static_cast<float>(s.attention_factor);
    const auto scale = [&](double m) { return s.factor > 1.0 ? 0.1 * m * std::log(s.factor) + 1.0 : 1.0; };
    if (s.mscale != 0.0 && s.mscale_all_dim != 0.0)
      return static_cast<float>(scale(s.mscale) / scale(s.mscale_all_dim));
    return static_cast<float>(scale(1.0));
  }

  /// turns[0 .. R/2) = cosines, turns[R/2 .. R) = sines of `position` in a sequence of `length` tokens (see
  /// frequencies). The product of position and frequency is rounded to float, as every implementation's is.
  void turns(int position, int length, float* turns) const {
    const std::size_t half = frequencies_.size();
    std::vector<float> longer;
    if (settings_.scaling == rotary_scaling::dynamic_ntk && length > settings_.original_max_positions) {
      longer = frequencies(settings_, length);
    }
    const std::vector<float>& f = longer.empty() ? frequencies_ : longer;
    for (std::size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(static_cast<float>(position) * f[i]);
      turns[i] = static_cast<float>(std::cos(angle)) * scale_;
      turns[half + i] = static_cast<float>(std::sin(angle)) * scale_;
    }
  }

 private:
  rotary_settings settings_;
  std::vector<float> frequencies_;
  float scale_ = 1.0F;
};

namespace detail {

struct rotate_row {
  struct args {
    float* x;            ///< [heads, head_size]
    const float* turns;  ///< [R]
    std::ptrdiff_t columns;
    int head_size;
    int rotary_size;
    bool interleaved;
  };
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using vector = execution::f32x16<Set>;
    const std::ptrdiff_t half = a.rotary_size / 2;
    for (float* x = a.x; x < a.x + a.columns; x += a.head_size) {
      std::ptrdiff_t i = 0;
      if (!a.interleaved) {
        for (; i + 16 <= half; i += 16) {
          const vector c = vector::load(a.turns + i), s = vector::load(a.turns + half + i);
          const vector p = vector::load(x + i), q = vector::load(x + half + i);
          (p * c - q * s).store(x + i);
          (q * c + p * s).store(x + half + i);
        }
      }
      for (; i < half; ++i) {
        float& p = a.interleaved ? x[2 * i] : x[i];
        float& q = a.interleaved ? x[2 * i + 1] : x[half + i];
        const float c = a.turns[i], s = a.turns[half + i], old = p;
        p = old * c - q * s;
        q = q * c + old * s;
      }
    }
  }
};

}  // namespace detail

/// Turns every head of every row, in place. Shapes: x [T, heads * head_size], turns [T, R] from
/// rotary_embedding::turns.
inline void rotate(const execution::cpu::context& exec, const rotary_embedding& rotary, matrix_view<const float> turns,
                   int head_size, matrix_view<float> x) {
  exec.parallel_for(x.rows, 8, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    for (std::ptrdiff_t t = begin; t < end; ++t) {
      const detail::rotate_row::args args{x.row(t),  turns.row(t),         x.columns,
                                          head_size, rotary.rotary_size(), rotary.interleaved()};
      execution::dispatch<detail::rotate_row>(exec.set(), args);
    }
  });
}

}  // namespace effinfer::inline v0::layers
