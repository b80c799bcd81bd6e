#pragma once
// A checkpoint as people have it: a Hugging Face folder (config.json and safetensors, one file or shards with an index), one
// .safetensors file with config.json beside it, or a .gguf file. Opening maps the files and checks all of their headers.

#include <effinfer/checkpoint/config_gguf.hpp>
#include <effinfer/checkpoint/config_json.hpp>
#include <effinfer/checkpoint/gguf.hpp>
#include <effinfer/checkpoint/mapped_file.hpp>
#include <effinfer/checkpoint/safetensors.hpp>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace effinfer::inline v0::checkpoint {

class model_files {
 public:
  /// Errors: `io` (nothing readable there), `missing` (no config.json, no weights, a shard that the index names), `malformed`,
  /// `mismatch`, `unsupported`, `limit` as the readers of each file say; each names file and field.
  static model_files open(const std::string& path) {
    model_files m;
    m.path_ = path;
    while (m.path_.size() > 1 && m.path_.back() == '/') m.path_.pop_back();
    if (is_folder(m.path_)) {
      m.folder_ = m.path_;
      m.open_folder();
    } else if (m.path_.size() > 5 && m.path_.compare(m.path_.size() - 5, 5, ".gguf") == 0) {
      m.maps_.push_back(std::make_unique<mapped_file>(m.path_));
      m.gguf_ = std::make_unique<gguf>(m.maps_[0]->bytes(), m.path_);
      if (const auto* split = m.gguf_->find("split.count"); split != nullptr && split->integer() > 1) {
        throw error(error_code::unsupported, split->where(), "the checkpoint is split over several files",
                    "merge them into one .gguf");
      }
      m.tensors_.assign(m.gguf_->tensors().begin(), m.gguf_->tensors().end());
      m.config_ = read_config_gguf(*m.gguf_);
    } else {
      const auto slash = m.path_.rfind('/');
      m.folder_ = slash == std::string::npos ? "." : m.path_.substr(0, slash);
      m.add_safetensors(m.path_);
      m.read_config();
    }
    m.make_index();
    return m;
  }

  [[nodiscard]] bool is_gguf() const { return gguf_ != nullptr; }
  [[nodiscard]] const std::string& path() const { return path_; }
  /// The folder with the tokenizer's files; empty for a .gguf file.
  [[nodiscard]] const std::string& folder() const { return folder_; }
  /// The metadata of a .gguf file, else null.
  [[nodiscard]] const gguf* gguf_file() const { return gguf_.get(); }
  [[nodiscard]] const model_config& config() const { return config_; }
  [[nodiscard]] std::span<const tensor> tensors() const { return tensors_; }

  [[nodiscard]] const tensor* find(std::string_view name) const {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : &tensors_[it->second];
  }
  /// Errors: `missing`.
  [[nodiscard]] const tensor& at(std::string_view name) const {
    if (const tensor* t = find(name)) return *t;
    throw error(error_code::missing, path_ + ": tensor " + std::string(name), "it isn't there");
  }
  /// The files with the weights.
  [[nodiscard]] std::span<const std::unique_ptr<mapped_file>> maps() const { return maps_; }
  /// Bytes of address space that the files take.
  [[nodiscard]] std::uint64_t mapped_bytes() const {
    std::uint64_t total = 0;
    for (const auto& m : maps_) total += m->bytes().size();
    return total;
  }

 private:
  model_files() = default;

  void open_folder() {
    read_config();
    const std::string index_path = folder_ + "/model.safetensors.index.json";
    if (is_file(index_path)) {
      open_shards(index_path);
    } else if (is_file(folder_ + "/model.safetensors")) {
      add_safetensors(folder_ + "/model.safetensors");
    } else {
      throw error(error_code::missing, folder_ + "/model.safetensors",
                  "it isn't there, nor is model.safetensors.index.json",
                  "give a folder with safetensors weights, or a .gguf file");
    }
  }

  void open_shards(const std::string& index_path) {
    const mapped_file file(index_path);
    const json::document document(file.text(), index_path, {.bytes = 256 << 20, .depth = 8});
    const auto map = document.root().at("weight_map").members();
    std::vector<std::string> shards;
    for (const auto& [name, shard] : map) {
      const std::string_view s = shard.string();
      // A shard lies beside its index: a path out of the folder is no checkpoint's business.
      if (s.empty() || s.find('/') != std::string_view::npos || s.find('\0') != std::string_view::npos || s == "." ||
          s == ".." || s.size() > 255) {
        shard.fail("\"" + std::string(s.substr(0, 80)) + "\" is no file name", error_code::malformed);
      }
      shards.emplace_back(s);
    }
    std::sort(shards.begin(), shards.end());
    shards.erase(std::unique(shards.begin(), shards.end()), shards.end());
    for (const std::string& s : shards) {
      if (!is_file(folder_ + "/" + s)) {
        throw error(error_code::missing, folder_ + "/" + s, "the shard that " + index_path + " names isn't there");
      }
      add_safetensors(folder_ + "/" + s);
    }
    std::unordered_map<std::string_view, std::string_view> files;
    for (const tensor& t : tensors_) {
      if (!files.emplace(t.name, t.file).second)
        throw error(error_code::malformed, t.file + ": tensor " + t.name, "another shard has it too");
    }
    for (const auto& [name, shard] : map) {
      const auto it = files.find(name);
      if (it == files.end() || it->second != folder_ + "/" + std::string(shard.string())) {
        throw error(error_code::missing, folder_ + "/" + std::string(shard.string()) + ": tensor " + std::string(name),
                    "the index says it is here, but it isn't");
      }
    }
  }

  void add_safetensors(const std::string& path) {
    maps_.push_back(std::make_unique<mapped_file>(path));
    auto tensors = read_safetensors(maps_.back()->bytes(), path);
    tensors_.insert(tensors_.end(), std::make_move_iterator(tensors.begin()), std::make_move_iterator(tensors.end()));
  }

  void read_config() {
    const std::string path = folder_ + "/config.json", generation = folder_ + "/generation_config.json";
    if (!is_file(path)) {
      throw error(error_code::missing, path, "it isn't there",
                  "give a Hugging Face folder with config.json, or a .gguf file");
    }
    const mapped_file config(path);
    const mapped_file extra = is_file(generation) ? mapped_file(generation) : mapped_file();
    config_ = read_config_json(config.text(), extra.text(), folder_);
  }

  void make_index() {
    index_.reserve(tensors_.size());
    for (std::size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
  }

  std::string path_;
  std::string folder_;
  std::vector<std::unique_ptr<mapped_file>> maps_;
  std::unique_ptr<gguf> gguf_;
  std::vector<tensor> tensors_;
  std::unordered_map<std::string_view, std::size_t> index_;  // views into tensors_, which moves as a whole
  model_config config_;
};

}  // namespace effinfer::inline v0::checkpoint
