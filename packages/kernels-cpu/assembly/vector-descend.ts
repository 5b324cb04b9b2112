/**
 * One sweep of coordinate descent over vectors of `length` rows of one column (descend.ts is the same for
 * scalars). For each vector the candidates near its entry are compared at q + g / (H_jj + λ); four
 * vectors are lanes of a task, [column][element][4].
 */

import { BLOCK } from './later'
import { entrySize } from './nearest'
import { fnma } from './simd'
import { take, thread } from './threads'

const SIDE: usize = BLOCK * 64 * 4

/** `list`: [codes, packed table, entries, neighbours, candidates] for each table. */
export function descendOut(
  list: usize,
  stages: i32,
  length: i32,
  weight: usize,
  decoded: usize,
  gradient: usize,
  rows: i32,
  columns: i32,
  hessian: usize,
  damping: f32,
  rowScale: usize,
  across: i32,
  scaleColumns: i32,
  columnScale: usize,
  columnBias: usize,
  from: i32,
  codeColumns: i32,
  codesFrom: i32,
  some: i32,
  scratch: usize,
  room: usize,
): void {
  const x = scratch + thread * room
  const scales = x + 64
  const w = scales + 256
  const q = w + SIDE
  const g = q + SIDE
  const stride = <usize>columns << 2
  const high = length << 2
  const each = <usize>high << 2
  const vectors = (rows + length - 1) / length
  const tasks = (rows + high - 1) / high
  const lambda = f32x4.splat(damping)
  for (let task = take(); task < tasks; task = take()) {
    const row = task * high
    const there = min(high, rows - row)
    const start = <usize>row * stride + (<usize>from << 2)
    lay(w, weight + start, stride, there, high, length, some)
    lay(q, decoded + start, stride, there, high, length, some)
    const wide = <usize>some << 2
    lay(g, gradient + <usize>row * wide, wide, there, high, length, some)
    let block = -1
    for (let j = 0; j < some; j++) {
      const k = from + j
      if (k / scaleColumns != block) {
        block = k / scaleColumns
        for (let i = 0; i < high; i++) {
          const p = rowScale + (<usize>(row + i) * <usize>across + <usize>block << 2)
          const s: f32 = i >= there ? 0 : rowScale ? load<f32>(p) : 1
          store<f32>(scales + (<usize>((i % length << 2) + i / length) << 2), s)
        }
      }
      const s = columnScale ? load<f32>(columnScale + (<usize>k << 2)) : <f32>1
      const bias = columnBias ? load<f32>(columnBias + (<usize>k << 2)) : <f32>0
      const h = hessian + <usize>k * stride + (<usize>from << 2)
      const power = load<f32>(h + (<usize>j << 2)) + damping
      const at = <usize>j * each
      for (let e: usize = 0; e < each; e += 16) {
        // The damping's own part of the gradient changes with each step, so it is added here.
        const old = v128.load(q + at + e)
        const step = f32x4.sub(old, v128.load(w + at + e))
        const slope = fnma(lambda, step, v128.load(g + at + e))
        const shift = power > 0 ? f32x4.div(slope, f32x4.splat(power)) : f32x4.splat(0)
        // g's place in this column holds the target from here on, then the step.
        v128.store(g + at + e, f32x4.add(old, shift))
      }
      let moved = false
      for (let lane = 0; lane < 4; lane++) {
        const vector = row / length + lane
        if (vector >= vectors) break
        const code = <usize>(vector * codeColumns + k - codesFrom) << 1
        const corner = at + (<usize>lane << 2)
        if (improve(list, stages, length, code, x, g + corner, scales + (<usize>lane << 2), s, bias)) {
          moved = true
          for (let e = 0; e < length; e++) {
            const p = <usize>e << 4
            const scale = load<f32>(scales + p + (<usize>lane << 2))
            store<f32>(g + corner + p, value(list, stages, length, code, e) * scale * s + bias)
          }
        } else {
          for (let e = 0; e < length; e++) {
            store<f32>(g + corner + (<usize>e << 4), load<f32>(q + corner + (<usize>e << 4)))
          }
        }
      }
      if (!moved) continue
      for (let e: usize = 0; e < each; e += 16) {
        const now = v128.load(g + at + e)
        const step = f32x4.sub(now, v128.load(q + at + e))
        v128.store(q + at + e, now)
        let p = g + at + e + each
        for (let m = j + 1; m < some; m++, p += each) {
          v128.store(p, fnma(step, v128.load32_splat(h + (<usize>m << 2)), v128.load(p)))
        }
      }
    }
    for (let i = 0; i < there; i++) {
      let p = q + (<usize>((i % length << 2) + i / length) << 2)
      const out = decoded + start + <usize>i * stride
      for (let j = 0; j < some; j++, p += each) store<f32>(out + (<usize>j << 2), load<f32>(p))
    }
  }
}

/** side[column][element][4] = w[row][column]; rows past the last are zeros. */
function lay(
  side: usize,
  w: usize,
  stride: usize,
  there: i32,
  high: i32,
  length: i32,
  some: i32,
): void {
  const each = <usize>high << 2
  for (let i = 0; i < high; i++) {
    let out = side + (<usize>((i % length << 2) + i / length) << 2)
    const p = w + <usize>i * stride
    for (let j = 0; j < some; j++, out += each) {
      store<f32>(out, i < there ? load<f32>(p + (<usize>j << 2)) : 0)
    }
  }
}

/** Element e of the sum of a vector's entries. */
// @ts-ignore: decorator
@inline
function value(list: usize, stages: i32, length: i32, code: usize, e: i32): f32 {
  let sum: f32 = 0
  for (let stage = 0; stage < stages; stage++) {
    const entry = list + <usize>(stage * 20)
    const index = <usize>load<u16>(load<usize>(entry) + code)
    sum += load<f32>(load<usize>(entry, 4) + index * entrySize(length) + (<usize>(e + 1) << 2))
  }
  return sum
}

/** Whether one of a vector's codes has changed. `target` and `scales` are strided by 16 bytes. */
function improve(
  list: usize,
  stages: i32,
  length: i32,
  code: usize,
  x: usize,
  target: usize,
  scales: usize,
  s: f32,
  bias: f32,
): bool {
  let changed = false
  const size = entrySize(length)
  for (let stage = 0; stage < stages; stage++) {
    const entry = list + <usize>(stage * 20)
    const codes = load<usize>(entry) + code
    const table = load<usize>(entry, 4)
    const mine = <usize>load<u16>(codes)
    for (let e = 0; e < length; e++) {
      const p = <usize>e << 4
      const scale = load<f32>(scales + p) * s
      let v: f32 = scale == 0 ? 0 : (load<f32>(target + p) - bias) / scale
      if (stages > 1) {
        const own = load<f32>(table + mine * size + (<usize>(e + 1) << 2))
        v -= value(list, stages, length, code, e) - own
      }
      store<f32>(x + (<usize>e << 2), v)
    }
    // Rows of different scales weigh differently.
    const candidates = load<i32>(entry, 16)
    const near = load<usize>(entry, 12) + mine * (<usize>candidates << 1)
    let best = mine
    let least: f32 = Infinity
    for (let i = 0; i < candidates; i++) {
      const index = <usize>load<u16>(near + (<usize>i << 1))
      const p = table + index * size
      let sum: f32 = 0
      for (let e = 0; e < length; e++) {
        const scale = load<f32>(scales + (<usize>e << 4))
        const c = (load<f32>(x + (<usize>e << 2)) - load<f32>(p + (<usize>(e + 1) << 2))) * scale
        sum += c * c
      }
      if (sum < least) {
        least = sum
        best = index
      }
    }
    if (best != mine) {
      store<u16>(codes, <u16>best)
      changed = true
    }
  }
  return changed
}
