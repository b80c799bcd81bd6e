#pragma once
// A drafter's checkpoint as it is published: a folder with config.json and one safetensors file, whose tensors are found by
// name and checked for shape. What the tensors mean is the drafter's matter (models/medusa_heads.hpp, feature_drafter.hpp).

#include <effinfer/checkpoint/mapped_file.hpp>
#include <effinfer/checkpoint/safetensors.hpp>
#include <effinfer/checkpoint/tensor.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/core/json.hpp>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace effinfer::inline v0::checkpoint {

class drafter_files {
 public:
  /// `folder` holds config.json and medusa_lm_head.safetensors or model.safetensors.
  /// Errors: `missing` (one of the two isn't there), `unsupported` (the weights are a pickle: .pt or .bin), and those of
  /// mapped_file, json::document and read_safetensors.
  static drafter_files open(std::string folder) {
    while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
    drafter_files f;
    f.path_ = folder;
    const std::string config = folder + "/config.json";
    if (!is_file(config)) throw error(error_code::missing, config, "it isn't there", "give a drafter's folder");
    f.config_ = std::make_unique<json::document>(mapped_file(config).text(), config,
                                                 json::limits{.bytes = 16 << 20, .depth = 16});
    for (const char* name : {"/medusa_lm_head.safetensors", "/model.safetensors"}) {
      if (!is_file(folder + name)) continue;
      f.map_ = mapped_file(folder + name);
      f.tensors_ = read_safetensors(f.map_.bytes(), folder + name);
      return f;
    }
    for (const char* name : {"/medusa_lm_head.pt", "/pytorch_model.bin"}) {
      if (!is_file(folder + name)) continue;
      throw error(
          error_code::unsupported, folder + name, "pickled weights are programs, and aren't run here",
          "in Python: safetensors.torch.save_file(torch.load(FILE, map_location=\"cpu\"), \"model.safetensors\")");
    }
    throw error(error_code::missing, folder + "/model.safetensors",
                "it isn't there, nor is medusa_lm_head.safetensors");
  }

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] json::value config() const { return config_->root(); }

  [[nodiscard]] const tensor* find(std::string_view name) const {
    for (const tensor& t : tensors_) {
      if (t.name == name) return &t;
    }
    return nullptr;
  }
  /// The tensor `name`, of this shape. Errors: `missing`, `mismatch`.
  [[nodiscard]] const tensor& at(std::string_view name, std::initializer_list<std::int64_t> shape) const {
    const tensor* t = find(name);
    if (t == nullptr) throw error(error_code::missing, path_ + ": tensor " + std::string(name), "it isn't there");
    if (!std::equal(t->shape.begin(), t->shape.end(), shape.begin(), shape.end())) {
      throw error(error_code::mismatch, t->file + ": tensor " + t->name,
                  "its shape is " + text(t->shape) + ", the configurations ask for " + text(shape));
    }
    return *t;
  }

 private:
  drafter_files() = default;
  template <class Shape>
  static std::string text(const Shape& shape) {
    std::string s = "[";
    for (const std::int64_t n : shape) s += (s.size() > 1 ? ", " : "") + std::to_string(n);
    return s + "]";
  }

  std::string path_;
  std::unique_ptr<json::document> config_;
  mapped_file map_;
  std::vector<tensor> tensors_;
};

}  // namespace effinfer::inline v0::checkpoint
