#pragma once
// execution/simt/hopper.hpp on the host. Copies of boxes arrive when no thread can go on without them, so that nobody gets
// along without a wait; products are computed when they are asked for, and their results withheld until the wait; what they
// read must not be written till then. Swizzle and descriptors are taken literally: a wrong one reads other bytes.
//
// Bytes that a barrier's phase brings belong to the barrier: who waits for the phase, or hears from one who did, may read them.

#include "simt/host.hpp"

#include <effinfer/execution/simt/hopper.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace simt_host {

/// The host's tensor_map is the box_source itself.
inline simt::tensor_map make_tensor_map(const simt::box_source& from) {
  if (reinterpret_cast<std::uintptr_t>(from.data) % 16 != 0 || from.stride % 8 != 0 || from.columns < 64 ||
      from.box_rows < 1 || from.box_rows > 256) {
    throw simt_error("a tensor map of an address, stride or box that the engine doesn't take");
  }
  simt::tensor_map map{};
  std::memcpy(&map, &from, sizeof from);
  return map;
}

class hopper_block {
 public:
  static hopper_block& of(context& t) {
    if (t.of_->hopper_ == nullptr) t.of_->hopper_ = std::make_shared<hopper_block>(*t.of_);
    return *t.of_->hopper_;
  }
  explicit hopper_block(thread_block& b) : b_(&b), units_(b.memory_.size() / 16 + 1), fences_(b.threads_.size()) {
    const std::size_t n = b.threads_.size();
    b.known_.assign(n, thread_block::clocks(n + most_barriers));
    for (std::size_t t = 0; t < n; ++t) b.known_[t][t] = 1;
    products_.resize((n + simt::warpgroup_size - 1) / simt::warpgroup_size);
    threads_.resize(n);
    b.check_readers_ = [this](int t, std::size_t at) { check_readers(t, at); };
    b.unfinished_ = [this] {
      for (const auto& of_group : products_)
        if (!of_group.empty()) return std::string("a block ends with products that it didn't wait for");
      return std::string();
    };
  }

  // Barriers in shared memory.
  void init(int t, std::size_t at, int arrivals) {
    if (barriers_.size() == most_barriers) throw simt_error("the host knows 32 barriers a block");
    b_->note_write(t, at, 8);
    for (std::size_t i = at; i < at + 8; ++i) b_->state_of(i).known = 0;  // not for plain reads
    barrier& b = barriers_[at];
    b = {};
    b.arrivals = b.missing = arrivals;
    b.name = b_->threads_.size() + barriers_.size() - 1;
    b.gathered = b.complete = thread_block::clocks(b_->known_[0].size());
    b.made_by = t, b.made_in = b_->epoch_;
  }
  void arrive(int t, std::size_t at, int bytes = 0) {
    barrier& b = barrier_at(t, at);
    if (b.missing == 0)
      throw simt_error("thread " + std::to_string(t) + ": more arrivals than barrier " + std::to_string(at) +
                       " was told of");
    b.bytes += bytes;
    --b.missing;
    tell(t, b.gathered);
    complete(b);
  }
  void wait(int t, std::size_t at, int parity) {
    barrier& b = barrier_at(t, at);
    const auto passed = [&b, parity] { return b.phase % 2 != static_cast<unsigned>(parity); };
    if (!passed())
      wait_until(t, passed,
                 "the phase of parity " + std::to_string(parity) + " of barrier " + std::to_string(at) + " (in phase " +
                     std::to_string(b.phase) + ")");
    thread_block::join(b_->known_[index(t)], b.complete);
  }

  // Copies of boxes.
  void copy_box(int t, std::size_t to, const simt::tensor_map& map, int x, int y, std::size_t at) {
    simt::box_source from;
    std::memcpy(static_cast<void*>(&from), &map, sizeof from);
    barrier& b = barrier_at(t, at);
    const std::size_t bytes = static_cast<std::size_t>(from.box_rows) * 128;
    if (to % 1024 != 0) throw simt_error("a box goes to shared byte " + std::to_string(to) + ", no multiple of 1024");
    if (to + bytes > b_->memory_.size()) throw simt_error("a box goes beyond shared memory");
    std::vector<std::uint16_t> box(bytes / 2);
    for (int r = 0; r < from.box_rows; ++r) {
      for (int c = 0; c < 64; ++c) {
        const std::int64_t row = std::int64_t{y} + r, column = std::int64_t{x} + c;
        if (row < 0 || row >= from.rows || column < 0 || column >= from.columns) continue;
        std::memcpy(&box[static_cast<std::size_t>(simt::swizzled(r * 128 + c * 2)) / 2],
                    static_cast<const std::uint16_t*>(from.data) + row * from.stride + column, 2);
      }
    }
    b_->note_write(t, to, bytes);
    for (std::size_t i = to; i < to + bytes; ++i) {
      b_->state_of(i).pending = 1;
      b_->memory_[i] = std::byte{0xff};
    }
    b_->background_.push_back([this, &b, to, bytes, box = std::move(box)] {
      std::memcpy(b_->memory_.data() + to, box.data(), bytes);
      for (std::size_t i = to; i < to + bytes; ++i) {
        auto& s = b_->state_of(i);
        s.pending = 0;
        s.writer = static_cast<int>(b.name), s.written_at = b.phase + 1, s.written_block = nobody;
      }
      b.bytes -= static_cast<int>(bytes);
      complete(b);
    });
  }
  void fence_async(int t) {
    auto& now = b_->known_[index(t)][index(t)];
    fences_[index(t)].push_back(++now);
  }

  // Named barriers.
  void arrive_named(int t, int id, int count) {
    named& n = named_at(t, id, count);
    tell(t, n.gathered);
    if (++n.come < count) return;
    n.come = 0, n.count = 0;
    n.complete = n.gathered;
    ++n.round;
  }
  void sync_named(int t, int id, int count) {
    const unsigned round = named_at(t, id, count).round;
    arrive_named(t, id, count);
    named& n = named_[id];
    const auto passed = [&n, round] { return n.round != round; };
    if (!passed()) wait_until(t, passed, "named barrier " + std::to_string(id));
    thread_block::join(b_->known_[index(t)], n.complete);
  }

  // Products.
  void begin(int t) { threads_[index(t)].fenced = true; }
  void commit(int t) { ++threads_[index(t)].groups; }

  /// The product that the thread issues now: its B, and A if it lies in shared memory, as all threads of the warpgroup see
  /// them.
  template <class T>
  void multiply(int t, float* d, int columns, const float* rows_of_a, const simt::matrix_descriptor* a,
                simt::matrix_descriptor b, bool transposed, bool accumulate) {
    own& mine = threads_[index(t)];
    if (!mine.fenced) fail(t, "issues a product without a fence (begin) behind the last wait");
    const int n = columns * 8, group = t / simt::warpgroup_size;
    auto& list = products_[index(group)];
    product& p = list[mine.issued];
    const operands asked{b.bits, a != nullptr ? a->bits : 0, n, transposed};
    if (p.b.empty()) {
      p.of = asked;
      p.b.resize(static_cast<std::size_t>(16 * n));
      for (int i = 0; i < 16 * n; ++i) {  // along the rows in shared memory
        const int k = transposed ? i / n : i % 16, c = transposed ? i % n : i / 16;
        p.b[index(k * n + c)] = element<T>(p, transposed ? place(b, k, c) : place(b, c, k));
      }
      for (int r = 0; a != nullptr && r < 64; ++r) {
        for (int k = 0; k < 16; ++k) p.a.push_back(element<T>(p, place(*a, r, k)));
      }
      std::sort(p.units.begin(), p.units.end());
      p.units.erase(std::unique(p.units.begin(), p.units.end()), p.units.end());
      for (const std::size_t u : p.units) ++units_[u].in_flight;
    }
    if (p.of != asked) fail(t, "issues another product than its warpgroup");
    if (t % warp_size == 0) {
      for (const std::size_t u : p.units) {
        for (std::size_t i = u * 16; i < u * 16 + 16; ++i) {
          const auto &now = b_->state_of(i), &before = b_->state_of(i % 16 == 0 ? i : i - 1);
          const bool alike = now.writer == before.writer && now.written_at == before.written_at &&
                             now.pending == before.pending && now.known == before.known;
          if (i % 16 == 0 || !alike) check_read(t, i);
        }
      }
    }
    // The thread's elements, withheld.
    withheld* w = nullptr;
    for (withheld& one : mine.results)
      if (one.d == d) w = &one;
    if (w == nullptr) {
      mine.results.push_back({d, {d, d + columns * 4}, 0});
      w = &mine.results.back();
    }
    std::fill(d, d + columns * 4, std::numeric_limits<float>::quiet_NaN());
    w->group = mine.groups;
    const int first_row = t % simt::warpgroup_size / warp_size * 16 + t % warp_size / 4;
    for (int i = 0; i < columns * 4; ++i) {
      const auto place_in_8 = simt::d_element(t % warp_size, i % 4);
      const int column = i / 4 * 8 + place_in_8.column, half = i % 4 / 2;
      const float* const row = a != nullptr ? p.a.data() + (first_row + half * 8) * 16 : rows_of_a + half * 16;
      float sum = accumulate ? w->numbers[index(i)] : 0.0F;
      for (int k = 0; k < 16; ++k) sum += row[k] * p.b[index(k * n + column)];
      w->numbers[index(i)] = sum;
    }
    mine.pending.push_back({mine.issued++, mine.groups});
  }
  void finish(int t, int but) {
    own& mine = threads_[index(t)];
    mine.fenced = false;
    const int last = mine.groups - but;  // groups below this are complete
    auto& list = products_[index(t / simt::warpgroup_size)];
    std::erase_if(mine.pending, [&](const std::pair<int, int>& one) {
      if (one.second >= last) return false;
      product& p = list.at(one.first);
      if (t % warp_size == 0) {
        for (const std::size_t u : p.units) units_[u].read_at[index(t / warp_size)] = b_->now(t);
      }
      if (++p.waited == simt::warpgroup_size) {
        for (const std::size_t u : p.units) --units_[u].in_flight;
        list.erase(one.first);
      }
      return true;
    });
    std::erase_if(mine.results, [&](const withheld& w) {
      if (w.group >= last) return false;
      std::copy(w.numbers.begin(), w.numbers.end(), w.d);
      return true;
    });
  }

  [[noreturn]] static void fail(int t, const std::string& what) {
    throw simt_error("thread " + std::to_string(t) + " " + what);
  }

 private:
  static constexpr std::size_t most_barriers = 32;
  static constexpr std::uint32_t nobody =
      std::numeric_limits<std::uint32_t>::max();  // no barrier of the block orders it

  struct barrier {
    int arrivals = 0, missing = 0, bytes = 0;
    unsigned phase = 0;
    std::size_t name = 0;  // its place in the clocks
    thread_block::clocks gathered, complete;
    int made_by = 0;
    std::uint32_t made_in = 0;
  };
  struct named {
    int count = 0, come = 0;
    unsigned round = 0;
    thread_block::clocks gathered, complete;
  };
  struct unit {                               // 16 bytes that products read
    std::array<std::uint32_t, 32> read_at{};  // when each warp last waited for such
    int in_flight = 0;
  };
  struct operands {  // as the instruction names them
    std::uint64_t b = 0, a = 0;
    int n = 0;
    bool transposed = false;
    bool operator==(const operands&) const = default;
  };
  struct product {
    operands of;
    std::vector<float> a, b;
    std::vector<std::size_t> units;
    int waited = 0;
  };
  struct withheld {
    float* d;
    std::vector<float> numbers;
    int group;
  };
  struct own {
    bool fenced = false;
    int issued = 0, groups = 0;
    std::vector<std::pair<int, int>> pending;  // product, group
    std::vector<withheld> results;
  };

  static std::size_t index(int i) { return static_cast<std::size_t>(i); }

  /// What others hear from the thread here is what it did up to now.
  void tell(int t, thread_block::clocks& who) {
    auto& known = b_->known_[index(t)];
    thread_block::join(who, known);
    ++known[index(t)];
  }
  void complete(barrier& b) {
    if (b.missing != 0 || b.bytes != 0) return;
    ++b.phase;
    b.missing = b.arrivals;
    b.complete = b.gathered;
    b.complete[b.name] = b.phase;
  }
  void wait_until(int t, const std::function<bool()>& passed, const std::string& what) {
    b_->threads_[index(t)].may_go_on = passed;
    b_->wait(t, thread_block::state::at_condition, what);
  }
  barrier& barrier_at(int t, std::size_t at) {
    const auto found = barriers_.find(at);
    if (found == barriers_.end()) fail(t, "uses shared byte " + std::to_string(at) + " as a barrier: it isn't one");
    if (found->second.made_by != t && found->second.made_in == b_->epoch_)
      fail(t, "uses a barrier without a barrier of the block behind its init");
    return found->second;
  }
  named& named_at(int t, int id, int count) {
    if (id < 1 || id > 15 || count % warp_size != 0) fail(t, "uses a named barrier that there can't be");
    named& n = named_[id];
    if (n.gathered.empty()) n.gathered = n.complete = thread_block::clocks(b_->known_[0].size());
    if (n.count != 0 && n.count != count)
      fail(t, "comes to a named barrier of " + std::to_string(n.count) + " threads as one of " + std::to_string(count));
    n.count = count;
    return n;
  }

  /// Byte of row r, column c of a matrix whose rows are 64 elements wide (more columns: `leading` further).
  static std::size_t place(simt::matrix_descriptor m, int r, int c) {
    const auto field = [&](int at) { return static_cast<std::size_t>(m.bits >> at & 0x3fff) << 4; };
    if (m.bits >> 62 != 1 || (m.bits >> 49 & 7) != 0) throw simt_error("a matrix descriptor of another swizzle");
    const std::size_t at =
        field(0) + index(c / 64) * field(16) + index(r / 8) * field(32) + index(r % 8 * 128 + c % 64 * 2);
    return static_cast<std::size_t>(simt::swizzled(static_cast<int>(at)));
  }
  template <class T>
  float element(product& p, std::size_t at) {
    if (at + 2 > b_->memory_.size()) throw simt_error("a product reads beyond shared memory");
    if (p.units.empty() || p.units.back() != at / 16) p.units.push_back(at / 16);
    std::uint16_t bits = 0;
    std::memcpy(&bits, b_->memory_.data() + at, 2);
    return static_cast<float>(T::from_bits(bits));
  }
  /// As a product reads it: what threads wrote must have been fenced before they told of it.
  void check_read(int t, std::size_t at) {
    const auto& s = b_->state_of(at);
    if (s.pending != 0) b_->fail(t, at, "multiplies a copy in the background before its wait");
    if (s.known == 0) b_->fail(t, at, "multiplies what nobody has written");
    if (!b_->ordered(t, s.writer, s.written_block, s.written_warp, s.written_at))
      b_->fail(t, at, "multiplies what " + std::to_string(s.writer) + " wrote, without a barrier between them");
    if (s.writer < 0 || index(s.writer) >= b_->threads_.size()) return;
    const auto& fences = fences_[index(s.writer)];
    const auto fence = std::upper_bound(fences.begin(), fences.end(), s.written_at);
    const bool told = fence != fences.end() && (s.writer == t || s.written_block < b_->epoch_ ||
                                                b_->known_[index(t)][index(s.writer)] >= *fence);
    if (!told) b_->fail(t, at, "multiplies what " + std::to_string(s.writer) + " wrote without fence_async");
  }
  /// Before a thread (or the copies that it starts) writes.
  void check_readers(int t, std::size_t at) {
    const unit& u = units_[at / 16];
    if (u.in_flight > 0) b_->fail(t, at, "writes what a product in the background reads");
    for (std::size_t w = 0; w < b_->warps_.size(); ++w) {
      if (u.read_at[w] > b_->known_[index(t)][w * warp_size] && index(t) / warp_size != w)
        b_->fail(t, at,
                 "writes what a product of warp " + std::to_string(w) + " has read, and hasn't heard that it is over");
    }
  }

  thread_block* b_;
  std::map<std::size_t, barrier> barriers_;
  std::map<int, named> named_;
  std::vector<unit> units_;
  std::vector<std::vector<std::uint32_t>> fences_;  // a thread's, by its clock
  std::vector<std::map<int, product>> products_;    // of each warpgroup, by number
  std::vector<own> threads_;
};

}  // namespace simt_host

namespace effinfer::inline v0::execution::simt {

template <>
class hopper<simt_host::context> {
  template <class T>
  using array = simt_host::shared_array<T>;
  using barriers = array<mbarrier>;

 public:
  explicit hopper(simt_host::context& t) : t_(&t), b_(&simt_host::hopper_block::of(t)) {}

  void init(const barriers& b, int i, int arrivals) { b_->init(t_->thread(), at(b, i), arrivals); }
  void publish() {}
  void arrive(const barriers& b, int i) { b_->arrive(t_->thread(), at(b, i)); }
  void arrive_expect(const barriers& b, int i, int bytes) { b_->arrive(t_->thread(), at(b, i), bytes); }
  void wait(const barriers& b, int i, int parity) { b_->wait(t_->thread(), at(b, i), parity); }

  template <class T>
  void copy_box(const array<T>& to, std::ptrdiff_t j, const tensor_map* map, int x, int y, const barriers& b, int i) {
    b_->copy_box(t_->thread(), at(to, j), *map, x, y, at(b, i));
  }
  void acquire(const tensor_map*) {}
  void fence_async() { b_->fence_async(t_->thread()); }

  template <class T>
  matrix_descriptor describe(const array<T>& a, std::ptrdiff_t j, int leading, int stride) {
    return matrix_descriptor::of(static_cast<std::uint32_t>(at(a, j)), leading, stride);
  }
  template <int... Steps>
  void begin(std::uint32_t (&... a)[Steps][4]) {
    (void)std::initializer_list<const void*>{&a...};
    t_->warp_step("wgmma.fence");
    b_->begin(t_->thread());
  }
  void commit() {
    t_->warp_step("wgmma.commit_group");
    b_->commit(t_->thread());
  }
  template <int... Steps>
  void keep(const std::uint32_t (&... a)[Steps][4]) {
    (void)std::initializer_list<const void*>{&a...};
  }
  template <int N, int... Columns>
  void finish(float (&... d)[Columns][4]) {
    (void)std::initializer_list<const void*>{&d...};  // who waits for them says so, to compilers
    t_->warp_step("wgmma.wait_group");
    b_->finish(t_->thread(), N);
  }

  template <bool Transposed, int Columns, class T>
  void multiply(float (&d)[Columns][4], matrix_descriptor a, matrix_descriptor b, T, bool accumulate) {
    static_assert(Columns == 8 || Columns == 16 || Columns == 32);
    t_->warp_step("wgmma");
    b_->template multiply<T>(t_->thread(), &d[0][0], Columns, nullptr, &a, b, Transposed, accumulate);
  }
  template <bool Transposed, int Columns, class T>
  void multiply(float (&d)[Columns][4], const std::uint32_t (&a)[4], matrix_descriptor b, T, bool accumulate) {
    static_assert(Columns == 8 || Columns == 16 || Columns == 32);
    float rows[2][16];
    t_->template rows_of_a<T>(a, rows);
    b_->template multiply<T>(t_->thread(), &d[0][0], Columns, &rows[0][0], nullptr, b, Transposed, accumulate);
  }

  void sync(int id, int threads) { b_->sync_named(t_->thread(), id, threads); }
  void arrive(int id, int threads) { b_->arrive_named(t_->thread(), id, threads); }
  template <int N>
  void take_registers() {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0);
  }
  template <int N>
  void give_registers() {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0);
  }

 private:
  template <class T>
  static std::size_t at(const array<T>& a, std::ptrdiff_t i) {
    return static_cast<std::size_t>(a.checked(i));
  }

  simt_host::context* t_;
  simt_host::hopper_block* b_;
};

}  // namespace effinfer::inline v0::execution::simt
