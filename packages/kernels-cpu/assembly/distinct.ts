/**
 * The different values of a tensor, rounded to the leading bits of a float: counted with a bitmap over all that there
 * can be and the number of set bits before each of its words. One task: two passes over memory.
 */

import { take } from './threads'

/**
 * `bits` of each float are kept, the rest is rounded to the nearest (ties away from zero; at the very end of the
 * range toward zero). Returns how many values there are; where that is more than `most`, nothing is written. `scratch`: 2 · 2^bits / 8 bytes.
 */
export function distinct(
  values: usize,
  counts: usize,
  codes: usize,
  x: usize,
  size: i32,
  bits: i32,
  scratch: usize,
  most: i32,
): i32 {
  if (take() != 0) return 0
  const bytes: usize = (<usize>1 << bits) >> 3
  const bitmap = scratch
  const ranks = scratch + bytes
  const drop = 32 - bits
  memory.fill(bitmap, 0, bytes)
  const end = x + (<usize>size << 2)
  for (let p = x; p < end; p += 4) {
    const key = keyOf(load<u32>(p), drop)
    const word = bitmap + (<usize>(key >> 5) << 2)
    store<u32>(word, load<u32>(word) | (1 << (key & 31)))
  }
  let found = 0
  for (let word: usize = 0; word < bytes; word += 4) {
    store<i32>(ranks + word, found)
    found += popcnt<i32>(load<i32>(bitmap + word))
  }
  if (found > most) return found
  memory.fill(counts, 0, <usize>found << 2)
  for (let i = 0; i < size; i++) {
    const key = keyOf(load<u32>(x + (<usize>i << 2)), drop)
    const word = <usize>(key >> 5) << 2
    const below = load<u32>(bitmap + word) & ((1 << (key & 31)) - 1)
    const rank = load<i32>(ranks + word) + popcnt<i32>(below)
    store<u16>(codes + (<usize>i << 1), <u16>rank)
    store<f32>(values + (<usize>rank << 2), valueOf(key, drop))
    const count = counts + (<usize>rank << 2)
    store<f32>(count, load<f32>(count) + 1)
  }
  return found
}

/** Keys ascend as values do: those of negative numbers are turned around. −0 is 0. */
// @ts-ignore: decorator
@inline
function keyOf(float: u32, drop: i32): u32 {
  const magnitude = float & 0x7fffffff
  const rounded = (magnitude + (1 << (drop - 1))) >> drop
  const whole = min(rounded, <u32>(0x7f7fffff >> drop))
  const half: u32 = 1 << (31 - drop)
  return float >> 31 ? half - whole : half + whole
}

// @ts-ignore: decorator
@inline
function valueOf(key: u32, drop: i32): f32 {
  const half: u32 = 1 << (31 - drop)
  return key < half
    ? reinterpret<f32>(0x80000000 | ((half - key) << drop))
    : reinterpret<f32>((key - half) << drop)
}
