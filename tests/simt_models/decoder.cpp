// The decoder of models/cuda on the host context: a whole model through the CUDA kernels, against one in double and against the CPU's.

#include "checkpoint/gguf_writer.hpp"
#include "simt/device.hpp"
#include "simt_models/plain_decoder.hpp"
#include "simt_models/session_reads.hpp"
#include "simt_models/small_checkpoint.hpp"

#include <effinfer/model.hpp>
#include <effinfer/models/cuda/decoder.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <limits>
#include <memory_resource>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace decoder_tests {

namespace ei = effinfer;
using ei::bf16;
using ei::f16;
using ei::quantization::at_load;
using namespace session_reads;
using simt_host::device_counts;
// Head sizes that the models here have: less to compile.
template <class T>
using host = simt_host::on_host<T, 32, 64>;
/// Compiled once for all of what can be chosen when a model is loaded.
using small = ei::model<at_load, host<bf16>>;
/// none, with the products of floats alone.
struct floats {
  using slot = ei::slot::quantization;
  static constexpr std::string_view name = "floats";
  using formats = ei::quantization::float_formats;
  static constexpr ei::quantization::storage target(ei::quantization::matrix_use, ei::weight_format stored,
                                                    std::ptrdiff_t) {
    return {stored, 0};
  }
};
using windowed = ei::model<ei::attention::sliding_window<7>, floats, host<bf16>>;

namespace {

const std::string shipped = std::string(EFFINFER_SHIPPED_MODELS) + "/shakespeare-llama";

double worst(const rows& got, const std::vector<plain::row>& wanted) {
  double most = 0;
  REQUIRE(got.size() == wanted.size());
  for (std::size_t t = 0; t < got.size(); ++t) {
    for (std::size_t v = 0; v < got[t].size(); ++v) {
      const double off = std::abs(static_cast<double>(got[t][v]) - wanted[t][v]);
      most = off <= most ? most : off;  // a NaN stays
    }
  }
  return most;
}
rows as_rows(const std::vector<plain::row>& of) {
  rows all;
  for (const auto& r : of) all.emplace_back(r.begin(), r.end());
  return all;
}

/// Logits are no further from those in double than twice what the rounding of the same numbers costs there; read in steps, and with
/// `long_too` all at once.
template <class T, class Model, class Quantization>
void check_logits(const std::string& path, const Quantization& policy, std::size_t count, bool long_too, int window = 0,
                  const ei::session_options& options = {.context_tokens = 64, .prefill_chunk = 64},
                  bool wgmma = false) {
  const auto files = ei::checkpoint::model_files::open(path);
  const std::vector<int> tokens = some_tokens(count, files.config().vocabulary_size);
  const auto wanted = plain::decoder<plain::exact, Quantization>(files, policy, window)(tokens);
  const double rounding = worst(as_rows(plain::decoder<T, Quantization>(files, policy, window)(tokens)), wanted);
  CHECK(rounding > 0);
  device_counts counts;
  const Model model = Model::load(
      path, {}, policy, host<T>{.multiprocessors = 3, .shared_bytes = 227 * 1024, .wgmma = wgmma, .counts = &counts});
  for (const std::vector<int>& sizes : {std::vector<int>{2, 5, 1}, std::vector<int>{64}}) {
    if (sizes[0] == 64 ? !long_too : wgmma) continue;
    auto session = model.start(options);
    const double error = worst(read(session, tokens, sizes), wanted);
    CHECK_MESSAGE(error <= 2 * rounding + 1e-5, path, ": ", error, " where rounding costs ", rounding);
  }
  CHECK((counts.wgmma_kernels > 0) == wgmma);
}

}  // namespace

TEST_CASE("the shipped model: logits near those in double") {
  check_logits<bf16, small>(shipped, at_load{}, sanitized ? 2 : 18, !sanitized);
}

TEST_CASE("biases, norms of heads, windows, groups of heads and quantized weights: logits near those in double") {
  const small_checkpoint::folder folder;
  const auto& path = folder.path();
  const auto check = [&]<class T, class Model>(const small_checkpoint::shape& s, const auto& policy, int window,
                                               std::type_identity<Model>, T) {
    small_checkpoint::write(path, s);
    check_logits<T, Model>(path, policy, sanitized ? 3 : 18, !sanitized, window);
  };
  const std::type_identity<small> any;
  const floats none;
  // Three heads share one; keys in f16 beside activations in bf16 have the decode kernel alone.
  check({.architecture = "qwen2"}, at_load{}, 0, any, bf16{});
  check({.architecture = "qwen2", .layers = 1, .heads = 4, .kv_heads = 2, .head_size = 32}, none, 0,
        std::type_identity<ei::model<floats, host<bf16>, ei::kv_cache::contiguous<f16>>>(), bf16{});
  check({.architecture = "qwen3", .dtype = "F16", .layers = 1, .heads = 6, .tied = true}, none, 0,
        std::type_identity<ei::model<floats, host<f16>>>(), f16{});
  check({.dtype = "F32", .layers = 1}, at_load{}, 0, any, bf16{});
  check({.architecture = "mistral", .window = 9}, at_load{at_load::choice::int8}, 9, any, bf16{});
  check({.layers = 1, .tied = true}, none, 7, std::type_identity<windowed>(), bf16{});
  check({.feed_forward_width = 128}, at_load{at_load::choice::int4_32}, 0, any, bf16{});
  check({.dtype = "F16", .layers = 1, .tied = true}, at_load{at_load::choice::int4_128}, 0, any, bf16{});
  check({.dtype = "F8_E4M3", .layers = 1}, at_load{}, 0, any, bf16{});
  check({.dtype = "F8_E4M3", .scales = "rows", .layers = 1}, at_load{}, 0, any, bf16{});
  check({.dtype = "F8_E4M3", .scales = "blocks", .width = 256, .feed_forward_width = 384, .layers = 1, .heads = 4},
        at_load{}, 0, any, bf16{});
  check({.architecture = "qwen2", .layers = 1}, ei::quantization::fp8{}, 0,
        std::type_identity<ei::model<ei::quantization::fp8, host<bf16>>>(), bf16{});
}

namespace {

/// The tests' GGUF models are of one shape. This has each matrix from another of them, as files of mixed formats have, and a head of its own.
void write_mixed(const std::string& path) {
  const std::string data = std::string(EFFINFER_TEST_DATA) + "/models/llama-";
  test::gguf_writer w;
  w.add("general.architecture", "llama").add("llama.embedding_length", 256U).add("llama.feed_forward_length", 256U);
  w.add("llama.block_count", 1U).add("llama.attention.head_count", 4U).add("llama.attention.head_count_kv", 1U);
  const auto add = [&](const char* name, const char* from, const char* as, std::uint32_t type) {
    const auto files = ei::checkpoint::model_files::open(data + from + "/model.gguf");
    const auto& t = files.at(std::string(name) + ".weight");
    std::vector<std::uint64_t> dimensions(t.shape.rbegin(), t.shape.rend());
    w.add_tensor(std::string(as) + ".weight", dimensions, type,
                 {reinterpret_cast<const char*>(t.data.data()), t.data.size()});
  };
  for (const char* norm : {"output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"}) add(norm, "q4_k", norm, 0);
  add("token_embd", "q5_k", "token_embd", 13), add("token_embd", "q6_k", "output", 14);
  add("blk.0.attn_q", "q4_k", "blk.0.attn_q", 12), add("blk.0.attn_k", "q4_k", "blk.0.attn_k", 12);
  add("blk.0.attn_v", "q6_k", "blk.0.attn_v", 14), add("blk.0.attn_output", "q4_1", "blk.0.attn_output", 3);
  add("blk.0.ffn_gate", "q8_0", "blk.0.ffn_gate", 8), add("blk.0.ffn_up", "q5_0-q5_1", "blk.0.ffn_up", 7);
  add("blk.0.ffn_down", "q4_0", "blk.0.ffn_down", 2);
  std::ofstream(path, std::ios::binary) << w.file();
}

}  // namespace

TEST_CASE("GGUF files, every format of blocks and several in one file: logits near those in double") {
  const std::string data = std::string(EFFINFER_TEST_DATA) + "/models/llama-";
  for (const char* name : {"q8_0", "q4_0", "q4_1", "q5_0-q5_1", "q4_k", "q5_k", "q6_k"}) {
    check_logits<bf16, small>(data + name + "/model.gguf", at_load{}, sanitized ? 2 : 9, false);
    if (sanitized) return;
  }
  const small_checkpoint::folder folder;
  const std::string mixed = folder.path() + "/mixed.gguf";
  write_mixed(mixed);
  check_logits<bf16, small>(mixed, at_load{}, 18, true);
  device_counts counts;
  const auto asked = small::memory_footprint(mixed, {}, host<bf16>{});
  const small model = small::load(mixed, {}, host<bf16>{.counts = &counts});
  CHECK(counts.bytes == asked.owned_bytes);
  // With the shared memory of compute capability 8.6, other kernels give the same bits.
  const small tight = small::load(mixed, {}, host<bf16>{.shared_bytes = 99 * 1024});
  const std::vector<int> tokens = some_tokens(20, ei::checkpoint::model_files::open(mixed).config().vocabulary_size);
  for (const std::vector<int>& sizes : {std::vector<int>{1, 2}, std::vector<int>{9, 11}}) {
    auto here = tight.start({.context_tokens = 32}), there = model.start({.context_tokens = 32});
    CHECK(read(here, tokens, sizes) == read(there, tokens, sizes));
  }
}

TEST_CASE("long reads in the form for Hopper: logits near those in double") {
  const small_checkpoint::folder folder;
  small_checkpoint::write(folder.path(), {});
  const ei::session_options options = {.context_tokens = 192, .prefill_chunk = 64};
  check_logits<bf16, small>(folder.path(), at_load{}, sanitized ? 18 : 140, true, 0, options, true);
  for (const at_load::choice weights : {at_load::choice::int8, at_load::choice::int4_32})
    check_logits<bf16, small>(folder.path(), at_load{weights}, sanitized ? 18 : 40, true, 0, options, true);
}

namespace {

template <class Model>
Model load_small(const small_checkpoint::folder& folder, const host<bf16>& where = {}) {
  small_checkpoint::write(folder.path(), {.layers = 1});
  return Model::load(folder.path(), {}, where);
}

}  // namespace

TEST_CASE_TEMPLATE("bit for bit: in whatever passes and reads, alone or in a batch, on any device", Model, small,
                   windowed) {
  const small_checkpoint::folder folder;
  const Model model = load_small<Model>(folder);
  std::vector<typename Model::session_type> sessions;
  std::vector<typename Model::session_type*> pointers;
  rows alone;
  std::vector<int> next;
  for (int i = 0; i < (sanitized ? 3 : 10); ++i) {
    sessions.push_back(model.start({.context_tokens = 32 + 8 * (i % 2), .prefill_chunk = 8}));
    const std::vector<int> prompt = some_tokens(static_cast<std::size_t>(3 + i), 97, static_cast<std::uint64_t>(i));
    sessions.back().append(prompt);
    auto fork = sessions.back().fork();
    next.push_back(i);
    const auto logits = fork.append(std::span(&next.back(), 1));
    alone.emplace_back(logits.begin(), logits.end());
  }
  for (auto& s : sessions) pointers.push_back(&s);
  auto batch = model.make_batch(10);
  const auto together = batch.step(pointers, next);
  for (std::size_t i = 0; i < sessions.size(); ++i) {
    const float* row = together.row(static_cast<std::ptrdiff_t>(i));
    CHECK(std::vector<float>(row, row + together.columns) == alone[i]);
  }
  if (sanitized) return;

  const std::vector<int> tokens = some_tokens(34, 97);
  const auto in_chunks = [&](int chunk, const std::vector<int>& sizes, const Model& of) {
    auto session = of.start({.context_tokens = 64, .prefill_chunk = chunk});
    return read(session, tokens, sizes);
  };
  const rows whole = in_chunks(34, {34}, model), steps = in_chunks(34, {1}, model);
  CHECK(in_chunks(7, {34}, model) == whole);
  CHECK(in_chunks(1, {34}, model) == whole);
  CHECK(in_chunks(11, {17, 17}, model) == whole);
  CHECK(in_chunks(8, {16, 3, 15}, model) == steps);
  CHECK(in_chunks(1, {16, 3, 15}, model) == steps);
  auto last = model.start({.context_tokens = 64, .prefill_chunk = 1});
  for (const std::size_t first : {0U, 10U, 20U}) {  // only the last token's logits are asked for
    const auto logits = last.append(std::span(tokens).subspan(first, 10));
    CHECK(std::vector<float>(logits.begin(), logits.end()) == steps[first + 9]);
  }
  CHECK(steps != whole);  // else this shows nothing
  const Model shuffled = load_small<Model>(folder, {.multiprocessors = 40, .order = simt_host::thread_order::shuffled});
  CHECK(in_chunks(11, {34}, shuffled) == whole);

  // Long reads by wgmma, for attention and the products of a layer, and steps as ever.
  device_counts counts;
  const Model hopper =
      load_small<Model>(folder, {.multiprocessors = 3, .shared_bytes = 227 * 1024, .wgmma = true, .counts = &counts});
  const rows whole_there = in_chunks(34, {34}, hopper);
  CHECK(counts.wgmma_kernels >= 5);
  CHECK(in_chunks(7, {34}, hopper) == whole_there);
  CHECK(in_chunks(1, {34}, hopper) == whole_there);
  CHECK(in_chunks(20, {17, 17}, hopper) == whole_there);
  CHECK(in_chunks(8, {16, 3, 15}, hopper) == steps);
}

TEST_CASE_TEMPLATE("back, forks, copies and saved sessions", Model, small, windowed) {
  const small_checkpoint::folder folder;
  const Model model = load_small<Model>(folder);
  const std::vector<int> tokens = some_tokens(sanitized ? 9 : 75, 97);  // beyond what a ring holds
  const ei::session_options options{.context_tokens = 80, .prefill_chunk = 6};
  auto straight = model.start(options);
  const rows wanted = read(straight, tokens, {5});
  auto back = model.start(options);
  read(back, tokens, {5});
  back.append(some_tokens(3, 97, 9));
  back.truncate(static_cast<int>(tokens.size()));
  const int token = 5;
  const auto logits = straight.append(std::span(&token, 1));
  const std::vector<float> behind(logits.begin(), logits.end());
  const auto same = [&](auto session) {
    const auto got = session.append(std::span(&token, 1));
    return std::equal(got.begin(), got.end(), behind.begin(), behind.end());
  };
  CHECK(same(back.fork()));
  auto other = model.start(options);
  read(other, tokens, {11, 5});
  other.become(back);
  CHECK(same(other.fork()));
  auto restored = model.start(options);
  restored.restore(back.save());
  CHECK(same(restored.fork()));
  back.truncate(2);  // a ring has let these go, and reads them again
  CHECK(read(back, {tokens.begin() + 2, tokens.end()}, {5}).back() == wanted.back());
  auto bytes = restored.save();
  bytes.resize(bytes.size() - 1);
  CHECK_THROWS_AS(restored.restore(bytes), ei::error);
}

TEST_CASE("a step is a graph from the second on, and nothing is allocated or copied but the token") {
  const small_checkpoint::folder folder;
  device_counts counts;
  const small model = load_small<small>(folder, {.counts = &counts});
  const auto asked =
      small::memory_footprint(folder.path(), {.session = {.context_tokens = 50, .prefill_chunk = 20}}, host<bf16>{});
  CHECK(counts.bytes == asked.owned_bytes);
  auto session = model.start({.context_tokens = 50, .prefill_chunk = 20});
  CHECK(counts.bytes + counts.host_bytes == asked.total());
  session.append(some_tokens(21, 97));
  const device_counts before = counts;
  const ei::decoding::sample rule{.temperature = 0.9F, .top_k = 20, .top_p = 0.95F, .min_p = 0.01F};
  auto fork = session.fork();
  const device_counts after_fork = counts;
  int token = 4;
  ei::decoding::workspace scratch(ei::execution::best_instruction_set());
  for (int i = 0; i < 4; ++i) {
    const ei::random_stream random{7};
    const auto logits = fork.append(std::span(&token, 1));
    std::vector<float> row(logits.begin(), logits.end());
    const auto chosen = session.append_and_choose(token, rule, random);
    token = rule(row, session.tokens(), random, static_cast<std::uint64_t>(session.position()), scratch);
    if (chosen) CHECK(*chosen == token);  // the portable kernels of the host leave it to the host
  }
  CHECK(counts.graphs - before.graphs == 6);                // all but the first of each
  CHECK(counts.allocations - after_fork.allocations == 2);  // the fork's workspace, when it first read
  if (ei::execution::best_instruction_set() != ei::execution::instruction_set::portable)
    CHECK(counts.downloaded - before.downloaded == 4 * (97 * sizeof(float) + sizeof(int)));
  CHECK(!session.append_and_choose(1, ei::decoding::sample{.repetition_penalty = 1.2F}, {}));
  const auto late = session.logits(0), now = fork.append(std::vector<int>{1});
  CHECK(std::equal(late.begin(), late.end(), now.begin(), now.end()));
}

TEST_CASE("what a device can't do is said when the model is loaded") {
  const small_checkpoint::folder folder;
  const auto refused = [&]<class Model>(std::type_identity<Model>, const std::string& path, const auto&... values) {
    try {
      (void)Model::load(path, {}, values...);
    } catch (const ei::error& e) {
      return std::string(to_string(e.code())) + ": " + e.what();
    }
    return std::string("loaded");
  };
  const auto says = [](const std::string& message, const char* code, const char* part) {
    CHECK_MESSAGE((message.rfind(code, 0) == 0 && message.find(part) != std::string::npos), message);
  };
  const std::type_identity<small> plain;
  small_checkpoint::write(folder.path(), {.dtype = "F16", .layers = 1});
  says(refused(plain, folder.path()), "unsupported", "execution::cuda_f16");
  small_checkpoint::write(folder.path(), {.feed_forward_width = 96, .layers = 1});
  says(refused(plain, folder.path()), "unsupported", "96 inputs are no multiple of 64");
  small_checkpoint::write(folder.path(), {.layers = 1, .heads = 2, .kv_heads = 2, .head_size = 80});
  says(refused(plain, folder.path()), "unsupported", "heads of 80");
  small_checkpoint::write(folder.path(), {.layers = 1, .heads = 1, .head_size = 128});
  says(refused(plain, folder.path()), "unsupported", "compiled for heads of 32, 64 here");
  says(
      refused(plain, std::string(EFFINFER_TEST_DATA) + "/models/llama-q8_0/model.gguf", at_load{at_load::choice::int8}),
      "unsupported", "Q8_0");
  small_checkpoint::write(folder.path(), {.dtype = "F8_E4M3", .layers = 1});
  says(refused(plain, folder.path(), at_load{at_load::choice::int8}), "unsupported", "F8_E4M3");
  says(refused(std::type_identity<ei::model<floats, host<bf16>>>(), folder.path()), "unsupported", "F8_E4M3");
  small_checkpoint::write(folder.path(), {.dtype = "F8_E4M3", .scales = "blocks", .layers = 1});  // 192 inputs
  says(refused(plain, folder.path()), "unsupported", "192 inputs are no whole number of blocks of 128");
  small_checkpoint::write(folder.path(), {.layers = 1});
  says(refused(plain, folder.path(), host<bf16>{.memory = 1 << 16}), "device", "bytes");
  const small model = small::load(folder.path());
  std::pmr::monotonic_buffer_resource memory;
  CHECK_THROWS_AS((void)model.start({.memory = &memory}), ei::error);
  CHECK_THROWS_AS((void)small::load(folder.path(), {.packed_cache = folder.path()}), ei::error);
  auto session = model.start({.context_tokens = 4});
  CHECK_THROWS_AS(session.append(some_tokens(5, 97)), ei::error);
}

TEST_CASE("int4 groups: no further than rounding to the nearest of the whole range, exact where they can be") {
  namespace cuda = ei::quantization::cuda;
  std::vector<std::uint8_t> codes(32);
  cuda::int4_group group;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const std::vector<float> values = ei::testing::numbers(32, seed, 0.1F);
    REQUIRE(cuda::encode_int4_group(values.data(), 32, codes.data(), group));
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    const double step = (static_cast<double>(*high) - static_cast<double>(*low)) / 15;
    double squares = 0;
    for (std::size_t i = 0; i < 32; ++i)
      squares += std::pow(static_cast<double>(static_cast<float>(group.scale)) * (codes[i] - group.zero) -
                              static_cast<double>(values[i]),
                          2);
    CHECK(squares <= 32 * step * step / 4);
  }
  std::vector<float> exact;
  for (int i = 0; i < 32; ++i) exact.push_back(0.25F * static_cast<float>(i % 16 - 5));
  REQUIRE(cuda::encode_int4_group(exact.data(), 32, codes.data(), group));
  for (std::size_t i = 0; i < 32; ++i)
    CHECK(static_cast<float>(group.scale) * static_cast<float>(codes[i] - group.zero) == exact[i]);
  const std::vector<float> zeros(32, 0.0F);
  REQUIRE(cuda::encode_int4_group(zeros.data(), 32, codes.data(), group));
  for (const auto code : codes) CHECK(code == group.zero);
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), 3e38F}) {
    exact[17] = bad;
    CHECK(!cuda::encode_int4_group(exact.data(), 32, codes.data(), group));
  }
}

}  // namespace decoder_tests
