/**
 * What a block of quantized columns leaves for the later ones: W −= E·U over all columns past the block, for
 * up to 96 rows at a time.
 */

import { packColumnPanel } from './pack'
import { edgeTiles, HIGH } from './tile'

/** Rows of a task of a feedback pass, and columns of a block of it. */
export const ROWS = 96
export const BLOCK = 128
const CHUNK = 64

/** errors [BLOCK][ROWS] and the room that `feedLater` needs behind it. */
export const ERRORS: usize = BLOCK * ROWS * 4
/** Panels read past the last row of errors. */
export const LATER: usize = ERRORS + 64 + ERRORS + BLOCK * CHUNK * 4 + 192

/** `errors` [some][ROWS] of the columns [column, column + some), rows first … first + count. */
export function feedLater(
  errors: usize,
  weight: usize,
  columns: i32,
  factor: usize,
  column: i32,
  some: i32,
  first: i32,
  count: i32,
): void {
  const next = column + some
  if (next >= columns) return
  const packed = errors + ERRORS + 64
  const panel = packed + ERRORS
  const spare = panel + BLOCK * CHUNK * 4
  const stride = <usize>columns << 2
  for (let r = 0; r < count; r += HIGH) {
    const out = packed + <usize>r * (<usize>some << 2)
    packColumnPanel(out, errors + <usize>(r << 2), ROWS * 4, count - r, some, -1)
  }
  for (let n = next; n < columns; n += CHUNK) {
    const last = min(n + CHUNK, columns)
    const size = <usize>some << 5
    let b = panel
    for (let m = n; m < last; m += 8) {
      let u = factor + <usize>column * stride + (<usize>m << 2)
      for (let k = 0; k < some; k++, u += stride, b += 32) {
        v128.store(b, v128.load(u))
        v128.store(b, v128.load(u, 16), 16)
      }
    }
    for (let r = 0; r < count; r += HIGH) {
      const a = packed + <usize>r * (<usize>some << 2)
      const out = weight + <usize>(first + r) * stride
      b = panel
      for (let m = n; m < last; m += 16, b += size << 1) {
        edgeTiles(a, b, size, some, out + (<usize>m << 2), stride, 1, count - r, last - m, spare)
      }
    }
  }
}
