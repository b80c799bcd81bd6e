#pragma once
// Exits: affine maps that turn the state behind a layer inside the model into one that the final norm and the output head
// understand, so that a token may be read off before the last layer.
//
//   logits behind layer i = head(final_norm(x + W_i x + b_i))
//
// Source: Belrose et al., "Eliciting Latent Predictions from Transformers with the Tuned Lens" (2023), equation 4. A model
// trained with an early-exit loss (Elhoushi et al., "LayerSkip", 2024) needs no maps: there W = 0, b = 0.

#include <effinfer/models/owned_linear.hpp>

#include <string>
#include <vector>

namespace effinfer::inline v0::models {

/// The maps of one model; constant, shared by sessions. Without any, exits read the state as it is.
class exit_maps {
 public:
  exit_maps() = default;

  /// From a folder with config.json and model.safetensors: `{i}.weight` [E, E] and `{i}.bias` [E] stand behind i + 1 of the model's
  /// layers, for every i but the last. Errors: `mismatch` (another model's: layers, width, shapes), `missing`, `unsupported`.
  static exit_maps load(const std::string& folder, const checkpoint::model_config& model,
                        const execution::cpu::context& exec, const quantization::at_load& weights = {}) {
    const auto files = checkpoint::drafter_files::open(folder);
    const auto expect = [&](const char* field, int value) {
      const json::value v = files.config().at(field);
      if (v.integer() != value) {
        v.fail("it is " + std::to_string(v.integer()) + ", the model (" + model.file + ") has " +
               std::to_string(value));
      }
    };
    expect("num_hidden_layers", model.layers);
    expect("hidden_size", model.width);
    exit_maps maps;
    for (int i = 0; i + 1 < model.layers; ++i)
      maps.maps_.emplace_back(exec, files, std::to_string(i), model.width, model.width, true, weights);
    return maps;
  }

  /// The map behind `layers` layers; null where there is none.
  [[nodiscard]] const linear_layer* behind(int layers) const {
    const auto i = static_cast<std::size_t>(layers - 1);
    return layers >= 1 && i < maps_.size() ? &maps_[i].layer : nullptr;
  }

 private:
  std::vector<owned_linear> maps_;
};

}  // namespace effinfer::inline v0::models
