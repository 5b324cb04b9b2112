// Vectors of at most 4 · FOURS numbers, held by a thread, and the nearest of a table.
#pragma once
#include "common.cuh"

template <u32 FOURS> struct Vector {
  f32x4 v[FOURS];
};

/** `length` numbers from x on, filled up with zeros. */
template <u32 FOURS> __device__ Vector<FOURS> vector_at(const f32 *x, u32 length) {
  Vector<FOURS> out;
#pragma unroll
  for (u32 i = 0; i < FOURS; i++) {
    const u32 at = 4 * i;
    out.v[i] = {at < length ? x[at] : 0.0f, at + 1 < length ? x[at + 1] : 0.0f, at + 2 < length ? x[at + 2] : 0.0f,
                at + 3 < length ? x[at + 3] : 0.0f};
  }
  return out;
}

/** From a table whose vectors are filled up to fours. */
template <u32 FOURS> __device__ Vector<FOURS> entry_at(const f32 *table, u32 entry) {
  const f32x4 *from = reinterpret_cast<const f32x4 *>(table) + entry * FOURS;
  Vector<FOURS> out;
#pragma unroll
  for (u32 i = 0; i < FOURS; i++) out.v[i] = from[i];
  return out;
}

/** Differences are squared, so that equal vectors are at 0. */
template <u32 FOURS> __device__ f32 squared_distance(const Vector<FOURS> &a, const Vector<FOURS> &b) {
  f32 sum = 0;
#pragma unroll
  for (u32 i = 0; i < FOURS; i++) {
    const f32 x = a.v[i].x - b.v[i].x, y = a.v[i].y - b.v[i].y, z = a.v[i].z - b.v[i].z, w = a.v[i].w - b.v[i].w;
    sum += x * x + y * y + z * z + w * w;
  }
  return sum;
}

/** The same of differences that are scaled. */
template <u32 FOURS>
__device__ f32 scaled_distance(const Vector<FOURS> &a, const Vector<FOURS> &b, const Vector<FOURS> &scale) {
  f32 sum = 0;
#pragma unroll
  for (u32 i = 0; i < FOURS; i++) {
    const f32x4 s = scale.v[i];
    const f32 x = (a.v[i].x - b.v[i].x) * s.x, y = (a.v[i].y - b.v[i].y) * s.y;
    const f32 z = (a.v[i].z - b.v[i].z) * s.z, w = (a.v[i].w - b.v[i].w) * s.w;
    sum += x * x + y * y + z * z + w * w;
  }
  return sum;
}
