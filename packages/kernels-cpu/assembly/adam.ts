/** Adam's step, with its corrections for the first steps folded in by the host. */

import { loadSome, storeSome } from './simd'
import { take } from './threads'

/** What keeps a gradient of 0 from dividing by 0. */
const EPSILON: f32 = 1e-20

/** x −= length · m / (√(v · spread) + ε). A task is 1024 numbers. */
export function adam(
  x: usize,
  mean: usize,
  square: usize,
  gradient: usize,
  size: i32,
  beta1: f32,
  beta2: f32,
  length: f32,
  spread: f32,
): void {
  const tasks = (size + 1023) >> 10
  const keep1 = f32x4.splat(beta1)
  const keep2 = f32x4.splat(beta2)
  const take1 = f32x4.splat(1 - beta1)
  const take2 = f32x4.splat(1 - beta2)
  for (let task = take(); task < tasks; task = take()) {
    const end = min((task + 1) << 10, size)
    for (let i = task << 10; i < end; i += 4) {
      const at = <usize>i << 2
      const some = end - i
      const g = loadSome(gradient + at, some)
      const m = f32x4.add(f32x4.mul(keep1, loadSome(mean + at, some)), f32x4.mul(take1, g))
      const part = f32x4.mul(take2, f32x4.mul(g, g))
      const v = f32x4.add(f32x4.mul(keep2, loadSome(square + at, some)), part)
      storeSome(mean + at, m, some)
      storeSome(square + at, v, some)
      const size = f32x4.add(f32x4.sqrt(f32x4.mul(v, f32x4.splat(spread))), f32x4.splat(EPSILON))
      const moved = f32x4.div(f32x4.mul(f32x4.splat(length), m), size)
      storeSome(x + at, f32x4.sub(loadSome(x + at, some), moved), some)
    }
  }
}
