#pragma once
// Numbers that a thread loads and stores at once: memory answers a request of 16 bytes as fast as one of 2.

#include <effinfer/core/config.hpp>

#include <cstddef>
#include <cstdint>

namespace effinfer::inline v0::execution::simt {

/// N numbers side by side, from an address that is a multiple of their size or of 16 on.
template <class T, int N = 8>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) pack {
  T v[N];
};

/// True where every pack of rows `stride` elements apart is aligned.
template <class T, int N = 8>
EFFINFER_HOST_DEVICE bool takes_packs(const T* data, std::ptrdiff_t stride = 0) {
  constexpr std::size_t unit = alignof(pack<T, N>);
  return reinterpret_cast<std::uintptr_t>(data) % unit == 0 && static_cast<std::size_t>(stride) * sizeof(T) % unit == 0;
}

template <class T, int N = 8>
EFFINFER_HOST_DEVICE pack<T, N> load_pack(const T* from) {
#if defined(__CUDA_ARCH__)
  return *reinterpret_cast<const pack<T, N>*>(from);
#else
  pack<T, N> p;
  __builtin_memcpy(p.v, from, sizeof p.v);
  return p;
#endif
}
template <class T, int N>
EFFINFER_HOST_DEVICE void store_pack(T* to, const pack<T, N>& p) {
#if defined(__CUDA_ARCH__)
  *reinterpret_cast<pack<T, N>*>(to) = p;
#else
  __builtin_memcpy(to, p.v, sizeof p.v);
#endif
}

/// Four words, to a multiple of 16 bytes.
EFFINFER_HOST_DEVICE inline void store_words(void* to, const std::uint32_t (&words)[4]) {
#if defined(__CUDA_ARCH__)
  *static_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
#else
  __builtin_memcpy(to, words, sizeof words);
#endif
}

/// The same of the first `count` numbers, one by one: where there aren't N, or packs don't lie aligned. The others are zeros.
template <class T, int N = 8>
EFFINFER_HOST_DEVICE pack<T, N> load_pack(const T* from, int count, bool aligned) {
  if (aligned && count >= N) return load_pack<T, N>(from);
  pack<T, N> p;
  EFFINFER_UNROLL
  for (int i = 0; i < N; ++i) p.v[i] = i < count ? from[i] : T{};
  return p;
}
template <class T, int N>
EFFINFER_HOST_DEVICE void store_pack(T* to, const pack<T, N>& p, int count, bool aligned) {
  if (aligned && count >= N) return store_pack(to, p);
  EFFINFER_UNROLL
  for (int i = 0; i < N; ++i) {
    if (i < count) to[i] = p.v[i];
  }
}

}  // namespace effinfer::inline v0::execution::simt
