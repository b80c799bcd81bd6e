#pragma once
// Packed weights kept in a file: a later start maps what the first one packed, and reads them where they lie.
//
// The file is a head and then the matrices as in memory (packed_matrix.hpp). The head is text, and all of it but the last line
// follows from the checkpoint and the policy:
//
//   effinfer packed weights
//   layout 1, little endian
//   source of 1315714464 bytes, modified 1763896500, contents 7d0a9be3c52f8814
//   blk.0.attn_q.weight Q8_0 group 0, 2048 x 2048, 4456448 bytes at 0
//   ...
//   data 1313251456 bytes, sample 52b1f09a44e6cd07
//
// So a file is checked by writing down what must stand there and comparing: no number is taken from it. Whatever differs
// (another checkpoint, policy or layout, a file cut short), the weights are packed anew.

#include <effinfer/checkpoint/mapped_file.hpp>
#include <effinfer/checkpoint/model_files.hpp>
#include <effinfer/checkpoint/replacing_file.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/quantization/packed_matrix.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace effinfer::inline v0::models {

/// A matrix's place among the packed weights.
struct packed_place {
  std::string tensor;
  quantization::packed_matrix layout;  ///< without data
  std::uint64_t offset = 0;
};

class packed_cache {
 public:
  /// Where the weights of `files`, packed as `places` say, are kept: in the file `path`, or, if that is a folder, in a file there
  /// whose name is the checkpoint's and a number that differs between checkpoints and policies.
  packed_cache(const std::string& path, const checkpoint::model_files& files, std::span<const packed_place> places) {
    std::string table;
    for (const packed_place& p : places) {
      const auto& m = p.layout;
      table += p.tensor + " " + std::string(to_string(m.format)) + " group " + std::to_string(m.group) + ", " +
               std::to_string(m.rows) + " x " + std::to_string(m.columns) + ", " + std::to_string(m.bytes()) +
               " bytes at " + std::to_string(p.offset) + "\n";
      data_bytes_ = std::max(data_bytes_, p.offset + m.bytes());
    }
    constexpr bool little = std::endian::native == std::endian::little;
    head_ = std::string(first_line) + "layout " + std::to_string(quantization::packed_layout_version) +
            (little ? ", little endian\n" : ", big endian\n") + source_line(files) + table;
    path_ = checkpoint::is_folder(path) ? path + "/" + name_in_folder(files, table) : path;
  }

  /// The path of the file.
  [[nodiscard]] const std::string& path() const { return path_; }

  /// The file, if it is there and holds these weights.
  ///
  /// Cost: the head, and 64 bytes of each MiB of data.
  /// Errors: `io`, where it is there and can't be read; `mismatch`, for a file that isn't one of packed weights: it would be
  /// overwritten.
  [[nodiscard]] std::optional<checkpoint::mapped_file> find() const {
    if (!checkpoint::is_file(path_)) return std::nullopt;
    checkpoint::mapped_file file(path_);
    if (!file.text().starts_with(first_line)) {
      throw error(error_code::mismatch, path_, "is not a file of packed weights, and isn't overwritten",
                  "give packed_cache another name");
    }
    if (file.bytes().size() != head_bytes() + data_bytes_ || !file.text().starts_with(head_)) return std::nullopt;
#if defined(MADV_HUGEPAGE)
    // Advice: what isn't in memory is read in huge pages, where the file system can.
    ::madvise(const_cast<std::byte*>(file.bytes().data()), file.bytes().size(), MADV_HUGEPAGE);
#endif
    if (file.text().substr(0, head_bytes()) != whole_head(data_of(file))) return std::nullopt;
    return file;
  }
  /// The weights in a file that `find` gave.
  [[nodiscard]] std::span<const std::byte> data_of(const checkpoint::mapped_file& file) const {
    return file.bytes().subspan(head_bytes());
  }

  /// Keeps `data`. It isn't forced to the disk: after a power failure the file may be shorter, or lack a part of its data,
  /// and is made anew. Errors: `io`.
  void write(checkpoint::replacing_file& file, std::span<const std::byte> data) const {
    const std::string head = whole_head(data);
    file.finish(std::as_bytes(std::span(head)), data);
  }

 private:
  static constexpr std::string_view first_line = "effinfer packed weights\n";
  static constexpr std::size_t sample_bytes = 64;

  /// A hash of 64 bits; not for defence against people who make files to deceive it.
  class hash {
   public:
    void add(std::uint64_t word) {
      value_ = (value_ ^ word) * 0x9E3779B97F4A7C15U;
      value_ ^= value_ >> 32;
    }
    void add(const void* bytes, std::size_t size) {
      add(size);
      for (std::size_t i = 0; i < size; i += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, static_cast<const std::byte*>(bytes) + i, std::min<std::size_t>(8, size - i));
        add(word);
      }
    }
    /// 64 bytes at each multiple of `step` and the last 64.
    void add_samples(std::span<const std::byte> bytes, std::size_t step) {
      const std::size_t last = bytes.size() - std::min(sample_bytes, bytes.size());
      for (std::size_t at = 0; at < last; at += step) add(bytes.data() + at, std::min(sample_bytes, last - at));
      add(bytes.data() + last, bytes.size() - last);
    }
    [[nodiscard]] std::string text() const {
      std::string digits;
      for (int shift = 60; shift >= 0; shift -= 4) digits += "0123456789abcdef"[(value_ >> shift) & 15];
      return digits;
    }

   private:
    std::uint64_t value_ = 0;
  };

  /// Sizes and times of the files, and a hash over each tensor's name, format, shape and three samples of its bytes. A change
  /// that misses all samples shows in the time.
  static std::string source_line(const checkpoint::model_files& files) {
    std::uint64_t bytes = 0;
    std::int64_t modified = 0;
    hash contents;
    for (const auto& map : files.maps()) {
      bytes += map->bytes().size();
      modified = std::max(modified, map->modified());
      contents.add(static_cast<std::uint64_t>(map->modified()));
      checkpoint::expect_scattered_reads(map->bytes(), true);
    }
    for (const checkpoint::tensor& t : files.tensors()) {
      contents.add(t.name.data(), t.name.size());
      contents.add(static_cast<std::uint64_t>(t.format));
      for (const std::int64_t n : t.shape) contents.add(static_cast<std::uint64_t>(n));
      contents.add_samples(t.data, std::max<std::size_t>(sample_bytes, t.data.size() / 2));
    }
    for (const auto& map : files.maps()) {
      checkpoint::expect_scattered_reads(map->bytes(), false);
      checkpoint::release_pages(map->bytes());  // a sample may have brought a huge page
    }
    return "source of " + std::to_string(bytes) + " bytes, modified " + std::to_string(modified) + ", contents " +
           contents.text() + "\n";
  }

  static std::string name_in_folder(const checkpoint::model_files& files, const std::string& table) {
    std::error_code ignored;
    const auto whole = std::filesystem::absolute(files.path(), ignored).lexically_normal();
    hash name;
    name.add(whole.string().data(), whole.string().size());
    name.add(table.data(), table.size());
    return whole.filename().string() + "-" + name.text() + ".packed";
  }

  [[nodiscard]] std::string whole_head(std::span<const std::byte> data) const {
    hash sample;
    sample.add_samples(data, std::size_t{1} << 20);
    std::string head = head_ + "data " + std::to_string(data_bytes_) + " bytes, sample " + sample.text() + "\n";
    head.resize(head_bytes());
    return head;
  }
  /// Whole pages, with room for the last line.
  [[nodiscard]] std::size_t head_bytes() const { return (head_.size() + 80 + 4095) / 4096 * 4096; }

  std::string path_, head_;
  std::uint64_t data_bytes_ = 0;
};

}  // namespace effinfer::inline v0::models
