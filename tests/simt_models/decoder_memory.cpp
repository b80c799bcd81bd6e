// What sequences remember on a device: every cache and the recurrent state, through the whole decoder on the host context. Each is bit for
// bit another read of itself, and writes what the CPU writes with it.

#include "simt/device.hpp"
#include "simt_models/session_reads.hpp"
#include "simt_models/small_checkpoint.hpp"

#include <effinfer/decoding/greedy.hpp>
#include <effinfer/kv_cache/paged.hpp>
#include <effinfer/model.hpp>
#include <effinfer/models/cuda/decoder.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace decoder_memory_tests {

namespace ei = effinfer;
namespace kv = ei::kv_cache;
using ei::bf16;
using ei::fp8_e4m3;
using namespace session_reads;
// One head size: less to compile.
using host = simt_host::on_host<bf16, 32>;

namespace {

/// none, with the products of one format.
struct as_bf16 {
  using slot = ei::slot::quantization;
  static constexpr std::string_view name = "as_bf16";
  using formats = ei::quantization::formats<ei::quantization::format::bf16>;
  static constexpr ei::quantization::storage target(ei::quantization::matrix_use, ei::weight_format stored,
                                                    std::ptrdiff_t) {
    return {stored, 0};
  }
};

template <class Cache>
using on_host = ei::model<as_bf16, host, Cache>;
template <class Cache>
using on_cpu = ei::model<as_bf16, ei::execution::cpu, Cache>;
using linear_on_host = ei::model<ei::models::linear_llama, as_bf16, host>;
using linear_on_cpu = ei::model<ei::models::linear_llama, as_bf16, ei::execution::cpu>;

const std::string models = EFFINFER_SHIPPED_MODELS;

template <class Model>
Model load_small(const small_checkpoint::folder& folder, int multiprocessors = 1) {
  constexpr bool linear = std::is_same_v<Model, linear_on_host>;
  small_checkpoint::write(
      folder.path(),
      {.architecture = linear ? "effinfer_linear" : "llama", .layers = 2, .heads = 4, .kv_heads = 2, .head_size = 32});
  return Model::load(folder.path(), {}, host{.multiprocessors = multiprocessors});
}

int likeliest(std::span<const float> logits) {
  return static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// The tokens that a model writes behind a prompt, of which `few` are read before the rest.
template <class Model>
std::vector<int> written(const Model& model, const std::vector<int>& prompt, int count) {
  auto session = model.start({.context_tokens = 96});
  std::vector<int> all;
  auto logits = session.append(prompt);
  for (int i = 0; i < count; ++i) {
    all.push_back(likeliest(logits));
    logits = session.append(std::span(&all.back(), 1));
  }
  return all;
}

template <class Session>
std::vector<float> behind(Session&& session, const std::vector<int>& tokens) {
  const auto logits = session.append(tokens);
  return {logits.begin(), logits.end()};
}

}  // namespace

TEST_CASE_TEMPLATE("the shipped model writes the CPU's greedy tokens with this cache", Cache, kv::contiguous<kv::int8>,
                   kv::contiguous<fp8_e4m3>) {
  const std::string path = models + "/shakespeare-llama";
  const auto cpu = on_cpu<Cache>::load(path, {}, ei::execution::cpu{.threads = 1});
  const auto gpu = on_host<Cache>::load(path, {}, host{.multiprocessors = 4});
  const int count = sanitized ? 2 : 8;
  for (const std::size_t length : {3U, 20U}) {  // few tokens are decode steps, more are a long read
    if (sanitized && length > 16) continue;
    const std::vector<int> prompt = some_tokens(length, 1000, length);
    CHECK(written(gpu, prompt, count) == written(cpu, prompt, count));
  }
}

TEST_CASE("the shipped linear model writes the CPU's greedy tokens") {
  const std::string path = models + "/shakespeare-linear";
  const auto cpu = linear_on_cpu::load(path, {}, ei::execution::cpu{.threads = 1});
  const auto gpu = linear_on_host::load(path, {}, host{.multiprocessors = 4});
  const std::vector<int> prompt = some_tokens(sanitized ? 3 : 20, 1000, 3);
  CHECK(written(gpu, prompt, sanitized ? 2 : 10) == written(cpu, prompt, sanitized ? 2 : 10));
}

TEST_CASE_TEMPLATE("a paged cache gives the bits of a contiguous one, and takes over its saved sessions", T, bf16,
                   kv::int8, fp8_e4m3) {
  const small_checkpoint::folder folder;
  const auto contiguous = load_small<on_host<kv::contiguous<T>>>(folder);
  const auto paged = load_small<on_host<kv::paged<T, 64>>>(folder);
  const ei::session_options options{.context_tokens = 150, .prefill_chunk = 70};
  const std::vector<int> tokens = some_tokens(sanitized ? 5 : 131, 97);  // beyond two blocks
  auto a = contiguous.start(options);
  auto b = paged.start(options);
  CHECK(read(a, tokens, {3, 90}) == read(b, tokens, {3, 90}));
  auto c = paged.start(options);
  c.restore(a.save());
  CHECK(a.save() == b.save());
  CHECK(behind(b.fork(), {7}) == behind(a, {7}));
  CHECK(behind(c, {7}) == behind(b, {7}));
}

// The reads of one model, whatever it remembers with.
TEST_CASE_TEMPLATE("bit for bit: in whatever passes, alone or in a batch; forks, copies, saved sessions, back", Model,
                   on_host<kv::ring<kv::int8>>, on_host<kv::paged<kv::int8, 64>>, linear_on_host) {
  constexpr bool linear = std::is_same_v<Model, linear_on_host>;
  const small_checkpoint::folder folder;
  const Model model = load_small<Model>(folder);
  const std::vector<int> tokens = some_tokens(sanitized ? 5 : 70, 97);
  const auto in_chunks = [&](int chunk, const std::vector<int>& sizes, const Model& of) {
    auto session = of.start({.context_tokens = 96, .prefill_chunk = chunk});
    return read(session, tokens, sizes);
  };
  const rows whole = in_chunks(96, {96}, model), steps = in_chunks(96, {7}, model);
  CHECK(in_chunks(7, {96}, model) == whole);
  CHECK(in_chunks(4, {5, 16, 3}, model) == steps);
  CHECK(in_chunks(13, {17, 53}, load_small<Model>(folder, 40)) == whole);
  if (linear) {
    CHECK(steps == whole);
  } else if (!sanitized) {
    CHECK(steps != whole);  // else this shows nothing
  }

  const ei::session_options options{.context_tokens = 96, .prefill_chunk = 8};
  std::vector<typename Model::session_type> sessions;
  std::vector<typename Model::session_type*> pointers;
  rows alone;
  std::vector<int> next;
  for (int i = 0; i < (sanitized ? 2 : 4); ++i) {
    sessions.push_back(model.start(options));
    sessions.back().append(some_tokens(3 + 15 * static_cast<std::size_t>(i), 97, static_cast<std::uint64_t>(i)));
    next.push_back(i);
    alone.push_back(behind(sessions.back().fork(), {i}));
  }
  for (auto& s : sessions) pointers.push_back(&s);
  auto batch = model.make_batch(5);
  const auto together = batch.step(pointers, next);
  for (std::size_t i = 0; i < sessions.size(); ++i) {
    const float* row = together.row(static_cast<std::ptrdiff_t>(i));
    CHECK(std::vector<float>(row, row + together.columns) == alone[i]);
  }

  const std::vector<int> text(tokens.begin(), tokens.begin() + (sanitized ? 5 : 25));
  auto straight = model.start(options);
  read(straight, text, {5});
  const std::vector<float> wanted = behind(straight, {5});
  auto back = model.start(options);
  read(back, text, {5});
  back.mark();
  back.append(some_tokens(3, 97, 9));
  back.rollback(static_cast<int>(text.size()));
  CHECK(behind(back.fork(), {5}) == wanted);
  auto other = model.start(options);
  read(other, some_tokens(4, 97, 11), {4});
  other.become(back);
  CHECK(behind(other, {5}) == wanted);
  auto restored = model.start(options);
  restored.restore(back.save());
  CHECK(behind(restored.fork(), {5}) == wanted);
  back.truncate(2);
  read(back, {text.begin() + 2, text.end()}, {5});
  CHECK(behind(back, {5}) == wanted);
  auto bytes = restored.save();
  bytes.pop_back();
  CHECK_THROWS_AS(restored.restore(bytes), ei::error);
  CHECK(behind(restored, {5}) == wanted);
}

TEST_CASE_TEMPLATE("a tree gives the bits of its paths one by one, and what is kept is as if it alone had been read",
                   Model, on_host<kv::contiguous<bf16>>, on_host<kv::ring<kv::int8>>, on_host<kv::paged<kv::int8, 64>>,
                   linear_on_host) {
  const small_checkpoint::folder folder;
  const Model model = load_small<Model>(folder);
  constexpr bool ring = std::is_same_v<Model, on_host<kv::ring<kv::int8>>>;  // it lets tokens go for guesses too
  // The ring has let tokens go then, and others cross a tile.
  const ei::session_options options{.context_tokens = Model::decoder::slides ? 60 : 160, .prefill_chunk = 32};
  const std::vector<int> tree = {0, 1, 2, 2, 3, 1, 0, 1, 2, 3, 4, 1}, chain = {0, 1, 2};
  const std::vector<std::vector<int>> kept = {{0, 1, 3, 4}, {}, {6, 7, 8, 9, 10}};
  auto session = model.start(options);
  session.append(some_tokens(sanitized ? 3 : ring ? 122 : 62, 97));
  std::uint64_t seed = 20;
  for (const std::vector<int>& path : kept) {
    if (sanitized && seed > 21) break;
    const std::vector<int> tokens = some_tokens(tree.size(), 97, seed++);
    auto alone = session.fork();
    alone.mark();
    rows wanted;
    for (std::size_t t = 0; t < tree.size(); ++t) {
      std::vector<int> way(static_cast<std::size_t>(tree[t]) + 1, tokens[t]);
      for (std::size_t at = t + 1, depth = way.size(); at-- > 0 && depth > 0;) {
        if (tree[at] + 1 != static_cast<int>(depth)) continue;
        way[--depth] = tokens[at];
      }
      wanted.push_back(behind(alone, way));
      alone.rollback(session.position());
    }
    rows got;
    session.append_tree(tokens, tree, {},
                        [&](int, std::span<const float> logits) { got.emplace_back(logits.begin(), logits.end()); });
    CHECK(got == wanted);
    std::vector<int> stays;
    for (const int row : path) stays.push_back(tokens[static_cast<std::size_t>(row)]);
    session.keep(path);
    if (!stays.empty()) alone.append(stays);
    CHECK(behind(session.fork(), {7}) == behind(alone.fork(), {7}));
    if (!ring) CHECK(session.save() == alone.save());
    // A chain needs no branches.
    const std::vector<int> guesses = some_tokens(3, 97, seed++);
    session.append_tree(guesses, chain, {}, [](int, std::span<const float>) {});
    session.keep(std::vector<int>{0, 1});
    alone.append(std::span(guesses).first(2));
    CHECK(behind(session.fork(), {7}) == behind(alone.fork(), {7}));
    if (!ring) CHECK(session.save() == alone.save());
  }
}

TEST_CASE_TEMPLATE("memory is counted exactly, and steps are graphs", Model, on_host<kv::ring<kv::int8>>,
                   on_host<kv::paged<kv::int8, 64>>, linear_on_host) {
  const small_checkpoint::folder folder;
  simt_host::device_counts counts;
  (void)load_small<Model>(folder);
  const host where{.counts = &counts};
  const Model model = Model::load(folder.path(), {}, where);
  const ei::session_options options{.context_tokens = 100, .prefill_chunk = 20};
  const auto asked = Model::memory_footprint(folder.path(), {.session = options}, where);
  CHECK(counts.bytes == asked.owned_bytes);
  auto session = model.start(options);
  CHECK(counts.bytes + counts.host_bytes == asked.total());
  const auto before = counts;
  read(session, some_tokens(4, 97), {1});
  CHECK(counts.graphs - before.graphs == 3);
  CHECK(counts.allocations == before.allocations);
  CHECK_THROWS_AS(session.append(std::vector<int>{-1}), ei::error);
  if (!Model::decoder::slides) {
    CHECK_THROWS_AS(session.append(some_tokens(97, 97)), ei::error);
    CHECK(session.position() == 4);
  }
}

}  // namespace decoder_memory_tests
