/** Attention of points to entries, and a softmax backward. A task is 32 rows. */

import { loadSome, storeSome, sum } from './simd'
import { exponentials } from './softmax'
import { take } from './threads'

const TASK = 32

/**
 * out[i] = softmax of −|x_i − c_j|² · inverse (+ Gumbel noise) over the k entries, whose components lie one after
 * the other: table[component][stride], stride a multiple of 4. `inverse` 0: 1 for the nearest entry, else 0.
 */
export function softAssign(
  out: usize,
  x: usize,
  rows: i32,
  d: i32,
  table: usize,
  k: i32,
  stride: i32,
  inverse: f32,
  noisy: i32,
  seed: i32,
): void {
  const tasks = (rows + TASK - 1) / TASK
  for (let task = take(); task < tasks; task = take()) {
    const end = min((task + 1) * TASK, rows)
    for (let row = task * TASK; row < end; row++) {
      const p = out + ((<usize>row * <usize>k) << 2)
      const point = x + ((<usize>row * <usize>d) << 2)
      for (let j = 0; j < k; j += 4) {
        let distance = f32x4.splat(0)
        for (let e = 0; e < d; e++) {
          const entry = v128.load(table + ((<usize>e * <usize>stride + <usize>j) << 2))
          const apart = f32x4.sub(f32x4.splat(load<f32>(point + (<usize>e << 2))), entry)
          distance = f32x4.add(distance, f32x4.mul(apart, apart))
        }
        storeSome(p + (<usize>j << 2), distance, k - j)
      }
      if (inverse == 0) {
        choose(p, k)
        continue
      }
      const factor = f32x4.splat(-inverse)
      for (let j = 0; j < k; j += 4) {
        const at = p + (<usize>j << 2)
        storeSome(at, f32x4.mul(loadSome(at, k - j), factor), k - j)
      }
      if (noisy) {
        for (let j = 0; j < k; j++) {
          const at = p + (<usize>j << 2)
          store<f32>(at, load<f32>(at) + gumbel(seed, row * k + j))
        }
      }
      const share = f32x4.splat(exponentials(p, k, 1))
      for (let j = 0; j < k; j += 4) {
        const at = p + (<usize>j << 2)
        storeSome(at, f32x4.mul(loadSome(at, k - j), share), k - j)
      }
    }
  }
}

/** 1 in place of the least of k distances, of equals the first; 0 elsewhere. */
function choose(p: usize, k: i32): void {
  let best = 0
  let least = load<f32>(p)
  for (let j = 1; j < k; j++) {
    const distance = load<f32>(p + (<usize>j << 2))
    if (distance < least) {
      least = distance
      best = j
    }
  }
  memory.fill(p, 0, <usize>k << 2)
  store<f32>(p + (<usize>best << 2), 1)
}

/** −ln(−ln u), u the number `index` of a seed's stream (mulberry32, entered at any place). */
function gumbel(seed: i32, index: i32): f32 {
  let t = seed + (index + 1) * 0x6d2b79f5
  t = (t ^ (t >>> 15)) * (1 | t)
  t = (t + (t ^ (t >>> 7)) * (61 | t)) ^ t
  const u = (<f64>(<u32>(t ^ (t >>> 14))) + 0.5) / 4294967296.0
  return <f32>-NativeMath.log(-NativeMath.log(u))
}

/** out = factor · p ∘ (g − Σ p·g); `out` may be g. */
export function softmaxGradient(
  out: usize,
  p: usize,
  g: usize,
  rows: i32,
  columns: i32,
  factor: f32,
): void {
  const tasks = (rows + TASK - 1) / TASK
  for (let task = take(); task < tasks; task = take()) {
    const end = min((task + 1) * TASK, rows)
    for (let row = task * TASK; row < end; row++) {
      const start = (<usize>row * <usize>columns) << 2
      let total = f32x4.splat(0)
      for (let j = 0; j < columns; j += 4) {
        const at = start + (<usize>j << 2)
        const some = columns - j
        total = f32x4.add(total, f32x4.mul(loadSome(p + at, some), loadSome(g + at, some)))
      }
      const mean = f32x4.splat(sum(total))
      const scale = f32x4.splat(factor)
      for (let j = 0; j < columns; j += 4) {
        const at = start + (<usize>j << 2)
        const some = columns - j
        const apart = f32x4.sub(loadSome(g + at, some), mean)
        storeSome(out + at, f32x4.mul(scale, f32x4.mul(loadSome(p + at, some), apart)), some)
      }
    }
  }
}
