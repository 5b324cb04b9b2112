/**
 * out[t, n] (+)= Σ_k a[t, k] · b[n, k], cache-blocked. The left side comes packed (pack.ts). A task
 * is a chunk of columns of out: for each block of 256 k its panels of b are filled once (which is
 * where codes are decoded) and then meet every panel of a. Each output is summed in the order of k,
 * block by block, whatever the chunks.
 */

import { BLOCK, fill, PANEL } from './panel'
import { dataOf, F32, kindOf, strideOf } from './source'
import { take, thread } from './threads'
import { edgeTiles, HIGH } from './tile'

/** Only the tiles that touch out's upper triangle are wanted; `shift` is out's first row. */
const UPPER = 1
/** b is upper triangular, b[k][n] = 0 for k > n: stops at the chunk's last column. */
const UPPER_B = 2

/**
 * `scratch`: for each thread `room` bytes: 192, a panel's, and chunk × 256 floats. `stride`: bytes from
 * row to row of out. `chunk` is a multiple of 8 and does not affect the result.
 */
export function gemm(
  out: usize,
  stride: usize,
  a: usize,
  rows: i32,
  source: usize,
  columns: i32,
  depth: i32,
  add: i32,
  chunk: i32,
  shape: i32,
  shift: i32,
  scratch: usize,
  room: usize,
): void {
  const spare = scratch + thread * room
  const parts = spare + 192
  const panels = parts + PANEL
  const dense = kindOf(source) == F32
  const tasks = (columns + chunk - 1) / chunk
  for (let task = take(); task < tasks; task = take()) {
    const first = task * chunk
    const last = min(first + chunk, columns)
    const end = shape == UPPER ? min(rows, last - shift) : rows
    let adding = add
    const stop = shape == UPPER_B ? min(depth, last) : depth
    for (let k = 0; k < stop; k += BLOCK) {
      const some = min(BLOCK, stop - k)
      let size: usize = BLOCK * 32
      let b = panels
      if (dense) {
        size = strideOf(source)
        b = dataOf(source) + <usize>(first >> 3) * size + (<usize>k << 5)
      } else {
        for (let n = first; n < last; n += 8) {
          fill(panels + <usize>((n - first) >> 3) * size, source, n >> 3, k, k + some, parts)
        }
      }
      for (let row = 0; row < end; row += HIGH) {
        const left = a + <usize>row * (<usize>depth << 2) + <usize>(k * HIGH) * 4
        const to = out + <usize>row * stride
        let right = b
        for (let n = first; n < last; n += 16, right += size << 1) {
          edgeTiles(
            left,
            right,
            size,
            some,
            to + (<usize>n << 2),
            stride,
            adding,
            rows - row,
            last - n,
            spare,
          )
        }
      }
      adding = 1
    }
  }
}

/** Copies the upper triangle of a square matrix to the lower. */
export function mirror(out: usize, size: i32): void {
  const stride = <usize>size << 2
  const tasks = (size + 31) >> 5
  for (let task = take(); task < tasks; task = take()) {
    const end = min((task + 1) << 5, size)
    for (let row = task << 5; row < end; row++) {
      let from = out + (<usize>row << 2)
      const to = out + <usize>row * stride
      for (let column = 0; column < row; column++, from += stride) {
        store<f32>(to + (<usize>column << 2), load<f32>(from))
      }
    }
  }
}
