#pragma once
// The safetensors format: eight bytes of length, a JSON header of that length, then the tensors' bytes.
// Source: the format's README (huggingface/safetensors). Everything is checked against the file's size before use.

#include <effinfer/checkpoint/tensor.hpp>
#include <effinfer/core/json.hpp>

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace effinfer::inline v0::checkpoint {

/// The tensors of a safetensors file whose bytes are `file`; they point into it. `name` stands in errors.
///
/// Errors: `malformed` (a header longer than the file, JSON that isn't, offsets out of order or out of the file, overlapping
/// tensors, a name that stands twice, a size that isn't what dtype and shape say), `missing` and `mismatch` (a field of a tensor
/// isn't there or has another type), `limit` (a header over 100 MB, as in the format's own reader).
inline std::vector<tensor> read_safetensors(std::span<const std::byte> file, const std::string& name) {
  const auto malformed = [&](const std::string& where, const std::string& problem) {
    throw error(error_code::malformed, where, problem);
  };
  if (file.size() < 8)
    malformed(name, "the file has " + std::to_string(file.size()) + " bytes, too few for the header's length");
  std::uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i)
    header_bytes = header_bytes << 8 | std::to_integer<std::uint64_t>(file[static_cast<std::size_t>(i)]);
  if (header_bytes > file.size() - 8) {
    malformed(name + ": header length", std::to_string(header_bytes) + " bytes are more than the " +
                                            std::to_string(file.size() - 8) +
                                            " that follow; the file may be cut short");
  }
  if (header_bytes > 100'000'000) {
    throw error(error_code::limit, name + ": header length",
                std::to_string(header_bytes) + " bytes are more than 100000000");
  }
  const std::string_view header(reinterpret_cast<const char*>(file.data()) + 8, static_cast<std::size_t>(header_bytes));
  const auto data = file.subspan(8 + static_cast<std::size_t>(header_bytes));
  const json::document document(header, name + ": header", {.bytes = 100'000'000, .depth = 8});

  std::vector<tensor> tensors;
  std::unordered_set<std::string_view> names;
  for (const auto& [key, entry] : document.root().members()) {
    if (key == "__metadata__") continue;
    if (!names.insert(key).second) malformed(name + ": tensor " + std::string(key), "the tensor is there twice");
    tensor t;
    t.name = std::string(key);
    t.file = name;
    const std::string where = name + ": tensor " + t.name;
    const std::string_view dtype = entry.at("dtype").string();
    std::uint64_t element_bytes = 1;
    if (dtype == "F32") {
      t.format = weight_format::f32, element_bytes = 4;
    } else if (dtype == "F16") {
      t.format = weight_format::f16, element_bytes = 2;
    } else if (dtype == "BF16") {
      t.format = weight_format::bf16, element_bytes = 2;
    } else if (dtype == "F8_E4M3") {
      t.format = weight_format::fp8_e4m3;
    } else if (dtype == "F64" || dtype == "I64" || dtype == "U64") {
      element_bytes = 8;
    } else if (dtype == "I32" || dtype == "U32") {
      element_bytes = 4;
    } else if (dtype == "I16" || dtype == "U16") {
      element_bytes = 2;
    } else if (dtype != "I8" && dtype != "U8" && dtype != "BOOL" && dtype.substr(0, 3) != "F8_") {
      element_bytes = 0;  // a type from after this was written: its size isn't known, its range is checked all the same
    }
    const json::value shape = entry.at("shape");
    if (shape.size() > 8) malformed(where, "its shape has " + std::to_string(shape.size()) + " dimensions");
    std::uint64_t bytes = element_bytes;
    for (const json::value& dimension : shape.elements()) {
      const std::int64_t n = dimension.integer(0, std::int64_t{1} << 48);
      if (n != 0 && bytes > (std::uint64_t{1} << 62) / static_cast<std::uint64_t>(n))
        malformed(where, "its shape is absurdly large");
      bytes *= static_cast<std::uint64_t>(n);
      t.shape.push_back(n);
    }
    const json::value offsets = entry.at("data_offsets");
    if (offsets.size() != 2) malformed(where, "data_offsets are " + std::to_string(offsets.size()) + " numbers, not 2");
    const auto begin = static_cast<std::uint64_t>(offsets[0].integer(0, std::int64_t{1} << 62));
    const auto end = static_cast<std::uint64_t>(offsets[1].integer(0, std::int64_t{1} << 62));
    if (begin > end || end > data.size()) {
      malformed(where, "data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) + "] are not in the " +
                           std::to_string(data.size()) + " bytes behind the header; the file may be cut short");
    }
    if (element_bytes != 0 && end - begin != bytes) {
      malformed(where, "it has " + std::to_string(end - begin) + " bytes, but " + std::string(dtype) +
                           " of its shape takes " + std::to_string(bytes));
    }
    t.data = data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    tensors.push_back(std::move(t));
  }
  check_disjoint(tensors);
  return tensors;
}

}  // namespace effinfer::inline v0::checkpoint
