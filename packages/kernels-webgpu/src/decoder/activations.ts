/** Activations and their slopes in WGSL. */

import type { Activation } from '@lowbit/core'

export const ACTIVATIONS: Readonly<Record<Activation, number>> = {
  ...{ silu: 0, gelu: 1, gelu_erf: 2, relu: 3 },
}

/**
 * exp with its argument held where f32 holds the result, and Φ, the normal distribution, by the Chebyshev fit of
 * Numerical Recipes (erfcc, relative error below 1.2e-7).
 */
export const ACTIVATION_CODE = `
fn bounded_exp(x: f32) -> f32 { return exp(clamp(x, -87.0, 88.0)); }
fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + bounded_exp(-x)); }
fn normal(x: f32) -> f32 {
  let z = min(abs(x) * 0.70710678, 12.0);
  let t = 1.0 / (1.0 + 0.5 * z);
  let series = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806
    + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
  let tail = 0.5 * t * bounded_exp(-z * z + series);
  return select(tail, 1.0 - tail, x > 0.0);
}
/** ½ (1 + tanh z) = 1 / (1 + exp(−2z)), which keeps its digits where tanh is near −1. */
fn gelu_gate(x: f32) -> f32 {
  let near = clamp(x, -20.0, 20.0);
  return sigmoid(1.5957691216 * (near + 0.044715 * near * near * near));
}
fn activated(kind: u32, x: f32) -> f32 {
  if (kind == 0u) { return x * sigmoid(x); }
  if (kind == 1u) { return x * gelu_gate(x); }
  if (kind == 2u) { return x * normal(x); }
  return max(x, 0.0);
}
fn slope(kind: u32, x: f32) -> f32 {
  let near = clamp(x, -100.0, 100.0);
  if (kind == 0u) { let s = sigmoid(x); return s + near * s * (1.0 - s); }
  if (kind == 1u) {
    let g = gelu_gate(x);
    return g + near * g * (1.0 - g) * 1.5957691216 * (1.0 + 0.134145 * near * near);
  }
  if (kind == 2u) { return normal(x) + near * bounded_exp(-0.5 * near * near) * 0.3989422804; }
  return select(0.0, 1.0, x > 0.0);
}`
