// Small moves of memory as kernels: in a graph that is launched again, what a kernel is given can be set anew, and a
// copy from the host could not.
#include "common.cuh"

/** Bytes that are given by value: LITERALS of src/driver/device.ts at most. */
struct PutBytes {
  u8 *out;
  u32 bytes;
  u32 values[256];
};

KERNEL(put_bytes, PutBytes, 128) {
  for (u32 i = threadIdx.x; i < p.bytes; i += LANES) p.out[i] = static_cast<u8>(p.values[i / 4] >> (i % 4 * 8));
}

struct MoveBytes {
  u8 *out;
  /** None: zeros. */
  const u8 *x;
  u32 bytes;
  /** Of an element: 4 where everything lies on words. */
  u32 each;
};

/** Elements of a thread, a block apart. */
constexpr u32 PIECE = 16;

KERNEL(move_bytes, MoveBytes, 128) {
  const u32 first = blockIdx.x * PIECE * LANES + threadIdx.x, count = p.bytes / p.each;
  for (u32 i = first; i < count && i < first + PIECE * LANES; i += LANES) {
    if (p.each == 1) p.out[i] = p.x ? p.x[i] : 0;
    else reinterpret_cast<u32 *>(p.out)[i] = p.x ? reinterpret_cast<const u32 *>(p.x)[i] : 0;
  }
}
