/**
 * The best division of a row of cells into clusters, by dynamic programming.
 *
 * With P0, P1 the prefix sums of importance and importance · value (values taken from their mean), the
 * cells j … i − 1 as one cluster lose Σ h·w² − (P1ᵢ − P1ⱼ)² / (P0ᵢ − P0ⱼ). The first term is the same for all
 * divisions, so the sum of the second is made as large as it can be:
 *
 *   G_k(i) = max over j of G_{k−1}(j) + (P1ᵢ − P1ⱼ)² / (P0ᵢ − P0ⱼ)
 *
 * The best j never falls as i grows, so the middle i is solved first and halves what is left to look at
 * on either side: O(n log n) a layer. Nor does it fall as k grows (Yao's quadrangle inequality), so none below
 * the best one of the layer before is looked at. Where few are left, neighbouring i share an instruction
 * instead.
 */

/** The block at hand, as its thread sees it. */
export let p0: usize = 0
export let p1: usize = 0
let before: usize = 0
let now: usize = 0
let choices: usize = 0
/** The choices of the layer before, and its last row; 0 where there is none. */
let prior: usize = 0
let priorLast: i32 = 0
/** Room for four results and their indices. */
let lanes: usize = 0

/** So many candidates are few. */
const FEW = 16

/** Bytes at `lanes`. */
const LANES: usize = 64

/** Divides the room for up to `cells` cells; the prefix sums are the caller's to fill, from index 0. */
export function placeDivision(room: usize, cells: i32): void {
  const size = <usize>(cells + 2) << 3
  p0 = room
  p1 = p0 + size
  before = p1 + size
  now = before + size
  lanes = now + size
  choices = lanes + LANES
}

/** The mean of the cells from … to − 1. */
// @ts-ignore: decorator
@inline
function centroid(from: i32, to: i32, mean: f64): f32 {
  const importance = load<f64>(p0 + (<usize>to << 3)) - load<f64>(p0 + (<usize>from << 3))
  const sum = load<f64>(p1 + (<usize>to << 3)) - load<f64>(p1 + (<usize>from << 3))
  return <f32>(mean + sum / importance)
}

/** The best division of n cells into `entries` clusters, n > entries. */
export function divide(table: usize, entries: i32, n: i32, cells: i32, mean: f64): void {
  for (let i = 1; i <= n; i++) {
    const s = load<f64>(p1 + (<usize>i << 3))
    store<f64>(before + (<usize>i << 3), (s * s) / load<f64>(p0 + (<usize>i << 3)))
  }
  const layer = <usize>(cells + 1) << 1
  const first = choices
  for (let k = 2; k <= entries; k++) {
    prior = k > 2 ? choices : 0
    priorLast = n - (entries - k) - 1
    choices = first + <usize>(k - 2) * layer
    // The last layer is asked for all cells alone; those before leave a cell for each one to come.
    const from = k == entries ? n : k
    solve(from, n - (entries - k), k - 1, n - 1)
    const kept = before
    before = now
    now = kept
  }
  let to = n
  for (let k = entries; k >= 1; k--) {
    const from = k == 1 ? 0 : <i32>load<u16>(first + <usize>(k - 2) * layer + (<usize>to << 1))
    store<f32>(table + (<usize>(k - 1) << 2), centroid(from, to, mean))
    to = from
  }
}

/** G_k of the cells low … high, whose best j are known to be within from … to. */
function solve(low: i32, high: i32, from: i32, to: i32): void {
  while (low <= high) {
    if (to - from < FEW && low < high) {
      solveFew(low, high, from, to)
      return
    }
    const middle = (low + high) >> 1
    const j = best(middle, max(from, leastOf(middle)), min(to, middle - 1))
    store<u16>(choices + (<usize>middle << 1), <u16>j)
    if (middle - low > 0) solve(low, middle - 1, from, j)
    low = middle + 1
    from = j
  }
}

/** What the best j of cell i is at least. */
// @ts-ignore: decorator
@inline
function leastOf(i: i32): i32 {
  return prior ? <i32>load<u16>(prior + (<usize>min(i, priorLast) << 1)) : 0
}

/** G_k(i) of j as the last border. */
// @ts-ignore: decorator
@inline
function valueOf(i: i32, j: i32): f64 {
  const at = <usize>i << 3
  const q = <usize>j << 3
  const d0 = load<f64>(p0 + at) - load<f64>(p0 + q)
  const d1 = load<f64>(p1 + at) - load<f64>(p1 + q)
  return load<f64>(before + q) + (d1 * d1) / d0
}

/**
 * The same, four cells at a time, each against one j after the other. Here and in `best` two halves of four numbers
 * stand side by side, which an engine with vectors of 256 bits makes one of (threads.ts, `wide`).
 */
function solveFew(low: i32, high: i32, from: i32, to: i32): void {
  from = max(from, leastOf(low))
  const out = lanes
  for (let i = low; i <= high; i += 4) {
    const at = <usize>i << 3
    const importance0 = v128.load(p0 + at)
    const importance1 = v128.load(p0 + at, 16)
    const sum0 = v128.load(p1 + at)
    const sum1 = v128.load(p1 + at, 16)
    let most0 = f64x2.splat(-Infinity)
    let most1 = most0
    let where0 = i64x2.splat(<i64>from)
    let where1 = where0
    // All four look at the same j: a loop of known length costs less than a shorter one.
    const end = min(to, i - 1)
    for (let j = from; j <= end; j++) {
      const q = <usize>j << 3
      const importance = v128.load64_splat(p0 + q)
      const sum = v128.load64_splat(p1 + q)
      const base = v128.load64_splat(before + q)
      const d0 = f64x2.sub(sum0, sum)
      const d1 = f64x2.sub(sum1, sum)
      const value0 = f64x2.add(base, f64x2.div(f64x2.mul(d0, d0), f64x2.sub(importance0, importance)))
      const value1 = f64x2.add(base, f64x2.div(f64x2.mul(d1, d1), f64x2.sub(importance1, importance)))
      const index = i64x2.splat(<i64>j)
      const more0 = f64x2.gt(value0, most0)
      const more1 = f64x2.gt(value1, most1)
      most0 = v128.bitselect(value0, most0, more0)
      most1 = v128.bitselect(value1, most1, more1)
      where0 = v128.bitselect(index, where0, more0)
      where1 = v128.bitselect(index, where1, more1)
    }
    v128.store(out, most0)
    v128.store(out, most1, 16)
    v128.store(out, where0, 32)
    v128.store(out, where1, 48)
    const some = min(4, high - i + 1)
    for (let k = 0; k < some; k++) {
      const lane = out + (<usize>k << 3)
      let most = load<f64>(lane)
      let where = load<i32>(lane, 32)
      // And the j that only the later ones have.
      for (let j = i; j <= min(to, i + k - 1); j++) {
        if (j < from) continue
        const value = valueOf(i + k, j)
        if (value > most) {
          most = value
          where = j
        }
      }
      store<f64>(now + at + (<usize>k << 3), most)
      store<u16>(choices + (<usize>(i + k) << 1), <u16>where)
    }
  }
}

/** The j of from … to with the largest value, the first of equals; leaves G_k(i) in `now`. */
function best(i: i32, from: i32, to: i32): i32 {
  const out = lanes
  const importance = v128.load64_splat(p0 + (<usize>i << 3))
  const sum = v128.load64_splat(p1 + (<usize>i << 3))
  let most0 = f64x2.splat(-Infinity)
  let most1 = most0
  let where0 = i64x2.splat(<i64>from)
  let where1 = where0
  let j = from
  for (; j + 3 <= to; j += 4) {
    const q = <usize>j << 3
    const d0 = f64x2.sub(sum, v128.load(p1 + q))
    const d1 = f64x2.sub(sum, v128.load(p1 + q, 16))
    const i0 = f64x2.sub(importance, v128.load(p0 + q))
    const i1 = f64x2.sub(importance, v128.load(p0 + q, 16))
    const value0 = f64x2.add(v128.load(before + q), f64x2.div(f64x2.mul(d0, d0), i0))
    const value1 = f64x2.add(v128.load(before + q, 16), f64x2.div(f64x2.mul(d1, d1), i1))
    const index = i64x2.splat(<i64>j)
    const more0 = f64x2.gt(value0, most0)
    const more1 = f64x2.gt(value1, most1)
    most0 = v128.bitselect(value0, most0, more0)
    most1 = v128.bitselect(value1, most1, more1)
    where0 = v128.bitselect(index, where0, more0)
    where1 = v128.bitselect(index, where1, more1)
  }
  v128.store(out, most0)
  v128.store(out, most1, 16)
  v128.store(out, where0, 32)
  v128.store(out, where1, 48)
  let most = load<f64>(out)
  let found = load<i32>(out, 32)
  for (let k = 1; k < 4; k++) {
    const lane = out + (<usize>k << 3)
    const value = load<f64>(lane)
    const at = load<i32>(lane, 32) + k
    if (value > most || (value == most && at < found)) {
      most = value
      found = at
    }
  }
  for (; j <= to; j++) {
    const value = valueOf(i, j)
    if (value > most) {
      most = value
      found = j
    }
  }
  store<f64>(now + (<usize>i << 3), most)
  return found
}
