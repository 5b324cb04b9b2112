// Activations and their slopes; the numbers of the kinds are those of src/decoder/operations.ts.
#pragma once
#include "common.cuh"

/** exp with its argument held where f32 holds the result. */
__device__ inline f32 bounded_exp(f32 x) { return expf(fminf(fmaxf(x, -87.0f), 88.0f)); }
__device__ inline f32 sigmoid(f32 x) { return 1.0f / (1.0f + bounded_exp(-x)); }
/** Φ, the normal distribution. */
__device__ inline f32 normal(f32 x) { return 0.5f * erfcf(-x * 0.70710678f); }
/** ½ (1 + tanh z) = 1 / (1 + exp(−2z)), which keeps its digits where tanh is near −1. */
__device__ inline f32 gelu_gate(f32 x) {
  const f32 near = fminf(fmaxf(x, -20.0f), 20.0f);
  return sigmoid(1.5957691216f * (near + 0.044715f * near * near * near));
}

__device__ inline f32 activated(u32 kind, f32 x) {
  if (kind == 0) return x * sigmoid(x);
  if (kind == 1) return x * gelu_gate(x);
  if (kind == 2) return x * normal(x);
  return fmaxf(x, 0.0f);
}

__device__ inline f32 slope(u32 kind, f32 x) {
  const f32 near = fminf(fmaxf(x, -100.0f), 100.0f);
  if (kind == 0) {
    const f32 s = sigmoid(x);
    return s + near * s * (1.0f - s);
  }
  if (kind == 1) {
    const f32 g = gelu_gate(x);
    return g + near * g * (1.0f - g) * 1.5957691216f * (1.0f + 0.134145f * near * near);
  }
  if (kind == 2) return normal(x) + near * bounded_exp(-0.5f * near * near) * 0.3989422804f;
  return x > 0 ? 1.0f : 0.0f;
}
