#pragma once
// The SIMT context of execution/simt/context.hpp on the host: a block's threads are fibers on one thread of the machine. What CUDA
// leaves undefined is a `simt_error` that names the threads and the place.
//
// A fiber runs until it must wait for others. Barriers and warp operations complete when all they concern have come; where some
// wait for one thing and some for another, or have ended, threads have diverged. Every byte of shared memory knows who wrote
// and read it last and since which barrier, so that a missing barrier is found in any order of the threads; the order can be
// chosen all the same, as a kernel's result may not depend on it.

#include <effinfer/core/dtype.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/fragments.hpp>

#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>
#include <boost/context/stack_context.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define EFFINFER_FIBERS_TELL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EFFINFER_FIBERS_TELL_ASAN 1
#endif
#endif
#ifdef EFFINFER_FIBERS_TELL_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt_host {

namespace simt = effinfer::execution::simt;
using simt::warp_size;

/// What CUDA calls undefined behaviour.
struct simt_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class thread_order { forward, reverse, shuffled };

struct launch {
  int blocks = 1, blocks_y = 1;
  int threads = 32;
  int shared_bytes = 0;
  thread_order order = thread_order::forward;
  unsigned seed = 1;
  /// What the kernels before this one do; runs when all threads of a block await it. A kernel that never does so fails then.
  std::function<void()> predecessors = {};
};

class thread_block;
class hopper_block;  // what of a block hopper.hpp keeps

/// An element of shared memory, read and written through the block's checks.
template <class T>
class shared_element {
 public:
  shared_element(thread_block& of, int thread, std::ptrdiff_t offset) : of_(&of), thread_(thread), offset_(offset) {}
  operator T() const;  // NOLINT(google-explicit-constructor): stands for a T
  const shared_element& operator=(T value) const;
  const shared_element& operator=(const shared_element& other) const { return *this = static_cast<T>(other); }
  const shared_element& operator+=(T value) const { return *this = static_cast<T>(*this) + value; }

 private:
  thread_block* of_;
  int thread_;
  std::ptrdiff_t offset_;  // in bytes
};

/// What `shared` returns: a pointer that knows how far it may go.
template <class T>
class shared_array {
 public:
  shared_array(thread_block& of, int thread, std::ptrdiff_t offset, std::ptrdiff_t begin, std::ptrdiff_t end)
      : of_(&of), thread_(thread), offset_(offset), begin_(begin), end_(end) {}
  shared_element<T> operator[](std::ptrdiff_t i) const { return {*of_, thread_, checked(i)}; }
  shared_array operator+(std::ptrdiff_t i) const {
    return {*of_, thread_, offset_ + i * std::ptrdiff_t{sizeof(T)}, begin_, end_};
  }
  template <class U>
  [[nodiscard]] shared_array<U> as() const {
    return {*of_, thread_, offset_, begin_, end_};
  }
  [[nodiscard]] std::ptrdiff_t checked(std::ptrdiff_t i, std::ptrdiff_t bytes = sizeof(T)) const {
    const std::ptrdiff_t at = offset_ + i * std::ptrdiff_t{sizeof(T)};
    if (at < begin_ || at + bytes > end_) {
      throw simt_error("thread " + std::to_string(thread_) + ": shared element " +
                       std::to_string((at - begin_) / std::ptrdiff_t{sizeof(T)}) + " is outside an array of " +
                       std::to_string((end_ - begin_) / std::ptrdiff_t{sizeof(T)}));
    }
    return at;
  }

 private:
  thread_block* of_;
  int thread_;
  std::ptrdiff_t offset_, begin_, end_;
};

/// The fibers' stacks, for Boost.Context. They are kept for the next block: new ones are new pages, which take longer than many a kernel.
class kept_stacks {
 public:
  static constexpr std::size_t bytes = 256 * 1024;
  static boost::context::stack_context allocate() {
    auto& stacks = kept().stacks;
    if (stacks.empty()) return boost::context::fixedsize_stack(bytes).allocate();
    const boost::context::stack_context one = stacks.back();
    stacks.pop_back();
#ifdef EFFINFER_FIBERS_TELL_ASAN
    // Frames of the fiber before this one never returned.
    __asan_unpoison_memory_region(static_cast<const char*>(one.sp) - one.size, one.size);
#endif
    return one;
  }
  static void deallocate(boost::context::stack_context& one) { kept().stacks.push_back(one); }

 private:
  struct unused {
    std::vector<boost::context::stack_context> stacks;
    unused() = default;
    unused(const unused&) = delete;
    unused& operator=(const unused&) = delete;
    ~unused() {
      for (auto& one : stacks) boost::context::fixedsize_stack(bytes).deallocate(one);
    }
  };
  static unused& kept() {
    static unused all;
    return all;
  }
};

/// One block of a grid, while it runs.
class thread_block {
 public:
  thread_block(const launch& l, int x, int y) : launch_(l), x_(x), y_(y), memory_(bytes(l), std::byte{0xff}) {
    if (l.threads < 1 || l.threads % warp_size != 0) throw simt_error("a block is whole warps");
    threads_.resize(static_cast<std::size_t>(l.threads));
    warps_.resize(static_cast<std::size_t>(l.threads / warp_size));
    shadow_.swap(kept_shadow());
    if (shadow_.size() < memory_.size()) shadow_.resize(memory_.size());
    static std::uint32_t blocks = 0;
    number_ = ++blocks;
  }
  thread_block(const thread_block&) = delete;
  thread_block& operator=(const thread_block&) = delete;
  ~thread_block() { shadow_.swap(kept_shadow()); }

  /// Runs kernel(context) in every thread.
  template <class Kernel>
  void run(const Kernel& kernel);

 private:
  friend class context;
  friend class hopper_block;
  template <class T>
  friend class shared_element;

  static std::size_t bytes(const launch& l) { return static_cast<std::size_t>(l.shared_bytes); }

  struct abandoned {};  // thrown in the threads that are left when one has failed, so that they end too
  enum class state { ready, at_barrier, at_warp, at_condition, at_predecessors, ended };
  struct async_copy {
    std::size_t to, size;
    std::array<std::byte, 16> bytes;
    int group;
  };
  struct thread {
    boost::context::fiber fiber, scheduler;
    state at = state::ready;
    std::string operation;  // what a waiting lane called
    std::array<std::byte, 64> given{};
    std::size_t shared_used = 0;
    std::function<bool()> may_go_on;  // at a condition
    int group = 0;                    // of copies, the one being filled
    bool has_awaited = false;
    std::vector<async_copy> copies;
    const void* stack_bottom = nullptr;
    void* fake_stack = nullptr;
  };
  struct warp {
    std::array<std::array<std::byte, 64>, warp_size> given{};  // of the last operation that completed
    std::uint32_t epoch = 0;                                   // warp barriers so far
  };
  /// Who touched a byte, and when: thread numbers, or none or many. What another block left counts for nothing.
  struct byte_state {
    static constexpr int none = -1, many = -2;
    static constexpr int atomics = -2 * warp_size;  // as a writer: no thread's, and of no warp
    int writer = none, reader = none, reader_warp = none;
    std::uint32_t written_block = 0, written_warp = 0, read_block = 0, read_warp = 0;
    std::uint32_t written_at = 0, read_at = 0;  // by the clock of who did it
    std::uint32_t known = 0, pending = 0;       // true or not
    std::uint32_t block = 0;                    // its number
    bool operator==(const byte_state& other) const { return std::memcmp(this, &other, sizeof other) == 0; }
  };
  static_assert(std::has_unique_object_representations_v<byte_state>);
  byte_state& state_of(std::size_t at) {
    byte_state& b = shadow_[at];
    if (b.block != number_) b = {}, b.block = number_;
    return b;
  }
  static std::vector<byte_state>& kept_shadow() {
    static std::vector<byte_state> one;
    return one;
  }

  std::size_t index(int t) const { return static_cast<std::size_t>(t); }
  warp& warp_of(int t) { return warps_[index(t / warp_size)]; }

  /// What each thread knows of the others' clocks, where threads meet otherwise than at barriers of the block (hopper.hpp): a vector clock
  /// (Lamport 1978; Mattern 1989). Behind the threads' clocks stand those of other things that write.
  using clocks = std::vector<std::uint32_t>;
  [[nodiscard]] std::uint32_t now(int t) const { return known_.empty() ? 0 : known_[index(t)][index(t)]; }
  static void join(clocks& into, const clocks& from) {
    for (std::size_t i = 0; i < into.size(); ++i) into[i] = std::max(into[i], from[i]);
  }

  /// True where something that happened then is ordered before what thread `t` does now.
  bool ordered(int t, int who, std::uint32_t block_epoch, std::uint32_t warp_epoch, std::uint32_t at) {
    return who == t || block_epoch < epoch_ || (who / warp_size == t / warp_size && warp_epoch < warp_of(t).epoch) ||
           (who >= 0 && !known_.empty() && known_[index(t)][index(who)] >= at);
  }

  void note_read(int t, std::size_t first, std::size_t bytes) {
    for_each_state(first, bytes, [&](byte_state& b, std::size_t at) {
      if (b.pending != 0) fail(t, at, "reads a copy in the background before its wait");
      if (b.known == 0) fail(t, at, "reads what nobody has written");
      if (!ordered(t, b.writer, b.written_block, b.written_warp, b.written_at))
        fail(t, at, "reads what thread " + std::to_string(b.writer) + " wrote, without a barrier between them");
      const bool fresh = b.reader == byte_state::none || b.read_block != epoch_;
      b.reader = fresh || b.reader == t ? t : byte_state::many;
      b.reader_warp = fresh || b.reader_warp == t / warp_size ? t / warp_size : byte_state::many;
      b.read_block = epoch_, b.read_warp = warp_of(t).epoch, b.read_at = now(t);
    });
  }
  void note_write(int t, std::size_t first, std::size_t bytes) {
    for_each_state(first, bytes, [&](byte_state& b, std::size_t at) {
      if (b.pending != 0) fail(t, at, "writes where a copy in the background is on its way");
      if (b.known != 0 && !ordered(t, b.writer, b.written_block, b.written_warp, b.written_at))
        fail(t, at, "writes what thread " + std::to_string(b.writer) + " wrote, without a barrier between them");
      const bool in_warp = b.reader_warp == t / warp_size && b.read_warp < warp_of(t).epoch;
      const bool after_it = b.reader >= 0 && ordered(t, b.reader, b.read_block, b.read_warp, b.read_at);
      if (b.reader != byte_state::none && b.reader != t && b.read_block == epoch_ && !in_warp && !after_it)
        fail(t, at, "writes what another thread reads, without a barrier between them");
      b.known = 1, b.writer = t, b.written_block = epoch_, b.written_warp = warp_of(t).epoch, b.written_at = now(t);
      b.reader = b.reader_warp = byte_state::none;
    });
    if (!check_readers_) return;
    for (std::size_t at = first; at < first + bytes; at = (at / 16 + 1) * 16) check_readers_(t, at);
  }
  /// note(state, byte) for the bytes; once where neighbours are in the same state, as those of an element are.
  template <class Note>
  void for_each_state(std::size_t first, std::size_t bytes, const Note& note) {
    byte_state before, after;
    for (std::size_t at = first; at < first + bytes; ++at) {
      byte_state& b = state_of(at);
      if (at == first || b != before) {
        before = b;
        note(b, at);
        after = b;
      } else {
        b = after;
      }
    }
  }
  /// Atomic additions are ordered among themselves, and before or after all else by a barrier of the block.
  void note_atomic(int t, std::size_t at) {
    byte_state& b = state_of(at);
    if (b.writer == byte_state::atomics && b.written_block == epoch_ && b.reader == byte_state::none) return;
    const bool own =
        b.known != 0 && b.writer == t && b.written_block == epoch_;  // a plain write, which others must not miss
    note_read(t, at, 1);
    note_write(t, at, 1);
    if (!own) b.writer = byte_state::atomics;
  }
  [[noreturn]] void fail(int t, std::size_t at, const std::string& what) const {
    throw simt_error("block " + std::to_string(x_) + ", thread " + std::to_string(t) + " " + what + " (shared byte " +
                     std::to_string(at) + ")");
  }

  /// Gives the machine back until what the thread waits for has come.
  void wait(int t, state at, const std::string& operation) {
    if (failure_ != nullptr) throw abandoned();  // again: a test's CHECK may have caught the first
    thread& self = threads_[index(t)];
    self.at = at;
    self.operation = operation;
#ifdef EFFINFER_FIBERS_TELL_ASAN
    __sanitizer_start_switch_fiber(&self.fake_stack, main_bottom_, main_size_);
#endif
    self.scheduler = std::move(self.scheduler).resume();
#ifdef EFFINFER_FIBERS_TELL_ASAN
    __sanitizer_finish_switch_fiber(self.fake_stack, &main_bottom_, &main_size_);
#endif
    if (failure_ != nullptr) throw abandoned();
  }
  template <class T>
  void give(int t, const T& value) {
    static_assert(sizeof(T) <= 64 && std::is_trivially_copyable_v<T>);
    std::memcpy(threads_[index(t)].given.data(), &value, sizeof value);
  }
  template <class T>
  T given(int t, int lane) {
    T value;
    std::memcpy(&value, warp_of(t).given[index(lane)].data(), sizeof value);
    return value;
  }

  void resume(thread& t) {
#ifdef EFFINFER_FIBERS_TELL_ASAN
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, t.stack_bottom, kept_stacks::bytes);
#endif
    t.fiber = std::move(t.fiber).resume();
#ifdef EFFINFER_FIBERS_TELL_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  }
  /// Threads that know of each other all that they know, and begin a new time each.
  void meet(int first, int count) {
    clocks all = known_[index(first)];
    for (int t = first + 1; t < first + count; ++t) join(all, known_[index(t)]);
    for (int t = first; t < first + count; ++t) known_[index(t)] = all, ++known_[index(t)][index(t)];
  }
  std::vector<int> order() const;
  bool release();
  [[nodiscard]] simt_error diverged() const;

  launch launch_;
  int x_, y_;
  std::vector<std::byte> memory_;
  std::vector<byte_state> shadow_;  // of memory_; longer where an earlier block's was
  std::uint32_t number_ = 0;        // the block's
  std::vector<thread> threads_;
  std::vector<warp> warps_;
  std::uint32_t epoch_ = 0;  // block barriers so far
  std::vector<clocks> known_;
  std::shared_ptr<hopper_block> hopper_;
  std::function<void(int, std::size_t)> check_readers_;  // other readers than threads
  std::vector<std::function<void()>> background_;        // what happens when no thread can go on: as late as it may
  std::function<std::string()> unfinished_;              // at the block's end
  std::minstd_rand random_{launch_.seed};
  std::exception_ptr failure_;
  const void* main_bottom_ = nullptr;
  std::size_t main_size_ = 0;
};

/// The context of one thread.
class context {
 public:
  friend class hopper_block;
  context(thread_block& of, int thread) : of_(&of), thread_(thread) {}

  [[nodiscard]] int thread() const { return thread_; }
  [[nodiscard]] int threads() const { return of_->launch_.threads; }
  [[nodiscard]] int block() const { return of_->x_; }
  [[nodiscard]] int block_y() const { return of_->y_; }
  [[nodiscard]] int blocks() const { return of_->launch_.blocks; }
  [[nodiscard]] int lane() const { return thread_ % warp_size; }
  [[nodiscard]] int warp() const { return thread_ / warp_size; }

  void barrier() { of_->wait(thread_, thread_block::state::at_barrier, "barrier"); }
  void warp_barrier() { of_->wait(thread_, thread_block::state::at_warp, "warp_barrier"); }

  template <class T>
  T shuffle(T v, int lane) {
    exchange(v, "shuffle");
    return of_->given<T>(thread_, lane % warp_size);
  }
  template <class T>
  T shuffle_xor(T v, int mask) {
    exchange(v, "shuffle_xor");
    return of_->given<T>(thread_, (lane() ^ mask) % warp_size);
  }
  template <class T>
  T shuffle_down(T v, int by) {
    exchange(v, "shuffle_down");
    return of_->given<T>(thread_, lane() + by < warp_size ? lane() + by : lane());
  }
  std::uint32_t ballot(bool b) {
    exchange(b, "ballot");
    std::uint32_t bits = 0;
    for (int i = 0; i < warp_size; ++i) bits |= of_->given<bool>(thread_, i) ? 1U << i : 0U;
    return bits;
  }
  bool any(bool b) { return ballot(b) != 0; }

  template <class T>
  shared_array<T> shared(int count) {
    auto& self = of_->threads_[of_->index(thread_)];
    const std::size_t begin = (self.shared_used + 15) / 16 * 16,
                      end = begin + sizeof(T) * static_cast<std::size_t>(count);
    if (end > of_->memory_.size()) {
      throw simt_error("the kernel asks for " + std::to_string(end) + " bytes of shared memory, launched with " +
                       std::to_string(of_->memory_.size()));
    }
    self.shared_used = end;
    return {*of_, thread_, static_cast<std::ptrdiff_t>(begin), static_cast<std::ptrdiff_t>(begin),
            static_cast<std::ptrdiff_t>(end)};
  }

  template <class T>
  shared_array<T> kept(const shared_array<T>& a) const {
    return a;
  }
  template <class U, class T>
  shared_array<U> as(const shared_array<T>& a) const {
    return a.template as<U>();
  }
  template <int Bytes = 16, class T>
  void copy_async(const shared_array<T>& to, std::ptrdiff_t i, const T* from) {
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
    const auto at = static_cast<std::size_t>(to.checked(i, Bytes));
    if (at % Bytes != 0 || reinterpret_cast<std::uintptr_t>(from) % Bytes != 0) {
      throw simt_error("thread " + std::to_string(thread_) + ": copy_async of an address that isn't " +
                       std::to_string(Bytes) + "-byte aligned");
    }
    auto& self = of_->threads_[of_->index(thread_)];
    thread_block::async_copy copy{at, Bytes, {}, self.group};
    std::memcpy(copy.bytes.data(), from, Bytes);
    of_->note_write(thread_, at, Bytes);
    for (std::size_t b = at; b < at + Bytes; ++b) {
      of_->state_of(b).pending = 1;
      of_->memory_[b] = std::byte{0xff};
    }
    self.copies.push_back(copy);
  }
  void commit() { ++of_->threads_[of_->index(thread_)].group; }
  template <int N>
  void wait() {
    auto& self = of_->threads_[of_->index(thread_)];
    std::vector<thread_block::async_copy> left;
    for (const auto& c : self.copies) {
      if (c.group >= self.group - N) {
        left.push_back(c);
        continue;
      }
      std::copy_n(c.bytes.begin(), c.size, of_->memory_.begin() + static_cast<std::ptrdiff_t>(c.to));
      for (std::size_t b = c.to; b < c.to + c.size; ++b) of_->state_of(b).pending = 0;
      of_->note_write(thread_, c.to, c.size);
    }
    self.copies = std::move(left);
  }

  template <class T>
  void load_matrices(const shared_array<T>& from, std::ptrdiff_t i, std::uint32_t (&r)[4]) {
    const auto rows = exchange_rows(from, i, "load_matrices");
    for (int m = 0; m < 4; ++m) {
      const auto row = rows(m * 8 + lane() / 4);
      std::memcpy(&r[m], row.data() + lane() % 4 * 2, 4);
    }
  }
  template <class T>
  void load_matrices_transposed(const shared_array<T>& from, std::ptrdiff_t i, std::uint32_t (&r)[4]) {
    const auto rows = exchange_rows(from, i, "load_matrices_transposed");
    for (int m = 0; m < 4; ++m) {
      const auto column = static_cast<std::size_t>(lane() / 4);
      const std::uint32_t first = rows(m * 8 + lane() % 4 * 2)[column],
                          second = rows(m * 8 + lane() % 4 * 2 + 1)[column];
      r[m] = first | second << 16;
    }
  }

  static float exp2(float x) { return x < -126 ? 0.0F : std::exp2(x); }

  /// One sum an element, ascending k: a tensor core adds in some other order.
  template <class T>
  void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], T /*type*/) {
    struct operands {
      std::uint32_t a[4], b[2];
    } own{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    exchange(own, "mma");
    // The lane's two rows of A and two columns of B, by k.
    float rows[2][16], columns[2][16];
    const auto unpack = [](std::uint32_t two, float* to) {
      to[0] = static_cast<float>(T::from_bits(static_cast<std::uint16_t>(two)));
      to[1] = static_cast<float>(T::from_bits(static_cast<std::uint16_t>(two >> 16)));
    };
    const auto first = simt::d_element(lane(), 0);
    for (int pair = 0; pair < 4; ++pair) {
      const operands of_row = of_->given<operands>(thread_, simt::a_place(first.row, 2 * pair).lane);
      const operands of_column[2] = {of_->given<operands>(thread_, simt::b_place(2 * pair, first.column).lane),
                                     of_->given<operands>(thread_, simt::b_place(2 * pair, first.column + 1).lane)};
      for (const int k : {2 * pair, 2 * pair + 8}) {
        for (int i = 0; i < 2; ++i) {
          unpack(of_row.a[simt::a_place(first.row + 8 * i, k).i / 2], &rows[i][k]);
          unpack(of_column[i].b[simt::b_place(k, first.column + i).i / 2], &columns[i][k]);
        }
      }
    }
    for (int k = 0; k < 16; ++k) {
      d[0] += rows[0][k] * columns[0][k];
      d[1] += rows[0][k] * columns[1][k];
      d[2] += rows[1][k] * columns[0][k];
      d[3] += rows[1][k] * columns[1][k];
    }
  }

  void mma(std::int32_t (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], std::int8_t /*type*/) {
    struct operands {
      std::uint32_t a[4], b[2];
    } own{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    exchange(own, "mma of 8 bits");
    const auto byte = [](const std::uint32_t* registers, int i) {
      return static_cast<std::int32_t>(static_cast<std::int8_t>(registers[i / 4] >> (i % 4 * 8)));
    };
    for (int i = 0; i < 4; ++i) {
      const auto [row, column] = simt::d_element(lane(), i);
      for (int k = 0; k < 32; ++k) {
        const auto pa = simt::a_place_8_bit(row, k), pb = simt::b_place_8_bit(k, column);
        d[i] +=
            byte(of_->given<operands>(thread_, pa.lane).a, pa.i) * byte(of_->given<operands>(thread_, pb.lane).b, pb.i);
      }
    }
  }

  /// All lanes of the warp come here.
  void warp_step(const char* operation) { of_->wait(thread_, thread_block::state::at_warp, operation); }
  /// The lane's two rows of the 16 x 16 matrix that the warp's registers hold.
  template <class T>
  void rows_of_a(const std::uint32_t (&a)[4], float (&rows)[2][16]) {
    struct operand {
      std::uint32_t a[4];
    } own{{a[0], a[1], a[2], a[3]}};
    exchange(own, "wgmma of registers");
    for (int half = 0; half < 2; ++half) {
      for (int k = 0; k < 16; ++k) {
        const auto place = simt::a_place(lane() / 4 + half * 8, k);
        const auto from = of_->given<operand>(thread_, place.lane);
        rows[half][k] =
            static_cast<float>(T::from_bits(static_cast<std::uint16_t>(from.a[place.i / 2] >> (place.i % 2 * 16))));
      }
    }
  }

  /// Until all threads of the block call it, or have ended: what runs before then hasn't seen launch.predecessors.
  void await_predecessors() {
    of_->wait(thread_, thread_block::state::at_predecessors, "await_predecessors");
    of_->threads_[of_->index(thread_)].has_awaited = true;
  }
  static void prefetch(const void* /*p*/) {}
  static void fence() {}  // blocks run one after the other

  template <class T>
  T atomic_add(T* p, T v) {
    return std::exchange(*p, *p + v);
  }
  template <class T>
  void atomic_add(const shared_array<T>& a, std::ptrdiff_t i, T v) {
    const auto at = static_cast<std::size_t>(a.checked(i));
    for (std::size_t b = at; b < at + sizeof(T); ++b) of_->note_atomic(thread_, b);
    T now;
    std::memcpy(&now, of_->memory_.data() + at, sizeof(T));
    now = static_cast<T>(now + v);
    std::memcpy(of_->memory_.data() + at, &now, sizeof(T));
  }

 private:
  template <class T>
  void exchange(const T& value, const char* operation) {
    of_->give(thread_, value);
    of_->wait(thread_, thread_block::state::at_warp, operation);
  }
  /// Every lane reads the row that it says, for all; what is returned gives a lane's row.
  template <class T>
  auto exchange_rows(const shared_array<T>& from, std::ptrdiff_t i, const char* operation) {
    const auto at = static_cast<std::size_t>(from.checked(i, 16));
    if (at % 16 != 0) {
      throw simt_error("thread " + std::to_string(thread_) + ": " + operation +
                       " of an address that isn't 16-byte aligned");
    }
    of_->note_read(thread_, at, 16);
    using row = std::array<std::uint16_t, 8>;
    row own;
    std::memcpy(own.data(), of_->memory_.data() + at, sizeof own);
    exchange(own, operation);
    return [this](int lane) { return of_->given<row>(thread_, lane); };
  }

  thread_block* of_;
  int thread_;
};

template <class T>
shared_element<T>::operator T() const {
  T value;
  of_->note_read(thread_, static_cast<std::size_t>(offset_), sizeof(T));
  std::memcpy(&value, of_->memory_.data() + offset_, sizeof(T));
  return value;
}
template <class T>
const shared_element<T>& shared_element<T>::operator=(T value) const {
  of_->note_write(thread_, static_cast<std::size_t>(offset_), sizeof(T));
  std::memcpy(of_->memory_.data() + offset_, &value, sizeof(T));
  return *this;
}

inline std::vector<int> thread_block::order() const {
  std::vector<int> all(threads_.size());
  std::iota(all.begin(), all.end(), 0);
  if (launch_.order == thread_order::reverse) std::reverse(all.begin(), all.end());
  if (launch_.order == thread_order::shuffled) std::shuffle(all.begin(), all.end(), std::mt19937(launch_.seed));
  return all;
}

/// Lets those go on whose operation is complete. False where there are none.
inline bool thread_block::release() {
  bool any = false;
  for (std::size_t w = 0; w < warps_.size(); ++w) {
    const std::span<thread> lanes(threads_.data() + w * warp_size, warp_size);
    const bool complete = std::all_of(lanes.begin(), lanes.end(), [&](const thread& t) {
      return t.at == state::at_warp && t.operation == lanes[0].operation;
    });
    if (!complete) continue;
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      warps_[w].given[i] = lanes[i].given;
      lanes[i].at = state::ready;
    }
    if (lanes[0].operation == "warp_barrier") {
      ++warps_[w].epoch;
      if (!known_.empty()) meet(static_cast<int>(w) * warp_size, warp_size);
    }
    any = true;
  }
  for (thread& t : threads_) {
    if (t.at != state::at_condition || !t.may_go_on()) continue;
    t.at = state::ready;
    any = true;
  }
  if (any) return true;
  const auto waits = [](const thread& t) { return t.at == state::at_predecessors || t.at == state::ended; };
  if (std::all_of(threads_.begin(), threads_.end(), waits)) {
    if (launch_.predecessors) launch_.predecessors();
    for (thread& t : threads_) t.at = t.at == state::at_predecessors ? state::ready : t.at;
    return true;
  }
  if (!std::all_of(threads_.begin(), threads_.end(), [](const thread& t) { return t.at == state::at_barrier; })) {
    if (background_.empty()) return false;
    // Any of them may be the next to happen.
    const std::size_t last = background_.size() - 1;
    const std::size_t which = launch_.order == thread_order::forward   ? 0
                              : launch_.order == thread_order::reverse ? last
                                                                       : random_() % (last + 1);
    const std::function<void()> one = std::move(background_[which]);
    background_.erase(background_.begin() + static_cast<std::ptrdiff_t>(which));
    one();
    return true;
  }
  for (thread& t : threads_) t.at = state::ready;
  ++epoch_;
  return true;
}

inline simt_error thread_block::diverged() const {
  std::string what = "block " + std::to_string(x_) + ": threads have diverged: ";
  std::string last;
  for (std::size_t t = 0; t < threads_.size(); ++t) {
    const std::string now = threads_[t].at == state::ended ? "ended" : "at " + threads_[t].operation;
    if (now != last) what += (last.empty() ? "" : ", ") + ("from thread " + std::to_string(t) + " on ") + now;
    last = now;
  }
  return simt_error(what);
}

template <class Kernel>
void thread_block::run(const Kernel& kernel) {
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    thread& t = threads_[i];
    const boost::context::stack_context stack = kept_stacks::allocate();
    t.stack_bottom = static_cast<const char*>(stack.sp) - stack.size;
    t.fiber = boost::context::fiber(
        std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack), kept_stacks(),
        [this, &kernel, &t, i](boost::context::fiber&& scheduler) {
#ifdef EFFINFER_FIBERS_TELL_ASAN
          __sanitizer_finish_switch_fiber(nullptr, &main_bottom_, &main_size_);
#endif
          t.scheduler = std::move(scheduler);
          try {
            if (failure_ != nullptr) throw abandoned();
            context own(*this, static_cast<int>(i));
            kernel(own);
            if (!t.copies.empty())
              throw simt_error("thread " + std::to_string(i) + " ends with copies it didn't wait for");
            if (launch_.predecessors && !t.has_awaited)
              throw simt_error("thread " + std::to_string(i) + " ends without having awaited the kernels before");
          } catch (const abandoned&) {
          } catch (...) {
            if (failure_ == nullptr) failure_ = std::current_exception();
          }
          t.at = state::ended;
#ifdef EFFINFER_FIBERS_TELL_ASAN
          __sanitizer_start_switch_fiber(nullptr, main_bottom_, main_size_);
#endif
          return std::move(t.scheduler);
        });
  }
  const std::vector<int> all = order();
  while (failure_ == nullptr) {
    for (const int t : all) {
      thread& one = threads_[index(t)];
      if (one.at == state::ready && failure_ == nullptr) resume(one);
    }
    if (std::all_of(threads_.begin(), threads_.end(), [](const thread& t) { return t.at == state::ended; })) break;
    if (failure_ == nullptr && !release()) failure_ = std::make_exception_ptr(diverged());
  }
  if (failure_ == nullptr && !background_.empty())
    failure_ = std::make_exception_ptr(simt_error("a block ends while copies are on their way"));
  if (failure_ == nullptr && unfinished_ && !unfinished_().empty())
    failure_ = std::make_exception_ptr(simt_error(unfinished_()));
  if (failure_ == nullptr) return;
  for (thread& t : threads_) {
    if (t.at != state::ended) resume(t);
  }
  std::rethrow_exception(failure_);
}

/// Runs a kernel: kernel(context) for each thread of each block, the blocks one after the other.
template <class Kernel>
void run(const launch& l, const Kernel& kernel) {
  for (int y = 0; y < l.blocks_y; ++y) {
    for (int x = 0; x < l.blocks; ++x) thread_block(l, x, y).run(kernel);
  }
}

/// Runs K over K::plan(a). On a GPU bench/gpu/simt/host.hpp does this: tests that start kernels so run there too.
template <class K>
void start(const typename K::args& a, thread_order order = thread_order::shuffled,
           const std::function<void()>& predecessors = {}) {
  const auto g = K::plan(a);
  run({.blocks = g.blocks,
       .blocks_y = g.blocks < 1 ? 0 : g.blocks_y,
       .threads = g.threads,
       .shared_bytes = g.shared_bytes,
       .order = order,
       .predecessors = predecessors},
      [&](auto& t) { simt::run_kernel<K>(t, a); });
}

/// The same in each order of the threads, which must not matter: before each `prepare` makes the outputs anew, after it `check` looks.
template <class Prepare, class Kernel, class Check>
void run_in_all_orders(launch l, const Prepare& prepare, const Kernel& kernel, const Check& check) {
  for (const thread_order order : {thread_order::forward, thread_order::reverse, thread_order::shuffled}) {
    l.order = order;
    prepare();
    run(l, kernel);
    check();
  }
}

}  // namespace simt_host
