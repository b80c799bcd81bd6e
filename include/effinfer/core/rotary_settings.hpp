#pragma once
// What a checkpoint says about rotary position embedding (Su et al. 2021); layers/rotary_embedding.hpp computes with it.

#include <effinfer/core/config.hpp>

#include <vector>

namespace effinfer::inline v0 {

/// How rotary frequencies are changed for contexts longer than the model was first trained on. Names as in transformers.
enum class rotary_scaling {
  none,
  linear,       ///< positions divided by `factor` (Chen et al. 2023)
  dynamic_ntk,  ///< base raised with the sequence length
  yarn,         ///< by wavelength, with an attention factor (Peng et al. 2023)
  llama3,       ///< by wavelength, Llama 3.1
};

struct rotary_settings {
  double base = 10000.0;
  int rotary_size = 0;  ///< rotated values a head, the first of each; even
  bool interleaved =
      false;  ///< pairs (0, 1), (2, 3) ... (GGUF's llama); else (0, R/2), (1, R/2 + 1) ... of R rotated values
  rotary_scaling scaling = rotary_scaling::none;
  double factor = 1.0;
  double low_freq_factor = 1.0;   ///< llama3
  double high_freq_factor = 4.0;  ///< llama3
  double beta_fast = 32.0;        ///< yarn
  double beta_slow = 1.0;         ///< yarn
  double attention_factor = 0.0;  ///< yarn; 0: derived from factor and mscale
  double mscale = 0.0;            ///< yarn; 0: not given
  double mscale_all_dim = 0.0;    ///< yarn; 0: not given
  bool truncate = true;           ///< yarn: round the correction range to whole dimensions
  int original_max_positions = 0;
  std::vector<float>
      frequency_factors;  ///< [R/2], each frequency is divided by its own (GGUF's rope_freqs.weight); or empty
};

}  // namespace effinfer::inline v0
