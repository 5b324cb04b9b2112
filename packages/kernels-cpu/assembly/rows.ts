/** Decoded rows of a weight (an embedding), in the order of the input features. */

import { BLOCK, fill, PANEL } from './panel'
import { depthOf } from './source'
import { take, thread } from './threads'

/**
 * out[i] = W[indices[i]], or W[from + i] with indices 0 and `from` a multiple of 8. `map`: feature of
 * each stored column, −1 padding; 0: as stored. `factors`: one for each feature, or 0. `scratch`: two
 * panels for each thread.
 */
export function gather(
  out: usize,
  columns: i32,
  source: usize,
  indices: usize,
  from: i32,
  count: i32,
  map: usize,
  factors: usize,
  scratch: usize,
  room: usize,
): void {
  const depth = depthOf(source)
  const panel = scratch + thread * room
  const parts = panel + PANEL
  // Without indices a task is a strip, so that it is decoded once.
  const some = indices ? 1 : 8
  const tasks = (count + some - 1) / some
  for (let task = take(); task < tasks; task = take()) {
    const first = indices ? load<i32>(indices + (<usize>task << 2)) : from + (task << 3)
    for (let k = 0; k < depth; k += BLOCK) {
      const end = min(k + BLOCK, depth)
      fill(panel, source, first >> 3, k, end, parts)
      for (let i = 0; i < some; i++) {
        const at = task * some + i
        if (at >= count) break
        const row = out + <usize>at * (<usize>columns << 2)
        // Columns that no stage covers are zeros.
        if (map && k == 0) memory.fill(row, 0, <usize>columns << 2)
        let p = panel + <usize>(((first & 7) + i) << 2)
        for (let j = k; j < end; j++, p += 32) {
          const feature = map ? load<i32>(map + (<usize>j << 2)) : j
          if (feature < 0) continue
          let value = load<f32>(p)
          if (factors) value *= load<f32>(factors + (<usize>feature << 2))
          store<f32>(row + (<usize>feature << 2), value)
        }
      }
    }
  }
}

/** Makes strips of 8 rows from a plain matrix; rows past the edge are zeros. */
export function stripe(out: usize, x: usize, rows: i32, depth: i32, halves: i32): void {
  const strips = (rows + 7) >> 3
  for (let strip = take(); strip < strips; strip = take()) {
    let to = out + <usize>strip * (<usize>depth << (halves ? 4 : 5))
    for (let k = 0; k < depth; k++) {
      for (let r = 0; r < 8; r++) {
        const row = (strip << 3) + r
        const at = <usize>row * <usize>depth + <usize>k
        if (halves) store<u16>(to + <usize>(r << 1), row < rows ? load<u16>(x + (at << 1)) : 0)
        else store<f32>(to + <usize>(r << 2), row < rows ? load<f32>(x + (at << 2)) : 0)
      }
      to += halves ? 16 : 32
    }
  }
}
