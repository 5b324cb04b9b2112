// What a warp's tensor core does, by plain loops: lanes show each other their fragments (kernels/mma.cuh has the layouts).
#pragma once
#include "cuda.h"

namespace emulation {

// Copies arrive when they are waited for and not before, so that a wait that is missing shows.
void copy_later(void *to, const void *from, size_t bytes);
void end_copies();
void wait_for_copies(size_t most_left);

struct Fragments {
  uint32_t a[32][4];
  uint32_t b[32][2];
};

/** All lanes' registers. */
inline Fragments gather_fragments(const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  Fragments all;
  const auto share = [](uint32_t low, uint32_t high, auto put) {
    const uint64_t *from = exchange(~0u, low | static_cast<uint64_t>(high) << 32);
    for (unsigned i = 0; i < 32; i++) put(i, static_cast<uint32_t>(from[i]), static_cast<uint32_t>(from[i] >> 32));
  };
  for (unsigned r = 0; r < 4; r += 2) {
    share(a[r], a[r + 1], [&](unsigned i, uint32_t low, uint32_t high) {
      all.a[i][r] = low;
      all.a[i][r + 1] = high;
    });
  }
  share(b[0], b[1], [&](unsigned i, uint32_t low, uint32_t high) {
    all.b[i][0] = low;
    all.b[i][1] = high;
  });
  return all;
}

/** c[i] += Σ_k A(row, k) · B(k, column) with so many numbers a register; left and right read one of a register. */
template <unsigned EACH, class T, class A, class B>
void multiply(T (&c)[4], const Fragments &all, A left, B right) {
  const unsigned g = lane() / 4, t = lane() % 4;
  for (unsigned i = 0; i < 4; i++) {
    const unsigned row = g + i / 2 * 8, column = 2 * t + i % 2;
    for (unsigned k = 0; k < 8 * EACH; k++) {
      const unsigned place = k / EACH % 4, upper = k / (4 * EACH);
      const uint32_t a = all.a[row % 8 * 4 + place][2 * upper + row / 8], b = all.b[column * 4 + place][upper];
      c[i] += left(a, k % EACH) * right(b, k % EACH);
    }
  }
}

inline void multiply_halves(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const auto read = [](uint32_t word, unsigned place) {
    return static_cast<float>(cast<_Float16>(static_cast<uint16_t>(word >> (16 * place))));
  };
  multiply<2>(c, gather_fragments(a, b), read, read);
}

inline void multiply_brains(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const auto read = [](uint32_t word, unsigned place) { return cast<float>(word >> (16 * place) << 16); };
  multiply<2>(c, gather_fragments(a, b), read, read);
}

/** E4M3: bias 7, no infinities, all ones is no number. */
inline void multiply_fp8(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const auto read = [](uint32_t word, unsigned place) {
    const unsigned code = word >> (8 * place) & 255, exponent = code >> 3 & 15, digits = code & 7;
    if ((code & 127) == 127) return NAN;
    const float size = exponent == 0 ? std::ldexp(static_cast<float>(digits), -9)
                                     : std::ldexp(static_cast<float>(8 + digits), static_cast<int>(exponent) - 10);
    return code & 128 ? -size : size;
  };
  multiply<4>(c, gather_fragments(a, b), read, read);
}

inline void multiply_bytes(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply<4>(
      c, gather_fragments(a, b), [](uint32_t word, unsigned place) { return static_cast<int>(word >> (8 * place) & 255); },
      [](uint32_t word, unsigned place) { return static_cast<int>(static_cast<int8_t>(word >> (8 * place) & 255)); });
}

inline uint32_t fma_halves(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t out = 0;
  for (unsigned shift = 0; shift < 32; shift += 16) {
    const auto at = [shift](uint32_t x) { return static_cast<double>(cast<_Float16>(static_cast<uint16_t>(x >> shift))); };
    const auto bits = cast<uint16_t>(static_cast<_Float16>(at(a) * at(b) + at(c)));
    out |= static_cast<uint32_t>(bits) << shift;
  }
  return out;
}

} // namespace emulation
