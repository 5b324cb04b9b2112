/**
 * Attention backward. With P = softmax(scale · Q·Kᵀ) of one head and dO the gradient of its output:
 *
 *   dV = Pᵀ·dO,  dP = dO·Vᵀ,  dS = scale · P ∘ (dP − rowsum(P ∘ dP)),  dQ = dS·K,  dK = dSᵀ·Q
 *
 * A task is a head. P and dS are made for 48 query rows at a time, and every product runs on packed panels. Heads
 * that share keys leave dK and dV side by side, and sumHeads adds them in the order of the heads.
 */

import { mix, KEYS, ROWS, scoresOf } from './attention'
import { packColumnPanel } from './pack'
import { fma, loadSome, storeSome, sum } from './simd'
import { exponentials } from './softmax'
import { take, thread } from './threads'
import { edgeTile, HIGH } from './tile'

/**
 * q, out, dq [rows][heads·size]; k, v [keys][keyHeads·size]; dk, dv [keys][heads·size]. `scratch`: for each thread
 * two times 48 rows of `width` scores, two times 48 × (size rounded up to 8), and the room of scoresOf.
 */
export function attentionGradient(
  dq: usize,
  dk: usize,
  dv: usize,
  out: usize,
  q: usize,
  k: usize,
  v: usize,
  rows: i32,
  heads: i32,
  keyHeads: i32,
  size: i32,
  scale: f32,
  start: i32,
  width: i32,
  scratch: usize,
  room: usize,
): void {
  const mine = scratch + thread * room
  const stride = <usize>(heads * size) << 2
  const keyStride = <usize>(keyHeads * size) << 2
  for (let head = take(); head < heads; head = take()) {
    const shift = <usize>(head * size) << 2
    const key = <usize>((head / (heads / keyHeads)) * size) << 2
    for (let i = 0; i < start + rows; i++) {
      const at = <usize>i * stride + shift
      memory.fill(dk + at, 0, <usize>size << 2)
      memory.fill(dv + at, 0, <usize>size << 2)
    }
    for (let first = 0; first < rows; first += ROWS) {
      const at = <usize>first * stride + shift
      backward(
        dq + at,
        dk + shift,
        dv + shift,
        out + at,
        q + at,
        k + key,
        v + key,
        stride,
        keyStride,
        size,
        scale,
        min(ROWS, rows - first),
        start + first,
        width,
        mine,
      )
    }
  }
}

/** One block of query rows of one head; `before`: keys that stand before its first row. */
function backward(
  dq: usize,
  dk: usize,
  dv: usize,
  out: usize,
  q: usize,
  k: usize,
  v: usize,
  stride: usize,
  keyStride: usize,
  size: i32,
  scale: f32,
  rows: i32,
  before: i32,
  width: i32,
  scratch: usize,
): void {
  const line = <usize>width << 2
  const depth = max(size, KEYS)
  const wide = (size + 7) & ~7
  const ds = scratch + <usize>ROWS * line
  const outPanels = ds + <usize>ROWS * line
  const queryPanels = outPanels + <usize>(ROWS * wide) * 4
  const packed = queryPanels + <usize>(ROWS * wide) * 4
  const panel = packed + <usize>(ROWS * depth) * 4
  const spare = panel + <usize>(KEYS * depth) * 4 + 64
  scoresOf(scratch, line, q, stride, k, keyStride, size, rows, before, packed, panel, spare)
  scoresOf(ds, line, out, stride, v, keyStride, size, rows, before, packed, panel, spare)
  for (let r = 0; r < rows; r++) {
    probabilities(scratch + <usize>r * line, ds + <usize>r * line, before + r + 1, width, scale)
  }
  mix(dq, stride, ds, line, k, keyStride, size, rows, before, packed, panel, spare)
  columnPanels(outPanels, out, stride, rows, size)
  columnPanels(queryPanels, q, stride, rows, size)
  const keys = before + rows
  for (let key = 0; key < keys; key += HIGH) {
    const at = <usize>key << 2
    const to = <usize>key * stride
    addProducts(dv + to, stride, scratch + at, line, outPanels, rows, keys - key, size, packed, spare)
    addProducts(dk + to, stride, ds + at, line, queryPanels, rows, keys - key, size, packed, spare)
  }
}

/** A row of scores and one of dP become P and dS. */
function probabilities(p: usize, d: usize, seen: i32, width: i32, scale: f32): void {
  const factor = f32x4.splat(exponentials(p, seen, scale))
  const past = <usize>seen << 2
  memory.fill(p + past, 0, <usize>(width - seen) << 2)
  memory.fill(d + past, 0, <usize>(width - seen) << 2)
  let total = f32x4.splat(0)
  for (let i: usize = 0; i < past; i += 16) {
    const value = f32x4.mul(v128.load(p + i), factor)
    v128.store(p + i, value)
    total = fma(value, v128.load(d + i), total)
  }
  const level = f32x4.splat(sum(total))
  const s = f32x4.splat(scale)
  for (let i: usize = 0; i < past; i += 16) {
    const slope = f32x4.mul(f32x4.sub(v128.load(d + i), level), s)
    v128.store(d + i, f32x4.mul(v128.load(p + i), slope))
  }
}

/** x[rows][size] as panels of 8 columns, [panel][48][8]; past the last column zeros. */
function columnPanels(panels: usize, x: usize, stride: usize, rows: i32, size: i32): void {
  for (let n = 0; n < size; n += 8, panels += ROWS * 32) {
    let from = x + (<usize>n << 2)
    let to = panels
    for (let r = 0; r < rows; r++, from += stride, to += 32) {
      v128.store(to, loadSome(from, size - n))
      v128.store(to, loadSome(from + 16, size - n - 4), 16)
    }
  }
}

/** c += Sᵀ·X for up to HIGH columns of S [rows][…], X in panels. */
function addProducts(
  c: usize,
  stride: usize,
  s: usize,
  line: usize,
  panels: usize,
  rows: i32,
  columns: i32,
  size: i32,
  packed: usize,
  spare: usize,
): void {
  packColumnPanel(packed, s, line, columns, rows, 1)
  for (let n = 0; n < size; n += 8, panels += ROWS * 32) {
    edgeTile(packed, panels, rows, c + (<usize>n << 2), stride, 1, columns, size - n, spare)
  }
}

/** out[row][head][size] = Σ over the heads of its group of x[row][…][size]. A task is a row. */
export function sumHeads(out: usize, x: usize, rows: i32, keyHeads: i32, group: i32, size: i32): void {
  const bytes = <usize>size << 2
  for (let row = take(); row < rows; row = take()) {
    for (let head = 0; head < keyHeads; head++) {
      const at = <usize>(row * keyHeads + head) * bytes
      const from = x + at * <usize>group
      for (let i = 0; i < size; i += 4) {
        const column = <usize>i << 2
        let total = v128.load(from + column)
        for (let h = 1; h < group; h++) {
          total = f32x4.add(total, v128.load(from + <usize>h * bytes + column))
        }
        storeSome(out + at + column, total, size - i)
      }
    }
  }
}
